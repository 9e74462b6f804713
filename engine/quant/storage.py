"""Tensors as a plan lays them out: read in float32, change, write."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.memory.layout import Dense, Int8, Layout, Part, Shape
from engine.quant import int8
from engine.quant.randomness import RandomKey, uniform
from engine.quant.rounding import stochastic_bfloat16

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


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
        """The real tensors, by the names of the layout's parts."""
        ...

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, shape (rows, columns); a copy."""
        ...

    def write(self, rows: slice, values: Tensor) -> None:
        """Replace some rows, rounding to nearest."""
        ...

    def add(self, rows: slice, change: Tensor, key: RandomKey | None) -> None:
        """Change some rows; stochastic rounding where a key is given, else to nearest."""
        ...


@dataclass(frozen=True)
class DenseStorage:
    """Values in float32 or bfloat16. `values` may be a model's parameter: it changes in place."""

    values: Tensor

    @property
    def _matrix(self) -> Tensor:
        return self.values.detach().view(self.num_rows, self.num_columns)

    @property
    def num_rows(self) -> int:
        """Rows of the matrix."""
        return math.prod(self.values.shape[:-1])

    @property
    def num_columns(self) -> int:
        """Columns of the matrix."""
        return self.values.shape[-1] if self.values.ndim else 1

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live."""
        return {"values": self.values.detach()}

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, a copy."""
        return self._matrix[rows].to(torch.float32, copy=True)

    def write(self, rows: slice, values: Tensor) -> None:
        """Replace some rows, rounding to nearest."""
        self._matrix[rows].copy_(values)

    def add(self, rows: slice, change: Tensor, key: RandomKey | None) -> None:
        """Change some rows; stochastic where a key is given."""
        target = self._matrix[rows]
        if target.dtype == torch.float32:
            target.add_(change)
            return
        exact = target.float().add_(change)
        if key is None:
            target.copy_(exact)
        else:
            random = uniform(tuple(exact.shape), key, exact.device)
            target.copy_(stochastic_bfloat16(exact, random))


@dataclass(frozen=True)
class Int8Storage:
    """Codes (rows, columns) and scales (rows, groups)."""

    codes: Tensor
    scales: Tensor

    @property
    def num_rows(self) -> int:
        """Rows of the matrix."""
        return self.codes.shape[0]

    @property
    def num_columns(self) -> int:
        """Columns of the matrix."""
        return self.codes.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live."""
        return {"codes": self.codes, "scales": self.scales}

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, a copy."""
        return int8.dequantize(self.codes[rows], self.scales[rows], torch.float32)

    def write(self, rows: slice, values: Tensor) -> None:
        """Replace some rows, rounding to nearest."""
        scales = int8.scales_of(values, self.scales.shape[-1], self.scales.dtype, headroom=1.0)
        self.scales[rows].copy_(scales)
        self.codes[rows].copy_(int8.quantize_nearest(values, scales))

    def add(self, rows: slice, change: Tensor, key: RandomKey | None) -> None:
        """Change some rows; stochastic where a key is given."""
        if key is None:
            int8.add_nearest(self.codes[rows], self.scales[rows], change)
        else:
            int8.add_stochastic(self.codes[rows], self.scales[rows], change, key)


def allocate(layout: Layout, shape: Shape, device: torch.device) -> Storage:
    """Zeros, laid out exactly as the estimator counts them."""
    parts = {part.name: _empty(part, device) for part in layout.parts(shape)}
    if isinstance(layout, Dense):
        return DenseStorage(parts["values"].zero_())
    storage = Int8Storage(parts["codes"].zero_(), parts["scales"])
    storage.scales.fill_(int8.SMALLEST_SCALE)
    return storage


def quantized(layout: Int8, weight: Tensor, device: torch.device) -> Int8Storage:
    """A weight matrix as codes, with room to grow.

    Args:
        layout: Group and format of the scales.
        weight: Any floating dtype, two or more dimensions.
        device: Where the codes go.
    """
    storage = allocate(layout, tuple(weight.shape), device)
    assert isinstance(storage, Int8Storage)
    values = weight.detach().to(device=device, dtype=torch.float32).flatten(0, -2)
    scales = int8.scales_of(
        values, storage.scales.shape[-1], storage.scales.dtype, headroom=int8.HEADROOM
    )
    storage.scales.copy_(scales)
    storage.codes.copy_(int8.quantize_nearest(values, scales))
    return storage


def _empty(part: Part, device: torch.device) -> Tensor:
    return torch.empty(part.shape, dtype=_DTYPES[part.dtype], device=device)
