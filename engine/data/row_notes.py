"""What is done to rows on their way to chats, in sentences that count the rows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class RowNote(Enum):
    """One thing that was done to a row: the sentence for one row, and for several."""

    OPENING = (
        "1 chat begins with the assistant: that opening is left out.",
        "{count:,} chats begin with the assistant: those openings are left out.",
    )
    JOINED = (
        "1 chat has messages of one side in a row: they are joined by a blank line.",
        "{count:,} chats have messages of one side in a row: they are joined by a blank line.",
    )
    SYSTEM_JOINED = (
        "1 chat has several system messages before the first question: they are joined.",
        "{count:,} chats have several system messages before the first question: they are joined.",
    )
    UNANSWERED = (
        "1 chat goes on after its last reply: what follows is left out.",
        "{count:,} chats go on after their last reply: what follows is left out.",
    )
    TREE = (
        "1 row is a tree of replies: one path is learned, along the replies ranked best.",
        "{count:,} rows are trees of replies: one path of each is learned, along the replies "
        "ranked best.",
    )
    BRANCHES = (
        "1 chat has several branches: the one that was shown last is learned.",
        "{count:,} chats have several branches: the one that was shown last is learned.",
    )
    UNSEEN = (
        "1 chat has steps that were not shown as messages, such as calls of tools: they are left "
        "out.",
        "{count:,} chats have steps that were not shown as messages, such as calls of tools: they "
        "are left out.",
    )
    NESTED = (
        "1 row has several answers: the first is learned.",
        "{count:,} rows have several answers: the first of each is learned.",
    )
    CHOSEN = (
        "1 row is a preference pair: its chosen reply is learned, the rejected one is left out.",
        "{count:,} rows are preference pairs: their chosen replies are learned, the rejected ones "
        "are left out.",
    )
    WEIGHT = (
        "1 chat has replies of weight 0, or marked train: false: they are read, but not learned.",
        "{count:,} chats have replies of weight 0, or marked train: false: they are read, but not "
        "learned.",
    )
    PARTLY = (
        "1 chat has replies of a weight other than 0 and 1: they are learned whole.",
        "{count:,} chats have replies of a weight other than 0 and 1: they are learned whole.",
    )
    TOOLS = (
        "1 chat lists tools: the list is left out, the calls and their results stay.",
        "{count:,} chats list tools: the lists are left out, the calls and their results stay.",
    )

    def sentence(self, count: int) -> str:
        """It was done to so many rows."""
        return self.value[count > 1].format(count=count)


def sentences(counts: Mapping[RowNote, int]) -> list[str]:
    """One sentence for each thing that was done."""
    return [note.sentence(counts[note]) for note in RowNote if counts.get(note)]
