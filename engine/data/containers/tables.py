"""Records in tables of text: CSV and its kin. An empty cell is None, every other cell is text."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

from engine.data.containers.record_file import MAX_RECORD, RowError, mistake
from engine.data.containers.table_layout import Header, Layout, read_header
from engine.data.containers.text_source import UNREADABLE, TextSource

# Stands after the last line: where it lands tells whether a quotation is still open there.
_END = "\ue000 end of the table \ue000"


class TableRecords:
    """The rows of a table in text: a `RecordFile`."""

    def __init__(
        self, source: TextSource, layout: Layout, names_columns: Callable[[list[str]], bool]
    ) -> None:
        self._source = source
        self._layout = layout
        self._names_columns = names_columns
        self._header: Header | None = None

    @property
    def container(self) -> str:
        """What the file is, for people."""
        return self._layout.container

    @property
    def encoding(self) -> str | None:
        """The encoding of the text."""
        return self._source.encoding

    @property
    def unit(self) -> Literal["line", "row"]:
        """Numbers are those of the line where a row begins."""
        return "line"

    @property
    def is_running_text(self) -> bool:
        """Whether one text was cut into these: never, each is a record of its own."""
        return False

    @property
    def notes(self) -> list[str]:
        """What a person should know."""
        return [*self._source.notes, *(self._header.notes if self._header else ())]

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """The line where a row begins, and its cells by the names of their columns.

        Raises:
            RequestError: A quotation has no end, there are too many columns or no rows, or the
                file is damaged.
        """
        names: tuple[str | None, ...] = ()
        self._header = None
        has_rows = False
        for number, cells in self._rows():
            if self._header is None:
                self._header = read_header(cells, self._source.name, self._names_columns)
                names = self._header.names
                if not self._header.is_row:
                    continue
            has_rows = True
            yield number, self._record(names, cells)
        if self._header and not has_rows:
            raise self._no_rows(names)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        skipped = self._layout.skip_lines
        lines = _lines(self._source)
        for _ in range(skipped):
            next(lines, None)
        rows = csv_rows = self._layout.rows(lines)
        begin = skipped + 1
        while True:
            try:
                cells = next(rows, None)
            except csv.Error as error:
                raise self._open_quotation(begin) from error
            if cells is None or cells == [_END]:
                return
            if cells and cells[-1].endswith(_END):
                raise self._open_quotation(begin)
            if cells:
                yield begin, cells
            begin = skipped + csv_rows.line_num + 1  # pyright: ignore[reportAttributeAccessIssue]

    def _record(self, names: tuple[str | None, ...], cells: list[str]) -> Any:
        if len(cells) != len(names):
            if len(cells) < len(names) or any(cells[len(names) :]):
                return RowError(_ragged(len(cells), len(names)), self._raw(cells))
            cells = cells[: len(names)]
        if self._source.has_unreadable and any(map(UNREADABLE.search, cells)):
            return RowError(self._source.fault, self._raw(cells))
        return {
            name: cell or None for name, cell in zip(names, cells, strict=True) if name is not None
        }

    def _raw(self, cells: list[str]) -> str:
        return self._layout.delimiter.join(cells)

    def _no_rows(self, names: tuple[str | None, ...]) -> Exception:
        listed = ", ".join(name for name in names if name)[:300]
        return mistake(
            f"{self._source.name} has a header and no rows; its columns are {listed or 'unnamed'}.",
            "Add rows, or choose another file.",
        )

    def _open_quotation(self, line: int) -> Exception:
        return mistake(
            f"line {line} of {self._source.name} opens a quotation that has no end, or is larger "
            f"than {MAX_RECORD >> 20} MB.",
            'Close it, or double the quotation mark (""), which makes it a part of the text.',
        )


def _lines(source: TextSource) -> Iterator[str]:
    rest: list[str] = []
    for piece in source.pieces():
        if "\x00" in piece and sys.version_info < (3, 11):  # the csv module ends there
            raise mistake(f"{source.name} holds NUL characters.", "Take them out.")
        first, *others = piece.split("\n")
        rest.append(first)
        if len(first) == len(piece) and sum(map(len, rest)) > MAX_RECORD:
            raise mistake(
                f"a line of {source.name} is longer than {MAX_RECORD >> 20} MB.",
                "Check whether it is a table at all.",
            )
        for line in others:
            yield "".join(rest) + "\n"
            rest = [line]
    if any(rest):
        yield "".join(rest) + "\n"
    yield _END


def _ragged(num_cells: int, num_columns: int) -> str:
    cells = "1 cell" if num_cells == 1 else f"{num_cells} cells"
    columns = "1 column" if num_columns == 1 else f"{num_columns} columns"
    more = " (is a quotation mark missing?)" if num_cells > num_columns else ""
    return f"it has {cells}, and the table has {columns}{more}"
