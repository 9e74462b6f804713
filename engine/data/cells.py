"""What one cell of a row holds, as text: numbers written out, line ends made one kind."""

from __future__ import annotations

import json
import math
from typing import Any

from engine.data.containers.record_file import RowError

_BYTE_ORDER_MARK = "\ufeff"


def text_of(value: Any, name: str) -> str:
    """The text of a cell; empty where the cell is missing or not a number.

    Args:
        value: What stands there.
        name: What it is called in a refusal.

    Raises:
        RowError: It is a list or an object, or holds half of a character.
    """
    if type(value) is not str:
        value = _written(value, name)
    if "\r" in value:
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    if not value.isascii():
        value = value.lstrip(_BYTE_ORDER_MARK) if value[0] == _BYTE_ORDER_MARK else value
        if not is_unicode(value):
            raise RowError(f"{name} holds half of a character")
    return value


def is_unicode(text: str) -> bool:
    """False with half of a surrogate pair, as JSON can say it; no tokenizer takes that."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_blank(text: str) -> bool:
    """Whether nothing, or nothing but spaces and line ends, stands there."""
    return not text or text.isspace()


def is_missing(value: Any) -> bool:
    """Whether a cell says nothing: absent, not a number, or blank."""
    if isinstance(value, str):
        return is_blank(value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def opened(value: Any) -> Any:
    """The list or object that a cell holds as JSON text, as tables do; else the cell itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _written(value: Any, name: str) -> str:
    if isinstance(value, str):
        return str(value)
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isinf(value):
        raise RowError(f"{name} is an infinite number")
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:  # more digits than Python writes
            raise RowError(f"{name} is a number too long") from None
    if isinstance(value, list):
        raise RowError(f"{name} is a list where text belongs")
    if isinstance(value, dict):
        raise RowError(f"{name} is an object where text belongs")
    raise RowError(f"{name} is no text")
