"""Whole numbers of fine steps: a code times the fine steps in it, plus a residual.

All functions hold the numbers in float32, which is exact up to 127 * 254 and far beyond.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.quant.int8 import LIMIT, grouped, grow
from engine.quant.randomness import RandomKey
from engine.quant.rounding import round_stochastic


def fine_steps(bits: int) -> int:
    """Fine steps in one step of a code: so many that a residual of `bits` tells them apart."""
    return {4: 16, 8: 254}[bits]


def joined(codes: Tensor, residual: Tensor, steps: int) -> Tensor:
    """Codes and residuals, same shape, as numbers of fine steps."""
    return codes.float().mul_(steps).add_(residual)


def split(fine: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Codes and residuals of numbers of fine steps, in float32; residuals in [-half, half)."""
    codes = fine.add(steps // 2).div_(steps).floor_()
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
        fine: Numbers of fine steps, shape (rows, columns); used up.
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
    grown = grow(moved, scales, key, limit=LIMIT * steps)
    return moved.flatten(-2), grown
