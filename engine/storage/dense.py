"""Values in float32 or bfloat16."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.memory.layout import matrix_shape
from engine.quant.randomness import RandomKey
from engine.quant.rounding import stochastic_bfloat16
from engine.storage.protocol import Change


@dataclass(frozen=True)
class DenseStorage:
    """`values` may be a model's parameter: it changes in place."""

    values: Tensor
    row_multiple = 1

    @property
    def _matrix(self) -> Tensor:
        return self.values.detach().view(self.num_rows, self.num_columns)

    @property
    def num_rows(self) -> int:
        """Rows of the matrix."""
        return matrix_shape(tuple(self.values.shape))[0]

    @property
    def num_columns(self) -> int:
        """Columns of the matrix."""
        return matrix_shape(tuple(self.values.shape))[1]

    @property
    def version(self) -> int:
        """Another number after every change."""
        return self.values._version

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live."""
        return {"values": self.values.detach()}

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, a copy."""
        return self._matrix[rows].to(torch.float32, copy=True)

    def write(self, rows: slice, values: Tensor, key: RandomKey | None = None) -> None:
        """Replace some rows, rounding to nearest."""
        del key
        self._matrix[rows].copy_(values)

    def dequantized(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Some rows as the passes see them."""
        return self._matrix[rows].to(dtype)

    def lookup(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        """The rows of these numbers, any shape; one dimension more."""
        return self._matrix[numbers].to(dtype)

    def add(
        self,
        rows: slice,
        direction: Tensor,
        rate: float,
        key: RandomKey | None,
        *,
        signs: bool = False,
    ) -> Change:
        """Change some rows; stochastic where a key is given. There are no codes to count."""
        del signs
        target = self._matrix[rows]
        if target.dtype == torch.float32:
            target.add_(direction, alpha=rate)
            return Change()
        exact = direction.mul_(rate).add_(target)
        if key is None:
            target.copy_(exact)
        else:
            target.copy_(stochastic_bfloat16(exact, key))
        return Change()
