"""Symmetric 4-bit codes with one scale per group of a row, for an optimizer's first moment."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.quant.int8 import grouped, scales_of
from engine.quant.packing import pack_nibbles, unpack_nibbles
from engine.quant.randomness import RandomKey
from engine.quant.rounding import round_stochastic

LIMIT = 7
_OFFSET = 8


def dequantize(codes: Tensor, scales: Tensor, columns: int) -> Tensor:
    """Values of packed codes, float32, shape (rows, columns).

    Args:
        codes: uint8, shape (rows, half of the columns).
        scales: Float32, shape (rows, groups).
        columns: How many, as an odd last one is packed with nothing.
    """
    values = unpack_nibbles(codes, columns).sub_(_OFFSET).float()
    return grouped(values, scales.shape[-1]).mul_(scales.unsqueeze(-1)).flatten(-2)


def quantize(values: Tensor, num_groups: int, key: RandomKey | None) -> tuple[Tensor, Tensor]:
    """Packed codes and scales.

    Rounded stochastically where a key is given: to nearest, a moment under a fourteenth of its
    group's largest would be forgotten at once.

    Args:
        values: Float32, shape (rows, columns); used up.
        num_groups: Groups per row.
        key: Decides the random numbers.
    """
    scales = scales_of(values, num_groups, torch.float32, headroom=127 / LIMIT)
    steps = grouped(values, num_groups).div_(scales.unsqueeze(-1))
    if key is None:
        steps.round_()
    else:
        round_stochastic(steps, key)
    codes = steps.clamp_(-LIMIT, LIMIT).add_(_OFFSET).to(torch.uint8)
    return pack_nibbles(codes.flatten(-2)), scales
