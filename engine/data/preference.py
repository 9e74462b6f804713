"""A preference pair: only the reply that was chosen is learned, and only where that was asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.data.cells import text_of
from engine.data.columns import Layout
from engine.data.items import Chat, Role, Turn
from engine.data.messages import turns_in
from engine.data.records import RowError
from engine.data.row_notes import RowNote
from engine.data.turns import in_order

# Where a speaker begins in a dialogue that is written as one text.
_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")


class PreferenceRow(RowError):
    """A row that holds a chosen and a rejected reply, where nobody said what to do with it."""

    def __init__(self) -> None:
        super().__init__("it holds a chosen and a rejected reply")


def chosen_chat(row: Mapping[str, Any], layout: Layout, noticed: set[RowNote]) -> Chat:
    """The chat that ends with the chosen reply.

    Raises:
        RowError: There is no chosen reply, or no question before it.
    """
    if layout.chosen is None:
        raise RowError("it has no chosen and rejected reply")
    noticed.add(RowNote.CHOSEN)
    chosen = _speech(row[layout.chosen], "assistant", "the chosen reply", noticed)
    if all(turn.role != "user" for turn in chosen):
        chosen = [*_before(row, layout, noticed), *chosen]
    if chosen[-1].role != "assistant":
        raise RowError("it has no chosen reply")
    return in_order(chosen, noticed)


def _before(row: Mapping[str, Any], layout: Layout, noticed: set[RowNote]) -> list[Turn]:
    """System text and prompt, whatever the prompt is written as."""
    columns = layout.columns
    system = text_of(row[columns["system"]], columns["system"]) if "system" in columns else ""
    turns = [Turn("system", system)] if system else []
    if "prompt" in columns:
        prompt = _speech(row[columns["prompt"]], "user", columns["prompt"], noticed)
        # A prompt may end with "Assistant:", which asks for what the next column holds.
        turns += prompt[:-1] if prompt[-1] == Turn("assistant", "") else prompt
    return turns


def _speech(value: Any, role: Role, name: str, noticed: set[RowNote]) -> list[Turn]:
    """What a cell holds as turns: messages, one text, or a dialogue written as one text."""
    turns = turns_in(value, role, name, noticed)
    if len(turns) > 1 or not _SPEAKER.match(turns[0].content):
        return turns
    parts = _SPEAKER.split(turns[0].content)
    return [
        Turn("user" if who == "Human" else "assistant", words.strip())
        for who, words in zip(parts[1::2], parts[2::2], strict=True)
    ]
