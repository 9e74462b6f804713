"""What was found in a dataset: rows that are used, rows that are not, and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.contract.spec import ColumnRole
from engine.data.columns import Format
from engine.data.containers.record_file import RowError

SHOWN_REFUSALS = 100
_MOST_REASONS = 1000
_OTHER_REASONS = "another reason"
_SHOWN_REASONS = 3
_SNIPPET = 200


@dataclass(frozen=True)
class Refusal:
    """A row that is not used.

    Attributes:
        number: Line or row, as `Dataset.unit` says.
        reason: In words that follow the number.
        snippet: How the row begins.
    """

    number: int
    reason: str
    snippet: str


@dataclass(frozen=True)
class Dataset:
    """A dataset that was read once, from its first row to its last.

    Attributes:
        container: What held the rows, for people: `JSON Lines`, `CSV`, `Parquet`.
        encoding: Of the text; None where the container says so itself.
        unit: What the numbers of rows count.
        format: What most rows were taken for; auto if none could be used.
        formats: Usable rows by format, the commonest first.
        columns: The columns in use, by what they are; those of most rows.
        available_columns: Columns that there are, the first 50.
        rows: Rows that were read.
        usable: Rows that can be learned from.
        refused: The first rows that cannot.
        refused_count: All of those.
        reasons: Reason, count and first number of what was refused, the commonest first.
        notes: What was guessed or changed, in sentences.
        sha256: Of the file; None for a hub dataset, which its revision pins.
        prompts: The first three different questions.
    """

    container: str
    encoding: str | None
    unit: Literal["line", "row"]
    format: Format | Literal["auto"]
    formats: dict[Format, int]
    columns: dict[ColumnRole, str]
    available_columns: tuple[str, ...]
    rows: int
    usable: int
    refused: tuple[Refusal, ...]
    refused_count: int
    reasons: tuple[tuple[str, int, int], ...]
    notes: tuple[str, ...]
    sha256: str | None
    prompts: tuple[str, ...]


def kinds_sentence(formats: Mapping[Format, int]) -> list[str]:
    """A sentence where the rows are of several kinds, which is seldom meant."""
    if len(formats) < 2:
        return []
    listed = ", ".join(f"{count:,} as {format}" for format, count in formats.items())
    return [f"The rows are of several kinds: {listed}."]


class Refusals:
    """Rows that are not used, counted by reason; the first are kept."""

    def __init__(self) -> None:
        self.first: list[Refusal] = []
        self.count = 0
        self._counts: Counter[str] = Counter()
        self._where: dict[str, int] = {}

    def add(self, number: int, reason: str, value: Any) -> None:
        """One more row.

        Args:
            number: Of the row.
            reason: Why it is not used.
            value: What stands there, for the snippet.
        """
        self.count += 1
        if len(self.first) < SHOWN_REFUSALS:
            self.first.append(Refusal(number, reason, snippet_of(value)))
        if reason not in self._counts and len(self._counts) >= _MOST_REASONS:
            reason = _OTHER_REASONS
        self._counts[reason] += 1
        self._where.setdefault(reason, number)

    @property
    def reasons(self) -> tuple[tuple[str, int, int], ...]:
        """Reason, count and first number, the commonest first."""
        return most_refused((why, count, self._where[why]) for why, count in self._counts.items())


def most_refused(
    reasons: Iterable[tuple[str, int, int]],
) -> tuple[tuple[str, int, int], ...]:
    """Reason, count and first number, the commonest first; the earlier where two are as common."""
    return tuple(sorted(reasons, key=lambda one: (-one[1], one[2])))


def describe_refusals(
    reasons: Sequence[tuple[str, int, int]], unit: Literal["line", "row"] = "row"
) -> str:
    """The commonest reasons, with how often and where first."""
    return "; ".join(
        f"{reason} ({unit} {first:,})"
        if count == 1
        else f"{reason} ({count:,} rows, the first is {unit} {first:,})"
        for reason, count, first in reasons[:_SHOWN_REASONS]
    )


def snippet_of(value: Any) -> str:
    """How a row begins, short, and of whole characters only."""
    shown = value.snippet if isinstance(value, RowError) else _shortened(value, 4)
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, default=str)
    return text[:_SNIPPET].encode("utf-8", "replace").decode()


def _shortened(value: Any, depth: int) -> Any:
    """A copy of what stands at the beginning, so that nothing large is ever written out."""
    if isinstance(value, str):
        return value[:_SNIPPET]
    if isinstance(value, dict):
        first = list(value.items())[:10] if depth else []
        return {str(name)[:40]: _shortened(cell, depth - 1) for name, cell in first}
    if isinstance(value, list):
        return [_shortened(cell, depth - 1) for cell in value[:4]] if depth else []
    if isinstance(value, int) and value.bit_length() > 256:
        return "a long number"
    return value
