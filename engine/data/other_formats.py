"""Formats that are known by their shape and are not read, each with the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.data.mendable import MendableRow


def known_but_unread(row: Mapping[str, Any]) -> MendableRow | None:
    """Why a row of such a format is not read; None if it is of no such format."""
    if _first_has(row.get("paragraphs"), "qas"):
        return MendableRow(
            "it is an article of SQuAD with its questions inside of paragraphs",
            "Write one row for each question, with the columns question, context and answer.",
        )
    if _first_has(row.get("segments"), "text"):
        return MendableRow(
            "it holds segments with labels, as Axolotl's input_output format does",
            "Write the segments of a row as messages, each with a role and a content; the replies "
            "are what is learned.",
        )
    return None


def _first_has(entries: Any, name: str) -> bool:
    return isinstance(entries, list) and bool(entries) and name in _keys(entries[0])


def _keys(entry: Any) -> Mapping[str, Any]:
    return entry if isinstance(entry, dict) else {}
