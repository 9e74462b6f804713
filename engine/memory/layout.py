"""How one tensor is stored. The estimator sums these parts; the engine allocates them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

DType = Literal["float32", "bfloat16", "int8"]
DTYPE_BYTES: dict[DType, int] = {"float32": 4, "bfloat16": 2, "int8": 1}
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One real tensor of a layout."""

    name: str
    dtype: DType
    shape: Shape

    @property
    def nbytes(self) -> int:
        """Bytes of this tensor."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Dense:
    """Stored as it is, in one floating-point format.

    >>> Dense("bfloat16").nbytes((4, 8))
    64
    """

    dtype: DType

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The tensors that one weight of this shape is stored in."""
        return (Part("values", self.dtype, shape),)

    def nbytes(self, shape: Shape) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts(shape))


@dataclass(frozen=True)
class Int8:
    """Symmetric 8-bit codes with one scale per group of consecutive weights in a row.

    More than two dimensions are stored as a matrix with the last dimension as the row.

    Attributes:
        group: Weights per scale, or `row` for one scale per output row. Where the row's length
            is no multiple of it, the row is the group.
        scale_dtype: Format of the scales.

    >>> Int8("row", "bfloat16").nbytes((4, 8))
    40
    >>> Int8(4, "float32").nbytes((4, 8))
    64
    """

    group: Literal["row"] | int
    scale_dtype: DType

    def groups_per_row(self, columns: int) -> int:
        """Scales in one row."""
        if self.group == "row" or columns % self.group:
            return 1
        return columns // self.group

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The tensors that one weight of this shape is stored in."""
        rows, columns = math.prod(shape[:-1]), shape[-1]
        return (
            Part("codes", "int8", (rows, columns)),
            Part("scales", self.scale_dtype, (rows, self.groups_per_row(columns))),
        )

    def nbytes(self, shape: Shape) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts(shape))


Layout = Dense | Int8
