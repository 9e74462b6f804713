"""What every stored tensor can do, and what a stored weight can do besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.quant.randomness import RandomKey


@dataclass(frozen=True)
class Change:
    """What an update did to 8-bit codes: counts that may be scalar tensors where the codes are.

    Attributes:
        codes: Codes that are others now.
        groups: Groups that were given a larger scale.
    """

    codes: Tensor | int = 0
    groups: Tensor | int = 0


class Storage(Protocol):
    """One stored tensor, seen as a matrix of rows."""

    @property
    def num_rows(self) -> int:
        """Rows of the matrix."""
        ...

    @property
    def num_columns(self) -> int:
        """Columns of the matrix."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live, by the names of the layout's parts."""
        ...

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, shape (rows, columns); a copy."""
        ...

    def write(self, rows: slice, values: Tensor, key: RandomKey | None = None) -> None:
        """Replace some rows.

        Args:
            rows: Which.
            values: Float32, shape (rows, columns); used up.
            key: For formats too coarse to round to nearest; without one they do all the same.
        """
        ...


class WeightStorage(Storage, Protocol):
    """A stored weight: multiplied with in the passes, changed by an update."""

    @property
    def row_multiple(self) -> int:
        """Chunks of rows begin at multiples of this."""
        ...

    @property
    def version(self) -> int:
        """Another number after every change."""
        ...

    def dequantized(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Some rows as the passes see them; may share memory with the storage."""
        ...

    def add(
        self,
        rows: slice,
        direction: Tensor,
        rate: float,
        key: RandomKey | None,
        *,
        signs: bool = False,
    ) -> Change:
        """Change some rows by `rate * direction`.

        Args:
            rows: Which.
            direction: Float32, shape (rows, columns); used up.
            rate: Factor, in units of the weights.
            key: For stochastic rounding; None rounds to nearest.
            signs: Whether the direction is nothing but -1, 0 and 1.
        """
        ...
