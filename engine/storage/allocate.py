"""From a layout to real tensors, exactly as the forecast counts them."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.memory.layout import Dense, Int4, Int8, Layout, Part, Shape, SquareRoot, matrix_shape
from engine.quant.int8 import HEADROOM, SMALLEST_SCALE, quantize_nearest, scales_of
from engine.storage.dense import DenseStorage
from engine.storage.int8 import Int8Storage
from engine.storage.moments import Int4Storage, SquareRootStorage
from engine.storage.outliers import OutlierStorage
from engine.storage.protocol import Storage, WeightStorage
from engine.storage.residual import ResidualStorage

# Weights that are quantized at once, so that loading needs no second model in float32.
_FILL_ELEMENTS = 1 << 22
_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
}


def allocate(layout: Layout, shape: Shape, device: torch.device) -> Storage:
    """Zeros: a moment or a gradient.

    Args:
        layout: How it is stored.
        shape: Of the weight that it belongs to.
        device: Where.
    """
    parts = {part.name: _zeros(part, device) for part in layout.parts(shape)}
    if isinstance(layout, Dense):
        return DenseStorage(parts["values"])
    if isinstance(layout, Int8):
        return _int8(layout, shape, parts)
    columns = matrix_shape(shape)[1]
    # Four bits around zero: the code in the middle.
    if isinstance(layout, Int4):
        parts["codes"].fill_(0x88)
        return Int4Storage(parts["codes"], parts["scales"], columns)
    assert isinstance(layout, SquareRoot), "the others are a library's own"
    return SquareRootStorage(parts["codes"], parts["scales"], columns, layout.bits)


def quantized(layout: Int8, weight: Tensor, device: torch.device) -> WeightStorage:
    """A weight matrix as codes, with room to grow where rounding is stochastic.

    Args:
        layout: Group and format of the scales, residual and outliers.
        weight: Any floating dtype, two or more dimensions.
        device: Where the codes go.
    """
    shape = tuple(weight.shape)
    parts = {part.name: _zeros(part, device) for part in layout.parts(shape)}
    storage = _int8(layout, shape, parts)
    rows, columns = matrix_shape(shape)
    matrix = weight.detach() if weight.ndim == 2 else weight.detach().reshape(rows, columns)
    if isinstance(storage, OutlierStorage):  # the largest weights are known from all of them
        values = torch.empty((rows, columns), dtype=torch.float32, device=device).copy_(matrix)
        storage.begin(values)
        _fill(storage.rest, layout, slice(0, rows), values)
        return storage
    size = max(1, _FILL_ELEMENTS // columns)
    for start in range(0, rows, size):
        some = slice(start, min(start + size, rows))
        _fill(storage, layout, some, matrix[some].to(device, torch.float32, copy=True))
    return storage


def _fill(storage: Int8Storage, layout: Int8, rows: slice, values: Tensor) -> None:
    if isinstance(storage, ResidualStorage) or layout.scale_dtype == "float32":
        storage.write(rows, values)
        return
    scales = scales_of(values, storage.scales.shape[-1], storage.scales.dtype, HEADROOM)
    storage.scales[rows].copy_(scales)
    storage.codes[rows].copy_(quantize_nearest(values, scales))


def _int8(layout: Int8, shape: Shape, parts: dict[str, Tensor]) -> Int8Storage | OutlierStorage:
    codes, scales = parts["codes"], parts["scales"].fill_(SMALLEST_SCALE)
    rest = (
        ResidualStorage(codes, scales, parts["residual"], layout.residual_bits)
        if layout.residual_bits
        else Int8Storage(codes, scales)
    )
    if not layout.num_outliers(shape):
        return rest
    return OutlierStorage(
        rest, parts["outlier_values"], parts["outlier_offsets"], parts["outlier_counts"]
    )


def _zeros(part: Part, device: torch.device) -> Tensor:
    return torch.zeros(part.shape, dtype=_DTYPES[part.dtype], device=device)
