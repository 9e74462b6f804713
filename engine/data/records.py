"""A file as records, whatever it holds: its kind is told by its content. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.contract.errors import RequestError
from engine.data.containers.byte_source import ByteSource
from engine.data.containers.json_records import JsonRecords
from engine.data.containers.json_signs import Named, is_json
from engine.data.containers.kinds import columnar_kind, refuse_other_kinds
from engine.data.containers.plain_text import PassageRecords
from engine.data.containers.record_file import RecordFile, RowError, mistake
from engine.data.containers.table_layout import Layout, find_layout, is_sentence_row, reads_as_prose
from engine.data.containers.tables import TableRecords
from engine.data.containers.text_source import SAMPLE, TextSource

__all__ = ["RecordFile", "RowError", "open_records"]

_NAMES: dict[Named, tuple[str, ...]] = {
    "json": (".json", ".jsonl", ".ndjson"),
    "table": (".csv", ".tsv", ".tab", ".psv"),
    "text": (".txt", ".md", ".markdown", ".text", ".rst"),
}
_PACKED_NAMES = (".gz", ".bz2", ".xz")
_COLUMNAR_NAMES = (".parquet", ".arrow", ".feather")
# Beside the columns that are learned from: names that no first row of a table without names holds.
_OTHER_COLUMNS = {"id", "label"}
_SHORT_NAME = 40
_EVEN = 0.9
_UNEVEN = 0.5


def open_records(
    path: Path, passage_characters: int = 2000, encoding: str | None = None
) -> RecordFile:
    """Find out what a file holds, and how to read it record by record.

    Args:
        path: The file.
        passage_characters: The longest passage that plain text is cut into.
        encoding: Of a text, a name that Python knows; found out if None.

    Raises:
        RequestError: It is no file, unreadable, empty, or of a kind that holds no records; in a
            sentence that names the kind and the way out.
    """
    source = ByteSource(path)
    start = source.start(SAMPLE)
    if not start:
        raise mistake(f"{path.name} is empty.", "Choose another file.")
    kind = columnar_kind(start)
    if kind and source.packing:
        raise mistake(
            f"{path.name} is a {kind.split()[0]} file packed with {source.packing}.",
            "Unpack it first.",
        )
    if kind and encoding:
        raise RequestError(
            "data.encoding",
            f"{path.name} is no file of text: {kind.split()[0]} itself says how words are kept.",
            "Leave it out.",
        )
    if kind:
        # Only here: the library takes half a second to load, and most files need none of it.
        from engine.data.containers.columnar import ColumnarRecords

        return ColumnarRecords(path, kind)
    refuse_other_kinds(start, path)
    return _text_records(TextSource(source, encoding), path, passage_characters)


def _text_records(source: TextSource, path: Path, passage_characters: int) -> RecordFile:
    head = source.head(SAMPLE)
    is_whole = len(head) < SAMPLE
    if is_whole and not head.strip("\x00 \t\n\r\x0b\x0c\ufeff"):
        raise mistake(f"{path.name} is empty.", "Choose another file.")
    suffix = _suffix(path)
    named = _named(suffix)
    if is_json(head, named, is_whole=is_whole):
        return JsonRecords(source, head + "\n" * is_whole)
    if suffix in _COLUMNAR_NAMES:
        raise mistake(
            f"{path.name} is no {suffix[1:].capitalize()} file, or only a part of one.",
            "Get it anew.",
        )
    layout, evenness = find_layout(head, is_whole=is_whole)
    if _is_table(head, named, layout, evenness):
        return TableRecords(source, layout, _names_columns)
    if named == "json":
        return JsonRecords(source, head + "\n" * is_whole)
    note = ""
    if named == "table":
        note = (
            f"{path.name} is called {suffix}, but its lines are no rows of a table, so it was read "
            "as plain text."
        )
    elif layout.delimiter == "\t" and evenness >= _EVEN and _num_lines(head) > 1:
        note = (
            f"The lines of {path.name} are evenly parted by tabs, but the first names no columns "
            "known here, so it was read as plain text; call it .tsv to have it read as a table."
        )
    return PassageRecords(source, passage_characters, note)


def _suffix(path: Path) -> str:
    names = [suffix.lower() for suffix in path.suffixes]
    if names and names[-1] in _PACKED_NAMES:
        names.pop()
    return names[-1] if names else ""


def _named(suffix: str) -> Named:
    for kind, names in _NAMES.items():
        if suffix in names:
            return kind
    return "other"


def _num_lines(head: str) -> int:
    return 1 + head.strip("\n").count("\n")


def _is_table(head: str, named: Named, layout: Layout, evenness: float) -> bool:
    """Whether a text is a table: what its name says, unless its rows plainly say otherwise."""
    first_line = head.lstrip("\n").partition("\n")[0]
    cells = next(layout.rows(iter([first_line])), [])
    if named == "table":
        if layout.skip_lines or first_line.startswith('"') or _names_columns(cells):
            return True
        is_uneven = evenness < _UNEVEN or reads_as_prose(layout, head)
        return not (is_uneven and is_sentence_row([first_line]))
    if evenness < _EVEN or _num_lines(head) < 2:
        return False
    if named == "text":
        is_markdown = first_line.lstrip().startswith("|")
        return not is_markdown and _can_be_learned(cells, is_tabbed=layout.delimiter == "\t")
    names = [cell.strip().lower() for cell in cells]
    is_header = len(set(names)) == len(names) and all(
        0 < len(name) <= _SHORT_NAME for name in names
    )
    return _names_columns(cells) or (is_header and not reads_as_prose(layout, head))


def _names_columns(cells: Sequence[str]) -> bool:
    """Whether a first row is a header for sure: one of its cells is what a column is called."""
    # Only here: readers of rows, which know what columns are called, import this module.
    from engine.data.columns import layout_of

    # Single letters name columns too, but are answers as well.
    names = tuple(cell.strip() for cell in cells if 1 < len(cell.strip()) <= _SHORT_NAME)
    layout = layout_of(names)
    is_known = layout.columns or layout.conversations or layout.chosen
    return bool(is_known) or not _OTHER_COLUMNS.isdisjoint(map(str.lower, names))


def _can_be_learned(cells: Sequence[str], *, is_tabbed: bool) -> bool:
    """Whether a first row names columns that hold all of a chat, which no running text does."""
    from engine.data.columns import layout_of

    layout = layout_of(tuple(cell.strip() for cell in cells if len(cell.strip()) <= _SHORT_NAME))
    is_text = is_tabbed and "text" in layout.columns
    has_pair = {"prompt", "reply"} <= layout.columns.keys()
    return is_text or has_pair or bool(layout.conversations or layout.chosen)
