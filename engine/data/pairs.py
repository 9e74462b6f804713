"""A question and its reply in columns of their own, as a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.contract.spec import ColumnRole
from engine.data.cells import is_blank, is_missing, opened, text_of
from engine.data.columns import Layout, Roles, layout_of
from engine.data.items import Chat, Turn
from engine.data.messages import is_message, turn_of, turns_in
from engine.data.names import folded
from engine.data.records import RowError
from engine.data.row_notes import RowNote
from engine.data.turns import in_order

_MOST_NAMES = 100
# Where a list or an object may begin that is written as text; and what is no text at all.
_LISTS = frozenset({"", "[", "{"})


def chat_of_pair(row: Mapping[str, Any], layout: Layout, noticed: set[RowNote]) -> Chat:
    """One row as a chat: system text, earlier turns, question with its input, reply.

    Raises:
        RowError: A part is no text, or question or reply is empty.
    """
    columns = layout.columns
    if layout.is_simple:
        chat = _simple(row, columns)
        if chat is not None:
            return chat
    if layout.label is not None and _is_no(row[layout.label]):
        raise RowError(f"its reply is marked as a bad one ({layout.label} is false)")
    asked = _question(row, layout, noticed)
    name = columns["reply"]
    said = turns_in(_first_answer(row[name], name, noticed), "assistant", name, noticed)
    if layout.format == "completion" and len(said) == 1 and said[0].content[:1].isspace():
        # What parts a completion from its prompt is the template's to say.
        said = [Turn("assistant", said[0].content.lstrip())]
    return in_order([*_before(row, layout, noticed), *asked, *said], noticed)


def _simple(row: Mapping[str, Any], columns: Mapping[ColumnRole, str]) -> Chat | None:
    """The chat of nothing but texts, none of which is blank or may be a list; else None."""
    asked, said = row[columns["prompt"]], row[columns["reply"]]
    if type(asked) is not str or type(said) is not str:
        return None
    asked, said = text_of(asked, columns["prompt"]).strip(), text_of(said, columns["reply"])
    if asked[:1] in _LISTS or said[:1] in _LISTS or said.isspace():
        return None
    if "input" in columns and row[columns["input"]]:
        words = text_of(row[columns["input"]], columns["input"]).strip()
        asked = f"{asked}\n\n{words}" if words else asked
    return Turn("user", asked), Turn("assistant", said)


def is_speech(entry: Any) -> bool:
    """Whether an entry of a list is a message, or a question with its reply."""
    if isinstance(entry, list):
        return len(entry) == 2 and all(isinstance(side, str) for side in entry)
    if not isinstance(entry, dict) or len(entry) > _MOST_NAMES:
        return False
    return is_message(entry) or {"prompt", "reply"} <= layout_of(tuple(entry)).columns.keys()


def turns_of_pairs(pairs: Sequence[Any], noticed: set[RowNote]) -> list[Turn]:
    """Earlier questions and replies: `[[question, reply], ...]`, objects of both, or messages.

    Raises:
        RowError: An entry is none of these.
    """
    turns: list[Turn] = []
    for pair in pairs:
        if isinstance(pair, list) and len(pair) == 2:
            words = [text_of(side, "an earlier turn") for side in pair]
            turns += [Turn("user", words[0]), Turn("assistant", words[1])]
        elif isinstance(pair, dict) and is_speech(pair) and not is_message(pair):
            columns = layout_of(tuple(pair)).columns
            turns.append(Turn("user", text_of(pair[columns["prompt"]], "a question")))
            turns.append(Turn("assistant", text_of(pair[columns["reply"]], "a reply")))
        else:
            turns.append(turn_of(pair, noticed))
    return turns


def nested_answer(
    row: Mapping[str, Any], set_by_hand: Roles, noticed: set[RowNote]
) -> dict[str, Any] | None:
    """The row with the columns of its first answer, where a list or object in it holds answers.

    None where nothing in it does.
    """
    for name, value in row.items():
        cell = opened(value)
        answers = cell if isinstance(cell, list) else [cell]
        first = answers[0] if answers else None
        if not isinstance(first, dict) or len(first) > _MOST_NAMES:
            continue
        if "reply" not in layout_of(tuple(first)).columns:
            continue
        whole = {key: row[key] for key in row if key != name} | first
        if {"prompt", "reply"} <= layout_of(tuple(whole), set_by_hand).columns.keys():
            if len(answers) > 1:
                noticed.add(RowNote.NESTED)
            return whole
    return None


def _first_answer(value: Any, name: str, noticed: set[RowNote]) -> Any:
    """The first of several answers, as SQuAD and its like list them; else the cell itself."""
    if folded(name) != "answers":
        return value
    cell = opened(value)
    answers = cell.get("text") if isinstance(cell, dict) else cell
    if not isinstance(answers, list) or (answers and is_message(answers[0])):
        return value
    if not answers:
        return ""
    if len(answers) > 1:
        noticed.add(RowNote.NESTED)
    first = answers[0]
    return first["text"] if isinstance(first, dict) and "text" in first else first


def _before(row: Mapping[str, Any], layout: Layout, noticed: set[RowNote]) -> list[Turn]:
    """System text and earlier turns."""
    columns = layout.columns
    turns: list[Turn] = []
    if "system" in columns:
        system = text_of(row[columns["system"]], columns["system"])
        turns += [] if is_blank(system) else [Turn("system", system)]
    if "history" in columns:
        history = opened(row[columns["history"]])
        if isinstance(history, list):
            turns += turns_of_pairs(history, noticed)
        elif not is_missing(history):
            raise RowError(f"{columns['history']} is no list of earlier turns")
    return turns


def _question(row: Mapping[str, Any], layout: Layout, noticed: set[RowNote]) -> list[Turn]:
    """The question, with its input after a blank line."""
    columns = layout.columns
    name = columns["prompt"]
    asked = turns_in(row[name], "user", name, noticed)
    words = ""
    if "input" in columns:
        words = text_of(row[columns["input"]], columns["input"]).strip()
    last = asked[-1]
    if len(asked) > 1 or last.role != "user":
        return [*asked, Turn("user", words)] if words else asked
    content = last.content.strip()
    return [Turn("user", f"{content}\n\n{words}".strip() if words else content)]


def _is_no(label: Any) -> bool:
    """Whether a label says that a completion is a bad one. Numbers may mean anything else."""
    return label is False or (isinstance(label, str) and folded(label) == "false")
