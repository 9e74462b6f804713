"""What `python -m engine check --json` says of a dataset: rows, tokens, and what the model sees."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from engine.contract.errors import RequestError


class Piece(BaseModel):
    """Some of a rendered example: whether it is learned, and whether it is a control token."""

    text: str
    trained: bool
    control: bool = False


class Example(BaseModel):
    """One usable row as the model sees it; `cut` where it is longer than the sequence length."""

    number: int
    row: int
    held_out: bool
    tokens: int
    trained: int
    cut: bool
    pieces: list[Piece]


class RefusedRow(BaseModel):
    """One row that cannot be learned from."""

    row: int
    reason: str
    snippet: str


class Reason(BaseModel):
    """Why rows were refused, how many, and which was the first."""

    reason: str
    count: int
    first: int


class Tokens(BaseModel):
    """Lengths of usable rows in tokens, before anything is cut."""

    p50: int
    p95: int
    max: int
    total: int
    trained: int


class Histogram(BaseModel):
    """Rows by length: one more edge than counts; a bar holds lengths from its edge to the next."""

    edges: list[int]
    counts: list[int]


class Mistake(BaseModel):
    """Why nothing can be learned from the data as it is."""

    message: str
    field: str
    advice: str = ""

    def as_error(self) -> RequestError:
        """The same as the rest of the page knows it."""
        return RequestError(self.field, self.message, self.advice)


class DataCheck(BaseModel):
    """What was found in a dataset. With an `error`, only what was found before it."""

    container: str = ""
    encoding: str | None = None
    unit: Literal["line", "row"] = "row"
    format: str | None = None
    columns: dict[str, str] = {}
    available_columns: list[str] = []
    rows: int = 0
    usable: int = 0
    refused: list[RefusedRow] = []
    refused_count: int = 0
    reasons: list[Reason] = []
    duplicates: int = 0
    tokens: Tokens | None = None
    histogram: Histogram | None = None
    sequence_length: int | None = None
    truncated: int = 0
    truncated_percent: float = 0.0
    training_rows: int = 0
    held_out_rows: int = 0
    epoch_tokens: int = 0
    epoch_trained_tokens: int = 0
    template: Literal["model", "default"] | None = None
    warnings: list[str] = []
    num_examples: int = 0
    examples: list[Example] = []
    error: Mistake | None = None

    def example(self, number: int) -> Example | None:
        """One of the examples that came with this answer."""
        return next((one for one in self.examples if one.number == number), None)
