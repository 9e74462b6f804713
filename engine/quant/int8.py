"""Symmetric 8-bit codes with one scale per group of a row, changed by less than one step.

Source of the storage: "QFT: Quantized Full-parameter Tuning of LLMs with Affordable Resources",
section 3. The stochastic update is ours: rounding to nearest loses every change under half a step.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.quant.randomness import RandomKey, happens
from engine.quant.rounding import round_stochastic, round_up_to_bfloat16

LIMIT = 127
# Room above the largest weight, so that the first updates do not overflow the codes.
HEADROOM = 1.05
SMALLEST_SCALE = 1e-12
_ROUND_GROWN = 1
_NO_CODE = -128
# Eight random bits cannot tell a larger probability from one.
_SURELY_ONE = 1 - 2**-6


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
    scales = _largest(grouped(values, num_groups)).mul_(headroom / LIMIT)
    scales.clamp_(min=SMALLEST_SCALE)
    return round_up_to_bfloat16(scales) if dtype == torch.bfloat16 else scales


def _largest(groups: Tensor) -> Tensor:
    """The largest magnitude of each group, without a tensor of all magnitudes."""
    # Not `aminmax`: along a dimension it is three times as slow on a CPU as both by themselves.
    return torch.maximum(groups.amax(dim=-1), groups.amin(dim=-1).neg_())


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
    values = grouped(codes.to(dtype), scales.shape[-1])
    return values.mul_(scales.to(dtype).unsqueeze(-1)).flatten(-2)


def requantize(codes: Tensor, scales: Tensor, values: Tensor, key: RandomKey | None = None) -> None:
    """Round values to codes of scales that fit them, in place.

    Args:
        codes: int8, shape (rows, columns); replaced.
        scales: Shape (rows, groups); replaced.
        values: Float32, shape (rows, columns); used up.
        key: Rounds stochastically; None to nearest.
    """
    num_groups = scales.shape[-1]
    scales.copy_(scales_of(values, num_groups, scales.dtype, headroom=1.0))
    # A product may end one rounding error above the limit; it still rounds to the limit.
    steps = grouped(values, num_groups).mul_(scales.float().reciprocal().unsqueeze(-1))
    if key is None:
        steps.round_()
    else:
        round_stochastic(steps, key).clamp_(-LIMIT, LIMIT)
    codes.copy_(steps.flatten(-2))


def add_stochastic(
    codes: Tensor, scales: Tensor, direction: Tensor, rate: float, key: RandomKey
) -> tuple[Tensor, Tensor]:
    """Add a change to the stored weights, right on average however small it is, in place.

    A group whose codes overflow gets a larger scale and its codes are rounded again.

    Args:
        codes: int8, shape (rows, columns); changed.
        scales: Shape (rows, groups); changed where a group grows.
        direction: The change divided by `rate`, float32, shape (rows, columns); used up.
        rate: In units of the weights.
        key: Decides the random numbers.

    Returns:
        How many codes moved, and how many groups have grown.
    """
    num_groups = scales.shape[-1]
    steps = grouped(direction, num_groups).mul_(rate / scales.float().unsqueeze(-1))
    # Rounding the change by itself: added to a code near 100 it would lose its low bits first.
    round_stochastic(steps, key)
    changed = torch.count_nonzero(steps)
    moved = steps.add_(grouped(codes, num_groups))
    grown = grow(moved, scales, key, limit=LIMIT)
    codes.copy_(moved.flatten(-2))
    return changed, grown


def move_by_signs(
    codes: Tensor, scales: Tensor, signs: Tensor, rate: float, key: RandomKey
) -> tuple[Tensor | int, Tensor | int]:
    """`add_stochastic` where every change is `rate`, minus `rate` or none at all, as Lion's is.

    Then all that is random is whether a code moves by one, which takes half the time.

    Args:
        codes: int8, shape (rows, columns); changed.
        scales: Shape (rows, groups); changed where a group grows.
        signs: -1, 0 or 1, float32, shape (rows, columns); used up.
        rate: In units of the weights.
        key: Decides the random numbers.

    Returns:
        How many codes moved, and how many groups have grown.
    """
    steps = drawn_steps(scales, signs, rate, key)
    if steps is None:
        return add_stochastic(codes, scales, signs, rate, key)
    codes.add_(steps)
    changed, rows = count_changed(steps), overflowing_rows(codes)
    if rows is None:
        return changed, 0
    few, num_groups = scales[rows], scales.shape[-1]
    before = codes[rows] - steps[rows]
    moved = grouped(before.float().add_(steps[rows]), num_groups)
    grown = grow(moved, few, key, limit=LIMIT)
    codes[rows], scales[rows] = moved.flatten(-2).to(torch.int8), few
    return changed, grown


def drawn_steps(scales: Tensor, signs: Tensor, rate: float, key: RandomKey) -> Tensor | None:
    """Steps of -1, 0 and 1 that are on average `rate * signs / scales`.

    Args:
        scales: Size of a step, shape (rows, groups).
        signs: -1, 0 or 1, float32, shape (rows, columns).
        rate: In units of the weights.
        key: Decides the random numbers.

    Returns:
        int8, shape (rows, columns); None if somewhere a step would have to be longer.
    """
    size = (abs(rate) / scales.float()).unsqueeze(-1)
    if float(size.max()) > _SURELY_ONE:
        return None
    moves = happens(size, grouped(signs, scales.shape[-1]).shape, key)
    steps = signs.to(torch.int8).mul_(moves.view(signs.shape).view(torch.int8))
    return steps.neg_() if rate < 0 else steps


def overflowing_rows(codes: Tensor) -> Tensor | None:
    """Rows in which codes that moved by one have left their range; None if there are none.

    Both limits overflow into the one int8 that is no code.
    """
    if int(codes.amin()) > _NO_CODE:
        return None
    return (codes.amin(dim=-1) == _NO_CODE).nonzero().squeeze(-1)


def count_changed(steps: Tensor) -> Tensor | int:
    """Numbers that are not zero, of int8; on a CPU without going through torch's slow way."""
    if steps.device.type == "cpu":
        return int(np.count_nonzero(steps.numpy()))
    return torch.count_nonzero(steps)


