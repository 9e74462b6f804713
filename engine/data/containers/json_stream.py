"""JSON values one after another out of text that comes in pieces; a piece may end anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from engine.data.containers.json_values import NO_CLOSING_QUOTE, Incomplete, ValueDecoder
from engine.data.containers.record_file import MAX_RECORD, SNIPPET, RowError
from engine.data.containers.text_source import UNREADABLE, TextSource

TOO_LARGE = f"it is larger than {MAX_RECORD >> 20} MB"
_SPACE = re.compile(r"[ \t\n\r]*")
# A number or a name goes on in the next piece; nothing that ends farther from the end does.
_MARGIN = 40
_NEXT_RECORD = "\n{"


class JsonStream:
    """A text that is read value by value. Holds the pieces of one value, no more.

    Attributes:
        line: The line of the next character, from 1.
    """

    def __init__(self, source: TextSource, *, max_record: int = MAX_RECORD) -> None:
        self.source = source
        self.line = 1
        self._pieces = source.pieces()
        self._decoder = ValueDecoder()
        self._text = ""
        self._position = 0
        self._is_whole = False
        self._max_record = max_record

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            end = self._after_space(self._position)
            self._advance(end)
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._more(1):
                return ""

    def skip(self) -> None:
        """Leave out the character that `peek` showed."""
        self._advance(self._position + 1)

    def ahead(self, length: int) -> str:
        """What comes next, as far as it was read."""
        return self._text[self._position : self._position + length]

    def value(self) -> Any:
        """The next value, or a `RowError` in its place where only this one is spoilt.

        Raises:
            Incomplete: There is no valid value; `reason` says why and `position` is its line.
        """
        self.peek()
        wanted = 1 << 12
        while True:
            try:
                value, end = self._decoder.decode(self._text, self._position)
                if self._is_whole or len(self._text) - end > _MARGIN:
                    break
                failure = None
            except Incomplete as error:
                failure = error
            if failure and self._is_final(failure):
                raise self._at(failure.position, failure.reason) from failure
            if failure and len(self._text) - self._position > self._max_record:
                raise self._at(self._position, TOO_LARGE)
            # Doubled each time: all attempts together cost twice the last one.
            wanted = max(2 * wanted, 2 * (len(self._text) - self._position))
            before = self._position
            if not self._more(wanted) and failure:
                position = failure.position - before
                is_cut = self._is_open(failure) or not self._text[position:].strip()
                reason = f"{failure.reason} (is the file cut off?)" if is_cut else failure.reason
                raise self._at(position, reason) from failure
        value = self._readable(value, end)
        self._advance(end)
        return value

    def skip_to_next_record(self) -> bool:
        """Go on where a line begins with a brace, after the present one; False at the end."""
        start = self._position + 1
        while True:
            found = self._text.find(_NEXT_RECORD, start)
            if found >= 0:
                self._advance(found + 1)
                return True
            self._advance(max(self._position, len(self._text) - 1))
            if not self._more(2):
                self._advance(len(self._text))
                return False
            start = self._position

    def _is_final(self, failure: Incomplete) -> bool:
        """Whether no text that follows can mend it."""
        return not self._is_open(failure) and failure.position < len(self._text) - _MARGIN

    @staticmethod
    def _is_open(failure: Incomplete) -> bool:
        return failure.reason == NO_CLOSING_QUOTE

    def _readable(self, value: Any, end: int) -> Any:
        if self.source.has_unreadable and UNREADABLE.search(self._text, self._position, end):
            value = RowError(self.source.fault)
        elif end - self._position > self._max_record:
            value = RowError(TOO_LARGE)
        if isinstance(value, RowError):
            value.snippet = self._text[self._position : min(end, self._position + SNIPPET)]
        return value

    def _after_space(self, position: int) -> int:
        found = _SPACE.match(self._text, position)
        assert found, "the pattern matches nothing too"
        return found.end()

    def _advance(self, position: int) -> None:
        self.line += self._text.count("\n", self._position, position)
        self._position = position

    def _at(self, position: int, reason: str) -> Incomplete:
        return Incomplete(reason, self.line + self._text.count("\n", self._position, position))

    def _more(self, wanted: int) -> bool:
        """Read on until so many characters wait; whether there were any."""
        waiting = [self._text[self._position :]]
        length = before = len(waiting[0])
        while not self._is_whole and (length < wanted or length == before):
            piece = next(self._pieces, None)
            self._is_whole = piece is None
            waiting.append(piece or "")
            length += len(piece or "")
        self._text, self._position = "".join(waiting), 0
        return length > before


def lines_of(
    source: TextSource, max_record: int = MAX_RECORD
) -> Iterator[tuple[int, str | RowError]]:
    """Each line that is not blank, with its number; a fault for one longer than a record."""
    number, rest, length = 1, [], 0
    for piece in source.pieces():
        if not length and piece.isspace():
            number += piece.count("\n")  # at once: damage can make millions of blank lines
            continue
        first, *others = piece.split("\n")
        length += len(first)
        rest.append(first)
        if length > max_record:  # only its beginning is kept
            rest = ["".join(rest)[:SNIPPET]]
        for line in others:
            if length:
                yield from _line(number, rest, length > max_record)
                rest = []
            number += 1
            length = len(line)
            if line:
                rest = [line]
    yield from _line(number, rest, length > max_record)


def _line(number: int, parts: list[str], is_too_long: bool) -> Iterator[tuple[int, str | RowError]]:
    line = "".join(parts)
    if is_too_long:
        yield number, RowError(TOO_LARGE, line)
    elif line and not line.isspace():
        yield number, line


def array_values(stream: JsonStream) -> Iterator[Any]:
    """The elements of the array that comes next.

    Raises:
        Incomplete: The array is broken or cut off.
    """
    stream.skip()
    if stream.peek() == "]":
        stream.skip()
        return
    while True:
        yield stream.value()
        mark = stream.peek()
        stream.skip()
        if mark == "]":
            return
        if mark == "," and stream.peek() == "]":  # many editors and programs leave that comma
            stream.skip()
            return
        if mark != ",":
            reason = (
                "the array has no end: the file is cut off"
                if not mark
                else ("it is no valid JSON: a comma is missing between two records")
            )
            raise Incomplete(reason, stream.line)
