"""One trained weight: where it is stored, with all that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.memory.layout import Layout
from engine.memory.plans import MemoryPlan
from engine.storage.protocol import Storage, WeightStorage

EVERY = slice(0, None)


@dataclass(frozen=True)
class TrainedWeight:
    """A weight, stored as a matrix (outputs, inputs), or tokens by width for a table.

    Attributes:
        name: In the original model.
        number: Keys its random numbers.
        shape: In the original model.
        transposed: Whether the original is stored (inputs, outputs).
        storage: The weight itself.
        moments: Of the optimizer, in the order of its paper.
        gradient: How a gradient that has to wait is stored.
        decays: Whether weight decay pulls it to zero; norms and biases do not decay.
        num_holders: Layers that share it, each of which hands on a gradient of its own.
    """

    name: str
    number: int
    shape: tuple[int, ...]
    transposed: bool
    storage: WeightStorage
    moments: tuple[Storage, ...]
    gradient: Layout
    decays: bool
    num_holders: int = 1

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of the matrix as it is stored."""
        return self.shape[::-1] if self.transposed else self.shape

    @property
    def device(self) -> torch.device:
        """Where it is stored."""
        return next(iter(self.storage.tensors().values())).device

    def chunks(self, within: slice = EVERY) -> list[slice]:
        """Whole rows, few enough that the temporaries of an update stay bounded.

        Args:
            within: Only these, one of `product_chunks`.
        """
        return _cut(within.start, within.stop or self.storage.num_rows, self._chunk_rows)

    def product_chunks(self, most: int | None = None) -> list[slice]:
        """Whole chunks, few enough for one product of a pass.

        Args:
            most: Rows that one product should have at most; one chunk always has its place.
        """
        wanted = MemoryPlan.product_elements(self.device.type) // self.storage.num_columns
        wanted = wanted if most is None else min(wanted, most)
        size = max(self._chunk_rows, wanted - wanted % self._chunk_rows)
        return _cut(0, self.storage.num_rows, size)

    @property
    def _chunk_rows(self) -> int:
        wanted = max(1, MemoryPlan.chunk_elements(self.device.type) // self.storage.num_columns)
        multiple = self.storage.row_multiple
        return max(multiple, wanted - wanted % multiple)

    def original(self, matrix: Tensor) -> Tensor:
        """A matrix as it is stored, in the shape of the original."""
        values = matrix.view(self.stored_shape)
        return values.T.contiguous() if self.transposed else values

    def values(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight as the passes see it, in the shape of the original."""
        return self.original(self.storage.dequantized(EVERY, dtype))


def _cut(start: int, stop: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]
