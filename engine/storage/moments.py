"""Optimizer moments in formats of their own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from engine.quant import int4, square_root
from engine.quant.randomness import RandomKey


@dataclass(frozen=True)
class CodedMoment:
    """Codes (rows, bytes of a row) and scales (rows, groups)."""

    codes: Tensor
    scales: Tensor
    num_columns: int

    @property
    def num_rows(self) -> int:
        """Rows of the matrix."""
        return self.codes.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live."""
        return {"codes": self.codes, "scales": self.scales}

    def _keep(self, rows: slice, codes: Tensor, scales: Tensor) -> None:
        self.codes[rows].copy_(codes)
        self.scales[rows].copy_(scales)


@dataclass(frozen=True)
class Int4Storage(CodedMoment):
    """Signed 4-bit codes, two to a byte."""

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, a copy."""
        return int4.dequantize(self.codes[rows], self.scales[rows], self.num_columns)

    def write(self, rows: slice, values: Tensor, key: RandomKey | None = None) -> None:
        """Replace some rows; stochastic where a key is given."""
        self._keep(rows, *int4.quantize(values, self.scales.shape[-1], key))


@dataclass(frozen=True)
class SquareRootStorage(CodedMoment):
    """Codes of square roots: 8 bits, or 4 bits, two to a byte."""

    bits: int

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, a copy."""
        return square_root.dequantize(
            self.codes[rows], self.scales[rows], self.num_columns, self.bits
        )

    def write(self, rows: slice, values: Tensor, key: RandomKey | None = None) -> None:
        """Replace some rows; stochastic where a key is given."""
        self._keep(rows, *square_root.quantize(values, self.scales.shape[-1], key, self.bits))
