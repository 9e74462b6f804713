"""Dense and sparse: the largest weights in float32, the rest in codes.

"QFT" (Li et al., 2023), section 3.2: the few largest weights of a layer would stretch the scales of
all others, so they are kept apart. Which weights are apart is decided anew once per epoch.

A position is 16 bits within a block of whole rows of at most 65,536 weights; `counts` says how many
positions each block has. At those places the codes are zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from engine.memory.layout import OUTLIER_BLOCK, block_rows
from engine.quant.randomness import RandomKey
from engine.storage.int8 import Int8Storage
from engine.storage.protocol import Change

_MASK16 = OUTLIER_BLOCK - 1


class _Ends:
    """Where each block's outliers end: on a GPU, asking every time would wait every time."""

    def __init__(self) -> None:
        self._version = -1
        self._ends: list[int] = []

    def of(self, counts: Tensor) -> list[int]:
        if self._version != counts._version:
            self._version = counts._version
            self._ends = list(accumulate(counts.tolist(), initial=0))
        return self._ends


@dataclass(frozen=True)
class OutlierStorage:
    """8-bit storage of what is not apart, and the values (count,) that are."""

    rest: Int8Storage
    values: Tensor
    offsets: Tensor
    counts: Tensor
    _ends: _Ends = field(default_factory=lambda: _Ends(), repr=False)

    @property
    def num_rows(self) -> int:
        """Rows of the matrix."""
        return self.rest.num_rows

    @property
    def num_columns(self) -> int:
        """Columns of the matrix."""
        return self.rest.num_columns

    @property
    def row_multiple(self) -> int:
        """Rows of a block: a chunk holds whole ones."""
        return block_rows(self.num_columns)

    @property
    def version(self) -> int:
        """Another number after every change."""
        return self.values._version

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live."""
        return {
            **self.rest.tensors(),
            "outlier_values": self.values,
            "outlier_offsets": self.offsets,
            "outlier_counts": self.counts,
        }

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, a copy."""
        return self._with_outliers(rows, self.rest.read(rows))

    def dequantized(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Some rows as the passes see them."""
        return self._with_outliers(rows, self.rest.dequantized(rows, dtype))

    def add(
        self,
        rows: slice,
        direction: Tensor,
        rate: float,
        key: RandomKey | None,
        *,
        signs: bool = False,
    ) -> Change:
        """Change some rows: the outliers exactly, the rest as codes are."""
        positions, places = self._positions(rows)
        flat = direction.view(-1)
        self.values[places].add_(flat[positions], alpha=rate)
        flat[positions] = 0.0
        return self.rest.add(rows, direction, rate, key, signs=signs)

    def write(self, rows: slice, values: Tensor, key: RandomKey | None = None) -> None:
        """Replace some rows; which weights are apart stays as it is."""
        positions, places = self._positions(rows)
        flat = values.view(-1)
        self.values[places].copy_(flat[positions])
        flat[positions] = 0.0
        self.rest.write(rows, values, key)

    def begin(self, matrix: Tensor) -> None:
        """Take the largest of new weights apart.

        Args:
            matrix: Float32, shape (rows, columns); the outliers in it become zero.
        """
        flat = matrix.view(-1)
        positions = _largest(flat.abs(), self.values.numel())
        self.values.copy_(flat[positions])
        self._remember(positions)
        flat[positions] = 0.0

    def choose(self, key: RandomKey | None) -> None:
        """Decide anew which weights are apart; one that is no longer becomes a code.

        Needs the whole weight in float32 once.

        Args:
            key: Rounds what becomes a code stochastically; None to nearest.
        """
        every = slice(0, self.num_rows)
        old, _ = self._positions(every)
        values = torch.empty_like(self.values)
        new = _largest(self.read(every).view(-1).abs_(), self.values.numel())
        for rows in self._blocks():
            start, end = rows.start * self.num_columns, rows.stop * self.num_columns
            matrix = self.read(rows)
            change = torch.zeros_like(matrix)
            here, new_places = _within(new, start, end)
            values[new_places] = matrix.view(-1)[here - start]
            gone, gone_values = _without(*_within(old, start, end), self.values, here)
            change.view(-1)[gone - start] = gone_values
            come = here[torch.isin(here, old, invert=True, assume_unique=True)] - start
            change.view(-1)[come] = -matrix.view(-1)[come]
            place = None if key is None else key.of(chunk=rows.start)
            self.rest.add(rows, change, 1.0, place)
        self.values.copy_(values)
        self._remember(new)

    def _blocks(self) -> list[slice]:
        height = self.row_multiple
        return [
            slice(start, min(start + height, self.num_rows))
            for start in range(0, self.num_rows, height)
        ]

    def _remember(self, positions: Tensor) -> None:
        size = self.row_multiple * self.num_columns
        self.counts.copy_(torch.bincount(positions // size, minlength=self.counts.numel()))
        within = positions % size
        if self.offsets.dtype == torch.int16:  # unsigned, in a signed tensor
            within = torch.where(within > _MASK16 >> 1, within - OUTLIER_BLOCK, within)
        self.offsets.copy_(within)

    def _positions(self, rows: slice) -> tuple[Tensor, slice]:
        """Positions of the outliers in the flattened rows, and their places in `values`."""
        height = self.row_multiple
        start, stop, _ = rows.indices(self.num_rows)
        assert start % height == 0, "chunks hold whole blocks"
        first, last = start // height, -(-stop // height)
        ends = self._ends.of(self.counts)
        places = slice(ends[first], ends[last])
        counts = self.counts[first:last]
        bases = torch.arange(last - first, device=counts.device) * (height * self.num_columns)
        offsets = self.offsets[places].long()
        if self.offsets.dtype == torch.int16:
            offsets &= _MASK16
        # With its size known, a GPU need not wait for the counts.
        size = places.stop - places.start
        return offsets + bases.repeat_interleave(counts, output_size=size), places

    def _with_outliers(self, rows: slice, matrix: Tensor) -> Tensor:
        positions, places = self._positions(rows)
        matrix.view(-1)[positions] = self.values[places].to(matrix.dtype)
        return matrix


def _largest(magnitudes: Tensor, count: int) -> Tensor:
    """Positions of the largest, ascending."""
    return magnitudes.topk(count, sorted=False).indices.sort().values


def _within(positions: Tensor, start: int, end: int) -> tuple[Tensor, slice]:
    """The ascending positions in [start, end), and where in the tensor they are."""
    bounds = torch.tensor([start, end], device=positions.device)
    first, last = torch.searchsorted(positions, bounds).tolist()
    return positions[first:last], slice(first, last)


def _without(
    positions: Tensor, places: slice, values: Tensor, others: Tensor
) -> tuple[Tensor, Tensor]:
    """Positions that are not among the others, with their values."""
    alone = torch.isin(positions, others, invert=True, assume_unique=True)
    return positions[alone], values[places][alone]
