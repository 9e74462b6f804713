"""A file's text in pieces with line feeds alone, whatever its encoding and its line ends."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator

from engine.contract.errors import RequestError
from engine.data.containers.byte_source import ByteSource
from engine.data.containers.record_file import mistake
from engine.data.containers.text_encoding import (
    codec_of,
    encoding_of,
    is_binary,
    is_wide,
    spoken_name,
)
from engine.data.containers.windows_1252 import in_foreign_words, telling_word, western

SAMPLE = 1 << 16
# Bytes that could not be read are carried as these code points, and never learned from.
UNREADABLE = re.compile("[\udc80-\udcff]")
_NO_KNOWN = "neither UTF-8 nor Windows-1252"


class TextSource:
    """The text of one file.

    Args:
        bytes_source: The file.
        encoding: What it is in, as a person said; found out if None: whatever is UTF-8 is read as
            that, and other lines as Windows-1252.

    Attributes:
        has_unreadable: Some text so far holds bytes that could not be read (see `UNREADABLE`).
        fault: Why these could not be read, in words that follow a row's number.

    Raises:
        RequestError: It is no text, or text in an encoding that is not known here.
    """

    def __init__(self, bytes_source: ByteSource, encoding: str | None = None) -> None:
        self.source = bytes_source
        self.name = bytes_source.path.name
        sample = bytes_source.start(SAMPLE)
        self._bom, self._codec = encoding_of(sample)
        self._is_told = encoding is not None and not self._bom
        self._mark_note = ""
        if encoding is not None:
            self._take(codec_of(encoding))
        self._not_text = f"no {spoken_name(self._codec)}" if self._is_told else _NO_KNOWN
        self.fault = f"its text is {self._not_text}"
        self._reset()
        self._check(sample)

    @property
    def encoding(self) -> str:
        """The encoding that most of the text is in, as far as it was read."""
        if self._is_told or self._codec != "utf-8":
            return spoken_name(self._codec)
        return "UTF-8" if self._beyond_ascii or not self._western else "Windows-1252"

    @property
    def notes(self) -> list[str]:
        """What was read otherwise than as UTF-8, or than a person said."""
        if self._mark_note:
            return [self._mark_note]
        if not self._western:
            return []
        example = f'such as "{self._first_word}"'
        if not self._beyond_ascii:
            return [
                f"{self.name} is not UTF-8 and was read as Windows-1252, {example} in line "
                f"{self._first_western}; if that is wrong, set data.encoding."
            ]
        lines = f"Line {self._first_western} is"
        if self._western > 1:
            lines = f"{self._western} lines (the first is line {self._first_western}) are"
        return [f"{lines} not UTF-8 and read as Windows-1252, {example}."]

    def pieces(self) -> Iterator[str]:
        """All text, without a byte order mark, in pieces of any length.

        Raises:
            RequestError: The file is damaged.
        """
        self._reset()
        is_guessed = self._codec == "utf-8" and not self._is_told
        return self._utf8() if is_guessed else self._decoded()

    def head(self, length: int) -> str:
        """The first characters, at least as many unless the text ends."""
        found: list[str] = []
        total = 0
        for piece in self.pieces():
            found.append(piece)
            total += len(piece)
            if total >= length:
                break
        return "".join(found)

    def _take(self, codec: str) -> None:
        """Read it as a person said, unless its first bytes say for sure what it is."""
        if not self._bom:
            self._codec = codec
        elif codec[:6] != self._codec[:6]:
            self._mark_note = (
                f"{self.name} begins with the mark of {spoken_name(self._codec)} and was read as "
                f"that, not as {spoken_name(codec)}."
            )

    def _reset(self) -> None:
        self.has_unreadable = False
        self._beyond_ascii = False
        self._western = 0
        self._first_western = 0
        self._first_word = ""
        self._line = 1

    def _check(self, sample: bytes) -> None:
        if not is_wide(self._codec) and is_binary(sample):
            raise mistake(
                f"{self.name} holds no text.",
                "Choose a file of conversations or text, such as .jsonl, .csv or .txt.",
            )
        lines = self.head(1).split("\n")
        bad = [number for number, line in enumerate(lines, 1) if UNREADABLE.search(line)]
        if bad and 2 * len(bad) >= sum(1 for line in lines if not line.isascii()):
            raise self._other_encoding(f"line {bad[0]} of {self.name} is {self._not_text} text.")

    def _other_encoding(self, message: str) -> RequestError:
        if self._is_told:
            return RequestError(
                "data.encoding", message, "Name the encoding that it was saved in, or leave it out."
            )
        return mistake(
            message,
            "Save the file as UTF-8, or name its encoding in data.encoding, such as cp1251 or "
            "shift_jis.",
        )

    def _without_mark(self) -> Iterator[bytes]:
        left = len(self._bom)
        for piece in self.source.pieces():
            cut = min(left, len(piece))
            left -= cut
            yield piece[cut:]

    def _decoded(self) -> Iterator[str]:
        """The text by a codec that is known for sure."""
        wide = is_wide(self._codec)
        decoder = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder(self._codec)(
                "surrogatepass" if wide else "surrogateescape"
            ),
            translate=True,
        )
        try:
            for piece in self._without_mark():
                yield self._looked_at(decoder.decode(piece), wide)
            yield self._looked_at(decoder.decode(b"", final=True), wide)
        except UnicodeError as error:
            name = spoken_name(self._codec)
            if wide and not self._is_told:
                raise mistake(
                    f"{self.name} is cut off or damaged: its {name} text is not whole.",
                    "Save the file as UTF-8.",
                ) from error
            raise self._other_encoding(f"{self.name} is no {name} text.") from error

    def _looked_at(self, text: str, wide: bool) -> str:
        if not (wide or self.has_unreadable or text.isascii()):
            self.has_unreadable = bool(UNREADABLE.search(text))
        return text

    def _utf8(self) -> Iterator[str]:
        rest = b""
        for piece in self._without_mark():
            data = rest + piece
            end = _whole_lines(data)
            rest = data[end:]
            yield self._decode(data[:end])
        yield self._decode(rest)

    def _decode(self, data: bytes) -> str:
        try:
            text = data.decode("utf-8")
            self._beyond_ascii = self._beyond_ascii or not text.isascii()
        except UnicodeDecodeError:
            text = self._decode_western(data) or "".join(self._decode_lines(data))
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        self._line += text.count("\n")
        return text

    def _decode_western(self, data: bytes) -> str | None:
        """Many lines at once, where all that is not ASCII is plainly Western."""
        text = None if in_foreign_words(data) else western(data)
        if text is None:
            return None
        lines = [line for line in enumerate(data.splitlines(), self._line) if not line[1].isascii()]
        number, first = lines[0]
        self._note_western(first.decode("cp1252"), number, len(lines))
        return text

    def _decode_lines(self, data: bytes) -> Iterator[str]:
        for number, line in enumerate(data.splitlines(keepends=True), self._line):
            try:
                text = line.decode("utf-8")
                self._beyond_ascii = self._beyond_ascii or not text.isascii()
            except UnicodeDecodeError:
                text = western(line)
                if text is None:
                    self.has_unreadable = self._beyond_ascii = True
                    text = line.decode("utf-8", "surrogateescape")
                else:
                    self._note_western(text, number, 1)
            yield text

    def _note_western(self, line: str, number: int, count: int) -> None:
        if not self._western:
            self._first_western, self._first_word = number, telling_word(line)
        self._western += count


def _whole_lines(data: bytes) -> int:
    """Where the last line end is over, or, in a line without end, a place between characters."""
    end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1
    if end or len(data) < 4:
        return end
    end = len(data) - (data[-1:] == b"\r")
    for back in range(1, 4):
        if data[end - back] >= 0xC0:
            return end - back
        if data[end - back] < 0x80:
            break
    return end
