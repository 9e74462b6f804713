"""One JSON value out of a text: as the standard says, but for NaN, and with reasons in words."""

from __future__ import annotations

import json
from typing import Any

from engine.data.containers.record_file import RowError

_MAX_DIGITS = 4000
_WORDS = {
    "Expecting value": "a value is missing, or a text without double quotes stands in its place",
    "Expecting property name enclosed in double quotes": "a name in double quotes is missing",
    "Expecting ':' delimiter": "a colon is missing after a name",
    "Expecting ',' delimiter": "a comma is missing, or a quotation mark in a text has no backslash",
    "Unterminated string starting at": "a text has no closing quotation mark",
    "Invalid control character at": "a text holds a tab or line end that is not written as \\t or "
    "\\n",
    "Extra data": "something follows its end",
    "Invalid \\escape": "a backslash in a text is not written twice",
    "Invalid \\uXXXX escape": "a \\u in a text lacks its four digits",
    "Illegal trailing comma before end of object": "a comma stands before a closing bracket",
    "Illegal trailing comma before end of array": "a comma stands before a closing bracket",
}
TOO_DEEP = "it is nested too deep"


class Incomplete(ValueError):
    """No value begins at the place; more text might complete it.

    Attributes:
        reason: In words, what is wrong if no more text comes.
        position: Where.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


class ValueDecoder:
    """Decodes values; what can only spoil one row spoils only that row."""

    def __init__(self) -> None:
        self._fault = ""
        decoder: Any = json.JSONDecoder(
            parse_constant=self._constant, parse_int=self._integer, parse_float=self._float
        )
        self._scan = decoder.scan_once  # raw_decode, without the call in between

    def decode(self, text: str, position: int) -> tuple[Any, int]:
        """The value that begins at the position, or a `RowError` in its place, and its end.

        Raises:
            Incomplete: There is no whole value.
        """
        self._fault = ""
        try:
            value, end = self._scan(text, position)
        except StopIteration as error:
            raise Incomplete(plain_words("Expecting value"), error.value) from error
        except json.JSONDecodeError as error:
            raise Incomplete(plain_words(error.msg), error.pos) from error
        except RecursionError as error:
            raise Incomplete(TOO_DEEP, position) from error
        return (RowError(self._fault) if self._fault else value), end

    def _constant(self, text: str) -> float | None:
        if text != "NaN":
            self._fault = f"it holds {text}, which is no number to learn"
        return None

    def _integer(self, text: str) -> int:
        if len(text) > _MAX_DIGITS:
            self._fault = "it holds a number that is too long"
            return 0
        return int(text)

    def _float(self, text: str) -> float:
        value = float(text)
        if value in (float("inf"), -float("inf")):
            self._fault = "it holds a number that is too large"
        return value


def plain_words(message: str) -> str:
    """What the standard library says about broken JSON, for people who did not write it."""
    return f"it is no valid JSON: {_WORDS.get(message, message)}"


NO_CLOSING_QUOTE = plain_words("Unterminated string starting at")
