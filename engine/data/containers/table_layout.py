"""How a table in text is laid out: what parts its cells, how quotes are kept, and its columns."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from engine.data.containers.record_file import MAX_RECORD, mistake

MAX_COLUMNS = 1000
_DELIMITERS = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons", "|": "a table with |"}
# Parts no cells: for a table of one column, whose text is full of commas.
_NO_DELIMITER = "\x1f"
_ROWS_LOOKED_AT = 100
_SENTENCE_ENDS = (".", "?", "!", "\u3002", "\uff1f", "\uff01")
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Layout:
    """How to cut a table into cells.

    Attributes:
        delimiter: What parts cells.
        escape: What takes the meaning of a quotation mark away, besides doubling it.
        skip_lines: Lines before the table (Excel's `sep=;`).
    """

    delimiter: str
    escape: str | None = None
    skip_lines: int = 0

    @property
    def container(self) -> str:
        """What such a table is, for people."""
        return _DELIMITERS.get(self.delimiter, "CSV with one column")

    def rows(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """The rows of cells; the iterator has `line_num` as that of the `csv` module."""
        csv.field_size_limit(MAX_RECORD)
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            escapechar=self.escape,
            doublequote=self.escape is None,
        )


@dataclass(frozen=True)
class Header:
    """The columns of a table.

    Attributes:
        names: By place; None for a column that is left out.
        is_row: Whether the first row is a row like the others.
        notes: What a person should know.
    """

    names: tuple[str | None, ...]
    is_row: bool
    notes: tuple[str, ...]


def find_layout(head: str, *, is_whole: bool) -> tuple[Layout, float]:
    """The layout that cuts the beginning of a table into the most even rows.

    Returns:
        The layout, and the share of rows that have as many cells as the first; 0 for a table of
        one column.
    """
    first = head.lstrip("\n").partition("\n")[0].strip().strip('"')
    if first[:4].lower() == "sep=" and len(first) == 5:
        return Layout(first[4], skip_lines=1 + len(head) - len(head.lstrip("\n"))), 1.0
    escapes = (None, "\\") if '\\"' in head else (None,)
    best = Layout(_NO_DELIMITER)
    best_score = (0.0, 0)
    for escape in escapes:
        for delimiter in _DELIMITERS:
            layout = Layout(delimiter, escape)
            score = _evenness(layout, head, is_whole=is_whole)
            if score > best_score:
                best, best_score = layout, score
    return best, best_score[0]


def read_header(cells: list[str], name: str, names_columns: Callable[[list[str]], bool]) -> Header:
    """The columns by the first row.

    Args:
        cells: The first row.
        name: Of the file.
        names_columns: Tells whether a row is a header for sure.

    Raises:
        RequestError: There are more than 1000 columns.
    """
    if len(cells) > MAX_COLUMNS:
        raise mistake(
            f"{name} has {len(cells):,} columns, and at most {MAX_COLUMNS:,} are read.",
            "Keep the columns with the conversations.",
        )
    names = [cell.strip() for cell in cells]
    if is_sentence_row(cells) and not names_columns(cells):
        note = (
            f"The first row of {name} is no header, so its columns are called "
            f"{', '.join(f'column {place}' for place in range(1, len(names) + 1))[:200]}."
        )
        return Header(tuple(f"column {place}" for place, _ in enumerate(names, 1)), True, (note,))
    counts = Counter(known for known in names if known)
    notes = [
        f'The header names "{known[:40]}" {_times(count)}: the first of these columns is used.'
        for known, count in counts.items()
        if count > 1
    ]
    kept: list[str | None] = []
    for place, known in enumerate(names, 1):
        is_index = not known or known.lower().startswith("unnamed:")
        if is_index:
            notes.append(f"Column {place} has no name and is left out.")
        kept.append(None if is_index or known in kept else known)
    return Header(tuple(kept), False, tuple(notes[:10]))


def reads_as_prose(layout: Layout, head: str) -> bool:
    """Whether what parts the cells are the commas of sentences: spaces follow, no sentence ends."""
    rows = islice(layout.rows(line + "\n" for line in head.split("\n")), _ROWS_LOOKED_AT)
    try:
        pairs = [pair for row in rows for pair in pairwise(row)]
    except csv.Error:
        return False
    spaced = sum(after.startswith(" ") for _, after in pairs)
    ended = sum(before.rstrip().endswith(_SENTENCE_ENDS) for before, _ in pairs)
    return spaced >= 0.9 * len(pairs) and ended <= 0.1 * len(pairs)


def _evenness(layout: Layout, head: str, *, is_whole: bool) -> tuple[float, int]:
    """The share of rows as wide as the first, and that width; zeros for one column."""
    widths: list[int] = []
    try:
        for row in layout.rows(line + "\n" for line in head.split("\n")):
            if row:
                widths.append(len(row))
            if len(widths) == _ROWS_LOOKED_AT:
                break
        else:
            # The last row may be cut where the sample ends.
            widths = widths if is_whole or len(widths) < 2 else widths[:-1]
    except csv.Error:
        pass
    if not widths or widths[0] < 2:
        return 0.0, 0
    return sum(width == widths[0] for width in widths) / len(widths), min(widths[0], 50)


def is_sentence_row(cells: list[str]) -> bool:
    """Whether a row is hardly a header: no one calls a column by a sentence."""
    return any(
        len(cell) > _LONGEST_NAME
        or "\n" in cell.strip()
        or (cell.rstrip().endswith(_SENTENCE_ENDS) and len(cell.split()) >= 3)
        for cell in cells
    )


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"
