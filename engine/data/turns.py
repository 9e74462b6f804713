"""The turns of a chat: their order, and what is joined, left out or refused so that it holds.

A chat is: at most one system turn; then a question, replies and results of tools; a reply last.
Whatever is changed to reach that is noted, so that it can be told with its count.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

from engine.data.cells import is_blank
from engine.data.items import Chat, Turn
from engine.data.mendable import MendableRow
from engine.data.messages import speakers_in, turn_of
from engine.data.records import RowError
from engine.data.row_notes import RowNote
from engine.data.speakers import UnknownSpeaker, by_strangers


def chat_of(entries: Sequence[Any], noticed: set[RowNote], system: str = "") -> Chat:
    """A list of messages as a chat.

    Args:
        entries: Objects with a role and a content, under whatever keys.
        noticed: What had to be done is added here.
        system: What a column of its own says to the model before.

    Raises:
        RowError: A message cannot be read, or nothing in it can be learned.
    """
    try:
        turns = [turn_of(entry, noticed) for entry in entries]
    except UnknownSpeaker:
        strangers = by_strangers(speakers_in(entries))
        if strangers is None:
            raise
        raise strangers from None
    return in_order([Turn("system", system), *turns] if system else turns, noticed)


def in_order(turns: Sequence[Turn], noticed: set[RowNote]) -> Chat:
    """The same turns as a chat, in the order that every chat has.

    Raises:
        RowError: Nothing in it can be learned, or the order cannot be mended.
    """
    if _is_plain(turns):
        return tuple(turns)
    system, rest = _opening(turns, noticed)
    if any(turn.role == "system" for turn in rest):
        raise MendableRow(
            "a system message stands after the first question",
            "Put what the system says before the first question, or take those rows out.",
        )
    merged = _merged(rest, noticed)
    last = max((n for n, turn in enumerate(merged) if turn.role == "assistant"), default=-1)
    if last < 0:
        raise RowError("it has no reply to learn from")
    if last < len(merged) - 1:
        noticed.add(RowNote.UNANSWERED)
    chat = (*system, *merged[: last + 1])
    _check(chat)
    if any(not turn.trained for turn in chat):
        noticed.add(RowNote.WEIGHT)
    return chat


def _is_plain(turns: Sequence[Turn]) -> bool:
    """Whether question and reply alternate already, none blank and each to be learned."""
    expected = "user"
    for place, turn in enumerate(turns):
        content = turn.content
        if not content or content.isspace():
            return False
        if turn.role == expected and turn.trained:
            expected = "assistant" if expected == "user" else "user"
        elif place or turn.role != "system":
            return False
    return expected == "user" and len(turns) > 1


def _opening(turns: Sequence[Turn], noticed: set[RowNote]) -> tuple[list[Turn], Sequence[Turn]]:
    """The system turn, if there is one, and everything from the first question on."""
    first = next((n for n, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        raise RowError(
            "it has no question"
            if any(turn.role != "system" for turn in turns)
            else "it has no messages"
        )
    before = [turn for turn in turns[:first] if not is_blank(turn.content) or turn.tool_calls]
    if any(turn.role != "system" for turn in before):
        noticed.add(RowNote.OPENING)
    texts = [turn.content for turn in before if turn.role == "system"]
    if len(texts) > 1:
        noticed.add(RowNote.SYSTEM_JOINED)
    return [Turn("system", "\n\n".join(texts))] if texts else [], turns[first:]


def _merged(turns: Sequence[Turn], noticed: set[RowNote]) -> list[Turn]:
    """Messages of one side in a row made one; results of tools stay apart."""
    merged: list[Turn] = []
    run: list[Turn] = []
    for turn in turns:
        if run and (turn.role != run[0].role or turn.role == "tool"):
            merged.append(_joined(run))
            run = []
        if run:
            noticed.add(RowNote.JOINED)
        run.append(turn)
    if run:
        merged.append(_joined(run))
    return merged


def _joined(run: Sequence[Turn]) -> Turn:
    if len(run) == 1:
        return run[0]
    for before, after in pairwise(run):
        if before.tool_calls and not is_blank(after.content):
            raise RowError("a reply follows a tool call that has no result")
    return Turn(
        run[0].role,
        "\n\n".join(turn.content for turn in run if not is_blank(turn.content)),
        all(turn.trained for turn in run),
        tuple(chain.from_iterable(turn.tool_calls for turn in run)),
        "\n\n".join(turn.reasoning for turn in run if turn.reasoning),
    )


def _check(chat: Chat) -> None:
    before = "system"
    for turn in chat:
        if turn.role == "tool" and before not in ("assistant", "tool"):
            raise RowError("the result of a tool stands before any call")
        if turn.role == "user" and is_blank(turn.content):
            raise RowError("a question is empty")
        if turn.role == "assistant" and is_blank(turn.content) and not turn.tool_calls:
            raise RowError("a reply is empty")
        before = turn.role
    if not any(turn.trained for turn in chat if turn.role == "assistant"):
        raise MendableRow(
            "each of its replies is marked as not to be learned",
            "They have the weight 0, or train: false: set 1, or true, for the replies to learn.",
        )
