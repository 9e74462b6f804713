"""Records that stand inside one outer object: under a key, or as columns, as pandas saves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.data.containers.record_file import mistake

# Names that lists of records go by, those to learn from first.
_RECORD_LISTS = (
    "train", "training", "train_data", "data", "rows", "examples", "records", "items", "samples",
    "dataset", "entries", "instances", "results", "questions", "conversations", "dialogs",
)  # fmt: skip
# Lists of objects that are a part of one record.
_PARTS_OF_A_RECORD = {"instances", "replies", "tools", "functions", "choices", "tool_calls"}
_SPEAKERS = {"role", "from", "speaker", "author", "sender"}
_WORDS = {"content", "value", "text", "message", "tool_calls"}


@dataclass(frozen=True)
class Outer:
    """What an outer object turned out to be.

    Attributes:
        container: For people.
        rows: The records, if they were not left in the file.
        key: The key that they stand under, if they do.
        notes: What a person should know.
    """

    container: str
    rows: list[Any] = field(default_factory=list)
    key: str | None = None
    notes: tuple[str, ...] = ()


def records_in(outer: dict[str, Any], name: str) -> Outer:
    """The records of an outer object that is alone in its file.

    Raises:
        RequestError: It holds several lists of records, and none is the one to learn from.
    """
    split = _split_orientation(outer)
    if split is not None:
        return Outer("JSON of columns and data (pandas)", split)
    firsts = {key: value[0] for key, value in outer.items() if isinstance(value, list) and value}
    found = choose_list(firsts, outer, name)
    if found is not None:
        assert found.key is not None, "a list that was chosen has a key"
        return Outer(found.container, outer[found.key], found.key, found.notes)
    columns = _columns(outer)
    if columns is not None:
        return Outer("JSON of columns (pandas)", columns)
    if _are_records(outer):
        return Outer("JSON of records by key", list(outer.values()))
    return Outer("one JSON object", [outer])


def choose_list(firsts: Mapping[str, Any], keys: Mapping[str, Any], name: str) -> Outer | None:
    """Which list of an outer object holds the records; None if it is a record itself.

    Args:
        firsts: The first element of each list that has one.
        keys: All members of the object.
        name: Of the file.

    Raises:
        RequestError: There are several, and none is the one to learn from.
    """
    lists = {key: first for key, first in firsts.items() if _is_record_like(first)}
    if len(keys) > 1:
        lists = {key: first for key, first in lists.items() if key not in _PARTS_OF_A_RECORD}
    if not lists or any(_is_message(first) for first in lists.values()):
        return None
    if len(lists) > 1 and not any(key.lower() in _RECORD_LISTS for key in lists):
        raise mistake(
            f"{name} holds several lists of records: {', '.join(lists)[:200]}.",
            "Keep one of them, or save the records as .jsonl, one object per line.",
        )
    ranks = {known: rank for rank, known in enumerate(_RECORD_LISTS)}
    chosen = min(lists, key=lambda key: ranks.get(key.lower(), len(ranks)))
    others = ", ".join(key for key in lists if key != chosen)[:200]
    notes = (f'Only the records under "{chosen}" are used, not those under {others}.',)
    return Outer(
        f'JSON with the records under "{chosen[:40]}"', [], chosen, notes if others else ()
    )


def _is_record_like(first: Any) -> bool:
    return isinstance(first, dict) or (
        isinstance(first, list) and bool(first) and isinstance(first[0], dict)
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.keys() & _SPEAKERS and value.keys() & _WORDS)


def _split_orientation(outer: dict[str, Any]) -> list[Any] | None:
    columns, data = outer.get("columns"), outer.get("data")
    if not isinstance(columns, list) or not isinstance(data, list):
        return None
    width = len(columns)
    if not all(isinstance(row, list) and len(row) == width for row in data):
        return None
    return [dict(zip(map(str, columns), row, strict=True)) for row in data]


def _columns(outer: dict[str, Any]) -> list[Any] | None:
    if outer and all(isinstance(column, dict) for column in outer.values()):
        return _columns_by_index(outer)
    if outer and all(isinstance(column, list) for column in outer.values()):
        return _columns_of_lists(outer)
    return None


def _columns_by_index(outer: dict[str, dict[str, Any]]) -> list[Any] | None:
    indexes = {index: None for column in outer.values() for index in column}
    if not indexes or not all(index.lstrip("-").isdecimal() for index in indexes):
        return None
    return [{name: column.get(index) for name, column in outer.items()} for index in indexes]


def _columns_of_lists(outer: dict[str, Any]) -> list[Any] | None:
    lengths = {len(column) if isinstance(column, list) else -1 for column in outer.values()}
    if len(lengths) != 1 or min(lengths) < 1:
        return None
    if any(_is_message(column[0]) for column in outer.values()):
        return None  # one row, whose cells are lists of messages
    return [dict(zip(outer, row, strict=True)) for row in zip(*outer.values(), strict=True)]


def _are_records(outer: dict[str, Any]) -> bool:
    rows = list(outer.values())
    if len(rows) < 2 or not all(isinstance(row, dict) and row for row in rows):
        return False
    return all(row.keys() == rows[0].keys() for row in rows)
