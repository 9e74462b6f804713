"""Records in JSON: lines, an array, objects one after another, or inside one outer object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from engine.contract.errors import RequestError
from engine.data.containers.json_outer import Outer, choose_list, records_in
from engine.data.containers.json_stream import TOO_LARGE, JsonStream, array_values, lines_of
from engine.data.containers.json_values import Incomplete, ValueDecoder, plain_words
from engine.data.containers.record_file import MAX_RECORD, SNIPPET, RowError, mistake
from engine.data.containers.text_source import UNREADABLE, TextSource

Shape = Literal["lines", "array", "values", "outer"]
_ROWS_LOOKED_AT = 50
_BROKEN_BEYOND_DOUBT = 1000
_NAMES = {"lines": "JSON Lines", "array": "a JSON array", "values": "JSON objects"}


class JsonRecords:
    """Records in JSON text: a `RecordFile`.

    Raises:
        RequestError: It is broken, so that not even its first record can be told.
    """

    def __init__(self, source: TextSource, head: str, max_record: int = MAX_RECORD) -> None:
        self._source = source
        self._max_record = max_record
        self._outer: Outer | None = None
        self._is_small = True
        shape = json_shape(head)
        self._shape: Shape = shape or self._find_shape()

    @property
    def container(self) -> str:
        """What the file is, for people."""
        return self._outer.container if self._outer else _NAMES[self._shape]

    @property
    def encoding(self) -> str | None:
        """The encoding of the text."""
        return self._source.encoding

    @property
    def unit(self) -> Literal["line", "row"]:
        """Lines where a record begins on a line of its own, else rows."""
        return "line" if self._shape in ("lines", "values") else "row"

    @property
    def is_running_text(self) -> bool:
        """Whether one text was cut into these: never, each is a record of its own."""
        return False

    @property
    def notes(self) -> list[str]:
        """What a person should know."""
        return [*self._source.notes, *(self._outer.notes if self._outer else ())]

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Number and value of each record.

        Raises:
            RequestError: The text is broken where rows cannot be told apart any more.
        """
        if self._shape == "lines":
            return self._lines()
        if self._shape == "values":
            return self._values()
        return self._whole(self._array() if self._shape == "array" else self._inside())

    def _lines(self) -> Iterator[tuple[int, Any]]:
        decoder = ValueDecoder()
        for number, line in lines_of(self._source, self._max_record):
            if isinstance(line, RowError):
                yield number, line
            elif self._source.has_unreadable and UNREADABLE.search(line):
                yield number, RowError(self._source.fault, line)
            else:
                yield number, _line_value(decoder, line)

    def _values(self) -> Iterator[tuple[int, Any]]:
        stream = self._stream()
        good = bad = 0
        while mark := stream.peek():
            if mark == ",":
                stream.skip()
                continue
            number = stream.line
            try:
                value = stream.value()
            except Incomplete as error:
                where = f" (line {error.position})" if error.position != number else ""
                yield number, RowError(error.reason + where, stream.ahead(SNIPPET))
                stream.skip_to_next_record()
                bad += 1
                if bad > _BROKEN_BEYOND_DOUBT + good:
                    raise self._broken(error) from error
            else:
                yield number, value
                good += 1

    def _whole(self, values: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        number = 0
        try:
            for number, value in enumerate(values, start=1):
                yield number, value
        except Incomplete as error:
            raise self._broken(error, f", after {number:,} records" * (number > 0)) from error

    def _array(self) -> Iterator[Any]:
        stream = self._stream()
        stream.peek()
        yield from array_values(stream)
        self._check_end(stream)

    def _inside(self) -> Iterator[Any]:
        assert self._outer, "the outer object was looked into when the file was opened"
        if self._is_small:
            yield from records_in(self._stream().value(), self._source.name).rows
            return
        stream = self._stream()
        for key in _members(stream):
            if key == self._outer.key and stream.peek() == "[":
                yield from array_values(stream)
            else:
                _pass_by(stream)
        self._check_end(stream)

    def _check_end(self, stream: JsonStream) -> None:
        if stream.peek():
            raise Incomplete(plain_words("Extra data"), stream.line)

    def _stream(self) -> JsonStream:
        return JsonStream(self._source, max_record=self._max_record)

    def _broken(self, error: Incomplete, after: str = "") -> RequestError:
        place = f"line {error.position} of {self._source.name}{after}"
        return mistake(f"{place}: {error.reason}.", "Mend that line, or save the file anew.")

    def _find_shape(self) -> Shape:
        """The shape of a text that begins with an object which ends on a later line."""
        stream = self._stream()
        try:
            value = stream.value()
            if stream.peek():
                return "values"
        except Incomplete as error:
            if error.reason == TOO_LARGE:
                return self._shape_of_large()
            if stream.skip_to_next_record():
                return "values"
            raise self._broken(error) from error
        if isinstance(value, RowError):
            return self._shape_of_large() if str(value) == TOO_LARGE else "values"
        self._outer = records_in(value, self._source.name)
        return "values" if self._outer.container == "one JSON object" else "outer"

    def _shape_of_large(self) -> Shape:
        """The shape of a text that begins with more than one record can hold."""
        lines = (line for _, line in lines_of(self._source, self._max_record))
        first, second = next(lines), next(lines, "")
        is_row = isinstance(first, RowError)
        begin = second.snippet if isinstance(second, RowError) else second
        if (is_row and begin.lstrip().startswith("{")) or not self._is_one_object():
            return "lines"
        try:
            return self._look_into_large()
        except Incomplete as error:
            if is_row and not begin and error.reason == TOO_LARGE:
                return "lines"
            raise self._broken(error) from error

    def _is_one_object(self) -> bool:
        """Whether such a text goes on as one object."""
        try:
            stream = self._stream()
            for _ in _members(stream):
                return stream.peek() == "[" or not isinstance(stream.value(), RowError)
        except Incomplete:
            pass
        return False

    def _look_into_large(self) -> Shape:
        self._is_small = False
        firsts: dict[str, Any] = {}
        keys: dict[str, None] = {}
        stream = self._stream()
        for key in _members(stream):
            keys[key] = None
            first = _pass_by(stream)
            if first is not None:
                firsts[key] = first
        self._outer = choose_list(firsts, keys, self._source.name)
        if self._outer is None:
            raise mistake(
                f"{self._source.name} is one JSON object larger than {MAX_RECORD >> 20} MB without "
                "a list of records.",
                "Save the records as .jsonl, one object per line.",
            )
        return "outer"


def json_shape(head: str) -> Shape | None:
    """The shape that the beginning of a text shows; None where one object fills many lines.

    Args:
        head: The first characters; its last line may be cut.
    """
    lines = [line for line in head.split("\n") if line and not line.isspace()]
    lines = lines[: min(_ROWS_LOOKED_AT, max(1, len(lines) - (not head.endswith("\n"))))]
    decoder = ValueDecoder()
    values = [_line_value(decoder, line) for line in lines]
    whole = [isinstance(value, dict | list) for value in values]
    if head.lstrip()[:1] == "[":
        is_list = whole[0] and len(lines) > 1 and lines[1].lstrip()[0] in "[{"
        return "lines" if is_list and not lines[0].rstrip().endswith(",") else "array"
    if head.lstrip()[:1] != "{" or (len(lines) > 1 and 2 * sum(whole) >= len(lines)):
        return "lines"
    return None


def _line_value(decoder: ValueDecoder, line: str) -> Any:
    start = len(line) - len(line.lstrip())
    try:
        value, end = decoder.decode(line, start)
    except Incomplete as error:
        return RowError(error.reason, line)
    if line[end:].strip() not in ("", ","):  # a comma: an array whose brackets were lost
        return RowError(plain_words("Extra data"), line)
    return RowError(str(value), line) if isinstance(value, RowError) else value


def _members(stream: JsonStream) -> Iterator[str]:
    """The keys of the object that comes next; whoever asks takes each value off the stream."""
    stream.peek()
    stream.skip()
    mark = stream.peek()
    while mark != "}":
        key = stream.value()
        if not isinstance(key, str):
            raise Incomplete(
                plain_words("Expecting property name enclosed in double quotes"), stream.line
            )
        if stream.peek() != ":":
            raise Incomplete(plain_words("Expecting ':' delimiter"), stream.line)
        stream.skip()
        yield key
        mark = stream.peek()
        if mark not in (",", "}"):
            raise Incomplete(plain_words("Expecting ',' delimiter"), stream.line)
        if mark == ",":
            stream.skip()
            stream.peek()
    stream.skip()


def _pass_by(stream: JsonStream) -> Any:
    """Take one value off the stream; the first element, if it is a list that has one."""
    if stream.peek() != "[":
        stream.value()
        return None
    first = None
    for element in array_values(stream):
        first = element if first is None else first
    return first
