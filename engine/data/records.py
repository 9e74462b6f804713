"""A file as records, whatever it holds: its kind is told by its content. No torch."""

from __future__ import annotations

import re
from pathlib import Path

from engine.data.containers.byte_source import ByteSource
from engine.data.containers.json_records import JsonRecords
from engine.data.containers.json_values import Incomplete, ValueDecoder
from engine.data.containers.kinds import columnar_kind, refuse_other_kinds
from engine.data.containers.plain_text import PassageRecords
from engine.data.containers.record_file import RecordFile, RowError, mistake
from engine.data.containers.table_layout import Layout, find_layout
from engine.data.containers.tables import TableRecords
from engine.data.containers.text_source import SAMPLE, TextSource

__all__ = ["RecordFile", "RowError", "open_records"]

_JSON_NAMES = (".json", ".jsonl", ".ndjson")
_TEXT_NAMES = (".txt", ".md", ".markdown", ".text", ".rst")
_TABLE_NAMES = (".csv", ".tsv", ".tab", ".psv")
_PACKED_NAMES = (".gz", ".bz2", ".xz")
# Names of columns by which a first row is a header for sure, whatever else it looks like.
_COLUMN_NAMES = """
    instruction prompt question query problem request user human input context output response
    answer completion reply assistant bot gpt system system_prompt history messages conversations
    conversation dialog dialogue chat turns text chosen rejected label id
"""
COLUMN_NAMES = frozenset(_COLUMN_NAMES.split())
_ARRAY_START = re.compile(r'\s*\[\s*([\[{"\]\d-]|true|false|null|NaN)')
_SHORT_NAME = 40
_EVEN = 0.9


def open_records(path: Path, passage_characters: int = 2000) -> RecordFile:
    """Find out what a file holds, and how to read it record by record.

    Args:
        path: The file.
        passage_characters: The longest passage that plain text is cut into.

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
    if kind:
        # Only here: the library takes half a second to load, and most files need none of it.
        from engine.data.containers.columnar import ColumnarRecords

        return ColumnarRecords(path, kind)
    refuse_other_kinds(start, path)
    return _text_records(TextSource(source), path, passage_characters)


def _text_records(source: TextSource, path: Path, passage_characters: int) -> RecordFile:
    head = source.head(SAMPLE)
    is_whole = len(head) < SAMPLE
    if is_whole and not head.strip("\x00 \t\n\r\x0b\x0c\ufeff"):
        raise mistake(f"{path.name} is empty.", "Choose another file.")
    suffix = _suffix(path)
    if _is_json(head, suffix):
        return JsonRecords(source, head + "\n" * is_whole)
    layout, evenness = find_layout(head, is_whole=is_whole)
    if suffix in _TABLE_NAMES or (suffix not in _TEXT_NAMES and _is_table(head, layout, evenness)):
        return TableRecords(source, layout, COLUMN_NAMES)
    if suffix in _JSON_NAMES:
        return JsonRecords(source, head + "\n" * is_whole)
    return PassageRecords(source, passage_characters)


def _suffix(path: Path) -> str:
    names = [suffix.lower() for suffix in path.suffixes]
    if names and names[-1] in _PACKED_NAMES:
        names.pop()
    return names[-1] if names else ""


def _is_json(head: str, suffix: str) -> bool:
    """Whether a text is JSON: by its first value, and where that is cut off, by its start."""
    begin = head.lstrip()
    if begin[:1] not in ("{", "["):
        return suffix not in _TEXT_NAMES and _has_objects(head)
    if suffix in _JSON_NAMES and (begin[0] == "{" or _ARRAY_START.match(head)):
        return True
    if begin[0] == "[" and not _ARRAY_START.match(head):
        return False
    # Of an array, its first element: the whole may be longer than what is seen here.
    first = begin.lstrip("[ \t\n\r") if begin[0] == "[" else begin
    try:
        ValueDecoder().decode(first, 0)
    except Incomplete as error:
        return len(first) - error.position < 8 or _has_objects(head)
    return True


def _has_objects(head: str) -> bool:
    """Whether at least one line in two is an object of JSON."""
    lines = [line for line in head.split("\n")[:50] if line.strip()]
    decoder = ValueDecoder()
    found = 0
    for line in lines:
        if line.lstrip().startswith("{"):
            try:
                decoder.decode(line.lstrip(), 0)
                found += 1
            except Incomplete:
                continue
    return found > 0 and 2 * found >= len(lines)


def _is_table(head: str, layout: Layout, evenness: float) -> bool:
    """Whether a text of any name is a table: even rows under names that are names."""
    if evenness < _EVEN or head.strip("\n").count("\n") < 1:
        return False
    cells = next(iter(layout.rows(iter([head.lstrip("\n").partition("\n")[0]]))), [])
    names = [cell.strip().lower() for cell in cells]
    if COLUMN_NAMES.intersection(names):
        return True
    return len(set(names)) == len(names) and all(0 < len(name) <= _SHORT_NAME for name in names)
