"""A file's text in pieces with line feeds alone, whatever its encoding and its line ends."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator

from engine.data.containers.byte_source import ByteSource
from engine.data.containers.record_file import mistake

SAMPLE = 1 << 16
# Bytes that could not be read are carried as these code points, and never learned from.
UNREADABLE = re.compile("[\udc80-\udcff]")
NEITHER = "its text is neither UTF-8 nor Windows-1252"
_BOMS = (
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF32_LE, "UTF-32-LE"),
    (codecs.BOM_UTF32_BE, "UTF-32-BE"),
    (codecs.BOM_UTF16_LE, "UTF-16-LE"),
    (codecs.BOM_UTF16_BE, "UTF-16-BE"),
)
_CONTROLS = bytes(sorted({*range(32), 127} - set(b"\t\n\r\x0b\x0c\x1b\x1a")))
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_HIGH = bytes(range(128, 256))
# Western words have some letters outside ASCII; Cyrillic or Chinese ones have no others.
_RUN = re.compile(rb"[\x80-\xff]{4,}")
_LETTERS_OF_A_RUN = 3  # as in no row of dashes or dots
# Only from where a line begins: else a long line without such a byte is searched from each place.
_HIGH_LINE = re.compile(rb"(?:\A|(?<=[\r\n]))[^\r\n\x80-\xff]*[\x80-\xff][^\r\n]*")


class TextSource:
    """The text of one file.

    Attributes:
        has_unreadable: Some text so far holds bytes that could not be read (see `UNREADABLE`).

    Raises:
        RequestError: It is no text, or text in an encoding that is not known here.
    """

    def __init__(self, bytes_source: ByteSource) -> None:
        self.source = bytes_source
        self.name = bytes_source.path.name
        sample = bytes_source.start(SAMPLE)
        self._bom, self._codec = _encoding(sample)
        self._reset()
        self._check(sample)

    @property
    def encoding(self) -> str:
        """The encoding that most of the text is in, as far as it was read."""
        if self._codec != "UTF-8":
            return self._codec[:6]
        return "UTF-8" if self._beyond_ascii or not self._western else "Windows-1252"

    @property
    def notes(self) -> list[str]:
        """Which lines were read otherwise than as UTF-8."""
        if not self._western:
            return []
        if not self._beyond_ascii:
            return [
                f"{self.name} is not UTF-8 and was read as Windows-1252; the first line that shows "
                f"it is line {self._first_western}."
            ]
        lines = f"Line {self._first_western} is"
        if self._western > 1:
            lines = f"{self._western} lines (the first is line {self._first_western}) are"
        return [f"{lines} not UTF-8 and read as Windows-1252."]

    def pieces(self) -> Iterator[str]:
        """All text, without a byte order mark, in pieces of any length.

        Raises:
            RequestError: The file is damaged.
        """
        self._reset()
        return self._utf8() if self._codec == "UTF-8" else self._wide()

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

    def _reset(self) -> None:
        self.has_unreadable = False
        self._beyond_ascii = False
        self._western = 0
        self._first_western = 0
        self._line = 1

    def _check(self, sample: bytes) -> None:
        if self._codec == "UTF-8" and _is_binary(sample):
            raise mistake(
                f"{self.name} holds no text.",
                "Choose a file of conversations or text, such as .jsonl, .csv or .txt.",
            )
        head = self.head(1)
        lines = head.split("\n")
        bad = [number for number, line in enumerate(lines, 1) if UNREADABLE.search(line)]
        if bad and 2 * len(bad) >= sum(1 for line in lines if not line.isascii()):
            raise mistake(
                f"line {bad[0]} of {self.name} is neither UTF-8 nor Windows-1252 text.",
                "Save the file as UTF-8.",
            )

    def _without_mark(self) -> Iterator[bytes]:
        left = len(self._bom)
        for piece in self.source.pieces():
            cut = min(left, len(piece))
            left -= cut
            yield piece[cut:]

    def _wide(self) -> Iterator[str]:
        decoder = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder(self._codec)("surrogatepass"), translate=True
        )
        try:
            for piece in self._without_mark():
                yield decoder.decode(piece)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise mistake(
                f"{self.name} is cut off or damaged: its {self._codec[:6]} text is not whole.",
                "Save the file as UTF-8.",
            ) from error

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
        text = None if _in_foreign_words(data) else _western(data)
        if text is None:
            return None
        lines = [found.start() for found in _HIGH_LINE.finditer(data)]
        self._western += len(lines)
        before = data[: lines[0]].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._first_western = self._first_western or self._line + before.count(b"\n")
        return text

    def _decode_lines(self, data: bytes) -> Iterator[str]:
        for number, line in enumerate(_LINE.findall(data), self._line):
            try:
                text = line.decode("utf-8")
                self._beyond_ascii = self._beyond_ascii or not text.isascii()
            except UnicodeDecodeError:
                text = _western(line)
                if text is None:
                    self.has_unreadable = self._beyond_ascii = True
                    text = line.decode("utf-8", "surrogateescape")
                else:
                    self._western += 1
                    self._first_western = self._first_western or number
            yield text


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


def _western(line: bytes) -> str | None:
    """The line as Windows-1252, if it can be that: Western text, and no UTF-8 that was damaged."""
    if not line.decode("utf-8", "ignore").isascii():
        return None
    high = len(line) - len(line.translate(None, _HIGH))
    if 2 * _in_foreign_words(line) > high:
        return None
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError:
        return None


def _in_foreign_words(data: bytes) -> int:
    """How many bytes stand in words that are wholly outside ASCII."""
    runs = _RUN.findall(data)
    return sum(len(run) for run in runs if len(set(run)) >= _LETTERS_OF_A_RUN)


def _encoding(sample: bytes) -> tuple[bytes, str]:
    """The byte order mark, which may be missing, and the encoding."""
    for bom, codec in _BOMS:
        if sample.startswith(bom):
            return bom, codec
    pairs = len(sample) // 2
    if pairs >= 4:
        zeros = [sample[0 : 2 * pairs : 2].count(0), sample[1 : 2 * pairs : 2].count(0)]
        if zeros[1] > 0.4 * pairs and zeros[0] < 0.02 * pairs:
            return b"", "UTF-16-LE"
        if zeros[0] > 0.4 * pairs and zeros[1] < 0.02 * pairs:
            return b"", "UTF-16-BE"
    return b"", "UTF-8"


def _is_binary(sample: bytes) -> bool:
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return controls >= 8 and controls > 0.05 * len(sample)
