"""How one tensor is stored. The estimator sums these parts; the engine allocates them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

DType = Literal["float32", "bfloat16", "int32", "int16", "int8", "uint8"]
DTYPE_BYTES: dict[DType, int] = {
    "float32": 4,
    "bfloat16": 2,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
}
PartTerm = Literal["codes", "outliers", "residual"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One real tensor of a layout. `term` is where the forecast counts it."""

    name: str
    dtype: DType
    shape: Shape
    term: PartTerm = "codes"

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
        residual_bits: Bits kept of what a code cannot hold: 0, 1, 4 or 8, packed into bytes.
        outlier_percent: Share of the largest weights kept in float32 beside the codes.

    >>> Int8("row", "bfloat16").nbytes((4, 8))
    40
    >>> Int8(4, "float32").nbytes((4, 8))
    64
    """

    group: Literal["row"] | int
    scale_dtype: DType
    residual_bits: Literal[0, 1, 4, 8] = 0
    outlier_percent: float = 0.0

    def groups_per_row(self, columns: int) -> int:
        """Scales in one row."""
        return groups_per_row(self.group, columns)

    def num_outliers(self, shape: Shape) -> int:
        """Weights kept in float32."""
        return round(math.prod(shape) * self.outlier_percent / 100)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The tensors that one weight of this shape is stored in."""
        rows, columns = matrix_shape(shape)
        parts = [
            Part("codes", "int8", (rows, columns)),
            Part("scales", self.scale_dtype, (rows, self.groups_per_row(columns))),
        ]
        if self.residual_bits:
            width = packed(columns, self.residual_bits)
            parts.append(Part("residual", "uint8", (rows, width), "residual"))
        if count := self.num_outliers(shape):
            blocks = math.ceil(rows / block_rows(columns))
            # A block of rows is small enough for 16 bits, unless one row is larger than that.
            offset: DType = "int16" if columns <= OUTLIER_BLOCK else "int32"
            parts += [
                Part("outlier_values", "float32", (count,), "outliers"),
                Part("outlier_offsets", offset, (count,), "outliers"),
                Part("outlier_counts", "int32", (blocks,), "outliers"),
            ]
        return tuple(parts)

    def nbytes(self, shape: Shape) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts(shape))


@dataclass(frozen=True)
class Int4:
    """Symmetric 4-bit codes, two to a byte, with one float32 scale per group of a row.

    >>> Int4(4).nbytes((4, 8))
    48
    """

    group: int

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The tensors that one moment of this shape is stored in."""
        rows, columns = matrix_shape(shape)
        return (
            Part("codes", "uint8", (rows, packed(columns, 4))),
            Part("scales", "float32", (rows, groups_per_row(self.group, columns))),
        )

    def nbytes(self, shape: Shape) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts(shape))


@dataclass(frozen=True)
class SquareRoot:
    """Unsigned codes of the square root, for AdamW's second moment; 4 bits are two to a byte.

    >>> SquareRoot(8, 4).nbytes((4, 8))
    64
    """

    bits: Literal[8, 4]
    group: int

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The tensors that one moment of this shape is stored in."""
        rows, columns = matrix_shape(shape)
        return (
            Part("codes", "uint8", (rows, packed(columns, self.bits))),
            Part("scales", "float32", (rows, groups_per_row(self.group, columns))),
        )

    def nbytes(self, shape: Shape) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts(shape))


@dataclass(frozen=True)
class Blockwise8:
    """bitsandbytes' 8-bit optimizer state: a scale for 256 values; small tensors stay in float32.

    >>> Blockwise8().nbytes((64, 64))
    4160
    """

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The tensors that one moment of this shape is stored in."""
        count = math.prod(shape)
        if count < _SMALLEST_8BIT:
            return (Part("values", "float32", shape),)
        blocks = math.ceil(count / _STATE_BLOCK)
        return (Part("codes", "uint8", shape), Part("scales", "float32", (blocks,)))

    def nbytes(self, shape: Shape) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts(shape))


@dataclass(frozen=True)
class FourBit:
    """bitsandbytes' NF4 or FP4: two codes to a byte, a scale for 64 weights.

    "QLoRA" (Dettmers et al., 2023), section 3: with double quantization a scale is itself 8 bits,
    with a float32 for 256 of them and their mean. The sixteen values, and the 256 of a scale, are
    kept with each weight.

    >>> round(FourBit(double_quant=True).nbytes((4096, 4096)) * 8 / 4096**2, 3)
    4.127
    """

    double_quant: bool

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The tensors that one weight of this shape is stored in."""
        blocks = math.ceil(math.prod(shape) / _WEIGHT_BLOCK)
        values = Part("code", "float32", (16,))
        codes = Part("codes", "uint8", (math.ceil(math.prod(shape) / 2), 1))
        if not self.double_quant:
            return (codes, Part("absmax", "float32", (blocks,)), values)
        return (
            codes,
            Part("absmax", "uint8", (blocks,)),
            Part("nested_absmax", "float32", (math.ceil(blocks / _STATE_BLOCK),)),
            Part("nested_code", "float32", (256,)),
            Part("offset", "float32", ()),
            values,
        )

    def nbytes(self, shape: Shape) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts(shape))


@dataclass(frozen=True)
class Factored:
    """AdaLomo's second moment: one number for each row and column; whole for a vector.

    "AdaLomo" (Lv et al., 2023), algorithm 1. More than two dimensions are matrices one by one.

    >>> Factored().nbytes((4, 8))
    48
    """

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The tensors that the moment of a weight of this shape is stored in."""
        if len(shape) < 2:
            return (Part("values", "float32", shape),)
        matrices = math.prod(shape[:-2])
        return (
            Part("rows", "float32", (matrices * shape[-2],)),
            Part("columns", "float32", (matrices * shape[-1],)),
        )

    def nbytes(self, shape: Shape) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts(shape))


# bitsandbytes' own: weights that share a scale, values of a state that do, smallest 8-bit state.
_WEIGHT_BLOCK, _STATE_BLOCK, _SMALLEST_8BIT = 64, 256, 4096
Layout = Dense | Int8 | Int4 | SquareRoot | Blockwise8 | FourBit | Factored
# Weights in a block of outlier positions: what 16 bits can tell apart.
OUTLIER_BLOCK = 1 << 16


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """Rows and columns of a tensor seen as a matrix; a scalar is one by one."""
    return math.prod(shape[:-1]), (shape[-1] if shape else 1)


def groups_per_row(group: Literal["row"] | int, columns: int) -> int:
    """Scales in one row: one, where the row is no multiple of the group."""
    if group == "row" or columns % group:
        return 1
    return columns // group


def packed(columns: int, bits: int) -> int:
    """Bytes of a row of codes of 1, 4 or 8 bits."""
    return math.ceil(columns * bits / 8)


def row_chunks(shape: Shape, elements: int) -> list[tuple[int, int]]:
    """Chunks of about so many elements, alike in size: first row and the row behind the last.

    They begin at multiples of 256 elements, so that no block of an 8-bit state is cut.

    >>> row_chunks((10, 256), 1000)
    [(0, 4), (4, 8), (8, 10)]
    """
    rows, columns = matrix_shape(shape)
    count = max(1, math.ceil(rows * columns / elements))
    multiple = _STATE_BLOCK // math.gcd(_STATE_BLOCK, columns)
    size = math.ceil(math.ceil(rows / count) / multiple) * multiple
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def block_rows(columns: int) -> int:
    """Whole rows in a block of outlier positions."""
    return max(1, OUTLIER_BLOCK // columns)
