"""8-bit codes with a scale per group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.quant import int8
from engine.quant.randomness import RandomKey
from engine.storage.protocol import Change


@dataclass(frozen=True)
class Int8Storage:
    """Codes (rows, columns) and scales (rows, groups)."""

    codes: Tensor
    scales: Tensor
    row_multiple = 1

    @property
    def num_rows(self) -> int:
        """Rows of the matrix."""
        return self.codes.shape[0]

    @property
    def num_columns(self) -> int:
        """Columns of the matrix."""
        return self.codes.shape[1]

    @property
    def version(self) -> int:
        """Another number after every change."""
        return self.codes._version

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live."""
        return {"codes": self.codes, "scales": self.scales}

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, a copy."""
        return int8.dequantize(self.codes[rows], self.scales[rows], torch.float32)

    def write(self, rows: slice, values: Tensor, key: RandomKey | None = None) -> None:
        """Replace some rows and their scales; stochastic where a key is given."""
        int8.requantize(self.codes[rows], self.scales[rows], values, key)

    def dequantized(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Some rows as the passes see them."""
        return int8.dequantize(self.codes[rows], self.scales[rows], dtype)

    def lookup(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        """The rows of these numbers, any shape; one dimension more."""
        flat = numbers.flatten()
        rows = int8.dequantize(self.codes[flat], self.scales[flat], dtype)
        return rows.view(*numbers.shape, self.num_columns)

    def add(
        self,
        rows: slice,
        direction: Tensor,
        rate: float,
        key: RandomKey | None,
        *,
        signs: bool = False,
    ) -> Change:
        """Change some rows; stochastic where a key is given, else all is rounded anew."""
        codes, scales = self.codes[rows], self.scales[rows]
        if key is not None:
            change = int8.move_by_signs if signs else int8.add_stochastic
            return Change(*change(codes, scales, direction, rate, key))
        before = codes.clone()
        exact = direction.mul_(rate).add_(int8.dequantize(codes, scales, torch.float32))
        int8.requantize(codes, scales, exact)
        return Change(torch.count_nonzero(before != codes))
