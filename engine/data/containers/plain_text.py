"""Plain text as passages: all of it, in order, each no longer than asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from engine.data.containers.record_file import RowError
from engine.data.containers.text_source import UNREADABLE, TextSource

# Where a passage may end, best first: after a blank line, a line, a sentence, a word.
_ENDS = (
    ("\n\n",),
    ("\n",),
    (". ", "! ", "? ", '." ', ".' ", "\u3002", "\uff01", "\uff1f", "\u061f ", "\u0964 "),
    (" ", "\t", "\u3000", "\uff0c", "\u3001"),
)
# A passage that a better end would leave shorter than this ends at the next best.
_SHORTEST_SHARE = 0.25


class PassageRecords:
    """Passages of a plain text: a `RecordFile`. Joined, they are the text.

    Args:
        source: The text.
        passage_characters: The longest that a passage may be.
        note: Why the file was taken for plain text, if a person may wonder.
    """

    def __init__(self, source: TextSource, passage_characters: int, note: str = "") -> None:
        assert passage_characters > 0, "a passage holds something"
        self._source = source
        self._note = note
        self._length = passage_characters

    @property
    def container(self) -> str:
        """What the file is, for people."""
        return "plain text"

    @property
    def encoding(self) -> str | None:
        """The encoding of the text."""
        return self._source.encoding

    @property
    def unit(self) -> Literal["line", "row"]:
        """Numbers are those of the line where a passage begins."""
        return "line"

    @property
    def is_running_text(self) -> bool:
        """Whether one text was cut into these: it was."""
        return True

    @property
    def notes(self) -> list[str]:
        """What a person should know."""
        return [*([self._note] if self._note else ()), *self._source.notes]

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """The line where a passage begins, and the passage.

        Raises:
            RequestError: The file is damaged.
        """
        line = 1
        for passage in passages(self._source.pieces(), self._length):
            is_bad = self._source.has_unreadable and UNREADABLE.search(passage)
            yield line, RowError(self._source.fault, passage) if is_bad else passage
            line += passage.count("\n")


def passages(pieces: Iterator[str], length: int) -> Iterator[str]:
    """Cut a text into passages of at most `length` characters; joined, they are the text."""
    text, position = "", 0
    for piece in pieces:
        text, position = text[position:] + piece, 0
        while len(text) - position > length:
            end = _end(text, position, length)
            yield text[position:end]
            position = end
    if position < len(text):
        yield text[position:]


def _end(text: str, start: int, length: int) -> int:
    latest = start + length
    earliest = start + max(1, int(length * _SHORTEST_SHARE))
    for marks in _ENDS:
        end = max(_after(text, mark, start, latest) for mark in marks)
        if end >= earliest:
            return end
    return latest


def _after(text: str, mark: str, start: int, latest: int) -> int:
    found = text.rfind(mark, start, latest)
    return found + len(mark) if found >= 0 else 0
