"""Whether a text is JSON: by its first values, and where they are cut off, by how they begin."""

from __future__ import annotations

import re
from typing import Any, Literal

from engine.data.containers.json_values import NO_CLOSING_QUOTE, TOO_DEEP, Incomplete, ValueDecoder

# What a file's name says of its content.
Named = Literal["json", "table", "text", "other"]
_ARRAY_START = re.compile(r'\s*\[\s*([\[{"\]\d-]|true|false|null|NaN)')
_OBJECT_START = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:')
_SPACE = " \t\n\r"
# A value that the sample cuts off fails this near its end.
_NEAR = 40
_LINES_LOOKED_AT = 50


def is_json(head: str, named: Named, *, is_whole: bool) -> bool:
    """Whether a text is JSON.

    Args:
        head: The first characters.
        named: What the file's name says; a text that may begin like JSON counts as JSON only where
            it goes on so.
        is_whole: Whether that is all there is.
    """
    begin = head.lstrip()
    if begin[:1] not in ("{", "["):
        return named != "text" and _has_objects(head)
    if begin[0] == "[" and not _ARRAY_START.match(begin):
        return False
    if named == "json":
        return True
    first = begin.lstrip("[" + _SPACE)
    if first[:1] == "{":
        return _is_object(first, head, is_whole=is_whole)
    return _is_list(begin, named, is_whole=is_whole)


def _is_object(begin: str, head: str, *, is_whole: bool) -> bool:
    try:
        ValueDecoder().decode(begin, 0)
    except Incomplete as error:
        is_cut = len(begin) - error.position < 8 or error.reason == TOO_DEEP
        is_long = not is_whole and bool(_OBJECT_START.match(begin))
        return is_cut or is_long or _has_objects(head)
    return True


def _is_list(begin: str, named: Named, *, is_whole: bool) -> bool:
    """Whether a text is lists of plain values: `[1] Smith` and `[12.03.24, 18:00] Hi` are none."""
    decoder = ValueDecoder()
    position = num_values = 0
    while position < len(begin):
        if begin[position] not in "[{":
            return False
        try:
            value, position = decoder.decode(begin, position)
        except Incomplete as error:
            is_cut = error.reason == NO_CLOSING_QUOTE or len(begin) - error.position < _NEAR
            return error.reason == TOO_DEEP or (is_cut and not is_whole)
        num_values += _num_values(value)
        while position < len(begin) and begin[position] in _SPACE + ",":
            position += 1
    return num_values > 1 or named != "text"


def _num_values(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_num_values, value))
    return 1


def _has_objects(head: str) -> bool:
    """Whether at least one line in two is an object of JSON."""
    lines = [line for line in head.split("\n")[:_LINES_LOOKED_AT] if line.strip()]
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
