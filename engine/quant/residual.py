"""Whole numbers of fine steps: a code times the fine steps in it, plus a residual.

Half of the residuals lie above their code and half below, so that the codes alone, which the passes
see, are no smaller or larger than the whole on average. Numbers are held in float32, which is exact
up to 127 * 256 and far beyond.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.quant.int8 import LIMIT, drawn_steps, grouped, grow, overflowing_rows
from engine.quant.randomness import RandomKey
from engine.quant.rounding import round_stochastic


def fine_steps(bits: int) -> int:
    """Fine steps in one step of a code, which a residual of `bits` tells apart."""
    return 1 << bits


def zero_of(steps: int) -> float:
    """The number of fine steps that stands for a weight of zero."""
    return (steps - 1) / 2


def joined(codes: Tensor, residual: Tensor, steps: int) -> Tensor:
    """Codes and residuals, same shape, as numbers of fine steps."""
    return codes.float().mul_(steps).add_(residual)


def split(fine: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Codes and residuals of numbers of fine steps, in float32; residuals in [0, steps)."""
    codes = (fine / steps).floor_()
    return codes, torch.sub(fine, codes, alpha=steps)


def add_fine(
    fine: Tensor,
    scales: Tensor,
    direction: Tensor,
    rate: float,
    key: RandomKey | None,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Add a change and round it to whole fine steps.

    Args:
        fine: Numbers of fine steps, shape (rows, columns).
        scales: Of the codes, shape (rows, groups); changed where a group grows.
        direction: The change divided by `rate`, float32, same shape; used up.
        rate: In units of the weights.
        key: Rounds stochastically; None to nearest.
        steps: Fine steps in a code.

    Returns:
        The new numbers, and how many groups have grown.
    """
    num_groups = scales.shape[-1]
    change = grouped(direction, num_groups).mul_((rate * steps) / scales.float().unsqueeze(-1))
    if key is None:
        change.round_()
    else:
        round_stochastic(change, key)
    moved = change.add_(grouped(fine, num_groups))
    grown = _grow_fine(moved, scales, key, steps)
    return moved.flatten(-2), grown


def move_halves(
    codes: Tensor, halves: Tensor, scales: Tensor, signs: Tensor, rate: float, key: RandomKey
) -> tuple[Tensor, Tensor | int] | None:
    """`add_fine` for a residual of one bit, where every change is `rate`, minus `rate` or none.

    Args:
        codes: int8, shape (rows, columns); changed.
        halves: The residual, int8, 0 or 1, same shape; changed.
        scales: Shape (rows, groups); changed where a group grows.
        signs: -1, 0 or 1, float32, shape (rows, columns).
        rate: In units of the weights.
        key: Decides the random numbers.

    Returns:
        By how much each code moved, int8, and how many groups have grown; None, and nothing
        changed, if the change is not always under a fine step.
    """
    steps = drawn_steps(scales, signs, 2 * rate, key)
    if steps is None:
        return None
    halves.add_(steps)
    carry = halves >> 1  # -1 becomes -1, 0 and 1 become 0, 2 becomes 1
    halves.bitwise_and_(1)
    codes.add_(carry)
    rows = overflowing_rows(codes)
    if rows is None:
        return carry, 0
    few = scales[rows]
    before = codes[rows] - carry[rows]
    moved = joined(before.float().add_(carry[rows]), halves[rows], 2)
    moved = grouped(moved, few.shape[-1])
    grown = _grow_fine(moved, few, key, 2)
    kept, residual = split(moved.flatten(-2), 2)
    codes[rows], halves[rows], scales[rows] = kept.to(torch.int8), residual.to(torch.int8), few
    return carry, grown


def _grow_fine(moved: Tensor, scales: Tensor, key: RandomKey | None, steps: int) -> Tensor:
    zero = zero_of(steps)
    return grow(moved, scales, key, limit=LIMIT * steps + zero, zero=zero)
