"""Symmetric 8-bit codes with one scale per group of a row, changed by less than one step.

Source of the storage: "QFT: Quantized Full-parameter Tuning of LLMs with Affordable Resources",
section 3. The stochastic update is ours: rounding to nearest loses every change under half a step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.quant.randomness import RandomKey, uniform
from engine.quant.rounding import round_up_to_bfloat16

LIMIT = 127
# Room above the largest weight, so that the first updates do not overflow the codes.
HEADROOM = 1.05
SMALLEST_SCALE = 1e-12
_ROUND, _ROUND_GROWN = 0, 1


def grouped(matrix: Tensor, num_groups: int) -> Tensor:
    """View (rows, columns) as (rows, groups, columns / groups)."""
    return matrix.unflatten(-1, (num_groups, -1))


def scales_of(values: Tensor, num_groups: int, dtype: torch.dtype, headroom: float) -> Tensor:
    """One scale per group so that the largest value fits into the codes.

    Args:
        values: Float32, shape (rows, columns).
        num_groups: Groups per row.
        dtype: bfloat16 (rounded up, so that nothing overflows) or float32.
        headroom: Factor of spare room above the largest value.

    Returns:
        Shape (rows, num_groups).
    """
    largest = grouped(values, num_groups).abs().amax(dim=-1)
    scales = (largest * (headroom / LIMIT)).clamp_(min=SMALLEST_SCALE)
    return round_up_to_bfloat16(scales) if dtype == torch.bfloat16 else scales


def quantize_nearest(values: Tensor, scales: Tensor) -> Tensor:
    """Codes of the nearest storable values.

    Args:
        values: Float32, shape (rows, columns).
        scales: Shape (rows, groups), bfloat16 or float32.

    Returns:
        int8 codes in [-127, 127], shape (rows, columns).
    """
    steps = grouped(values, scales.shape[-1]) / scales.float().unsqueeze(-1)
    return steps.round_().clamp_(-LIMIT, LIMIT).to(torch.int8).flatten(-2)


def dequantize(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Values of codes. An int8 code is exact in bfloat16, so only the product rounds.

    Args:
        codes: int8, shape (rows, columns).
        scales: Shape (rows, groups).
        dtype: Format of the result.
    """
    values = grouped(codes, scales.shape[-1]).to(dtype)
    return values.mul_(scales.to(dtype).unsqueeze(-1)).flatten(-2)


def add_nearest(codes: Tensor, scales: Tensor, change: Tensor) -> None:
    """Add a change and round to the nearest code, in place.

    What is under half a step is lost: this is the published behaviour, kept to be compared with.

    Args:
        codes: int8, shape (rows, columns); changed.
        scales: Shape (rows, groups).
        change: Float32, shape (rows, columns), in units of the weights.
    """
    steps = grouped(change, scales.shape[-1]) / scales.float().unsqueeze(-1)
    moved = steps.add_(grouped(codes, scales.shape[-1])).round_().clamp_(-LIMIT, LIMIT)
    codes.copy_(moved.flatten(-2))


def add_stochastic(codes: Tensor, scales: Tensor, change: Tensor, key: RandomKey) -> None:
    """Add a change to the stored weights, right on average however small it is, in place.

    A group whose codes overflow gets a larger scale and its codes are rounded again.

    Args:
        codes: int8, shape (rows, columns); changed.
        scales: Shape (rows, groups); changed where a group grows.
        change: Float32, shape (rows, columns), in units of the weights.
        key: Decides the random numbers.
    """
    num_groups = scales.shape[-1]
    steps = grouped(change, num_groups) / scales.float().unsqueeze(-1)
    # Rounding the change by itself: added to a code near 100 it would lose its low bits first.
    steps.add_(uniform(tuple(steps.shape), key.of(stream=_ROUND), codes.device)).floor_()
    moved = steps.add_(grouped(codes, num_groups))
    overflow = moved.abs().amax(dim=-1) / LIMIT
    if bool((overflow > 1).any()):
        _grow(moved, scales, overflow, key)
    codes.copy_(moved.clamp_(-LIMIT, LIMIT).flatten(-2))


def _grow(moved: Tensor, scales: Tensor, overflow: Tensor, key: RandomKey) -> None:
    """Give overflowing groups a larger scale; `moved` and `scales` change."""
    old = scales.to(torch.float32, copy=True)
    larger = old * overflow
    new = round_up_to_bfloat16(larger) if scales.dtype == torch.bfloat16 else larger
    grows = overflow > 1
    scales.copy_(torch.where(grows, new, scales))
    ratio = (old / scales.float()).unsqueeze(-1)
    random = uniform(tuple(moved.shape), key.of(stream=_ROUND_GROWN), moved.device)
    rescaled = (moved * ratio).add_(random).floor_()
    moved.copy_(torch.where(grows.unsqueeze(-1), rescaled, moved))