def grow(
    moved: Tensor, scales: Tensor, key: RandomKey | None, limit: float, zero: float = 0.0
) -> Tensor:
    """Give groups that overflow a larger scale, in place.

    Args:
        moved: Whole numbers of steps, float32, shape (rows, groups, columns / groups).
        scales: Shape (rows, groups).
        key: Rounds the rescaled numbers stochastically; None to nearest.
        limit: Largest distance from `zero` that can be stored.
        zero: The number of steps that stands for a weight of zero.

    Returns:
        How many groups have grown, a scalar.
    """
    low, high = torch.aminmax(moved)
    if bool(torch.maximum(zero - low, high - zero) <= limit):
        return torch.zeros((), dtype=torch.int64, device=moved.device)
    overflow = _largest(moved - zero).div_(limit)
    grows = overflow > 1
    # A few rows at most, so only they are worked on.
    rows = grows.any(dim=-1).nonzero().squeeze(-1)
    old = scales[rows].float()
    larger = torch.where(grows[rows], old * overflow[rows], old)
    scales[rows] = round_up_to_bfloat16(larger) if scales.dtype == torch.bfloat16 else larger
    ratio = (old / scales[rows].float()).unsqueeze(-1)
    rescaled = (moved[rows] - zero).mul_(ratio).add_(zero)
    if key is None:
        rescaled.round_()
    else:
        round_stochastic(rescaled, key.of(stream=_ROUND_GROWN))
    moved[rows] = rescaled.clamp_(zero - limit, zero + limit)
    return torch.count_nonzero(grows)
