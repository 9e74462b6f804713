"""Unsigned codes of the square root of a second moment.

AdamW divides by the root, so the root is what is worth its bits. No code but that of an untouched
moment is zero: dividing by it would throw the weight away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.quant.int8 import SMALLEST_SCALE, grouped
from engine.quant.packing import pack, unpack
from engine.quant.randomness import RandomKey
from engine.quant.rounding import round_stochastic


def largest_code(bits: int) -> int:
    """255 for 8 bits, 15 for 4."""
    return (1 << bits) - 1


def dequantize(codes: Tensor, scales: Tensor, columns: int, bits: int) -> Tensor:
    """Second moments, float32, shape (rows, columns).

    Args:
        codes: uint8, shape (rows, columns), or half of the columns for 4 bits.
        scales: Float32, shape (rows, groups).
        columns: Of the result.
        bits: 8 or 4.
    """
    roots = unpack(codes, columns, bits).float()
    return grouped(roots, scales.shape[-1]).mul_(scales.unsqueeze(-1)).square_().flatten(-2)


def quantize(
    values: Tensor, num_groups: int, key: RandomKey | None, bits: int
) -> tuple[Tensor, Tensor]:
    """Codes and scales; roots are rounded stochastically where a key is given.

    Args:
        values: Not negative, float32, shape (rows, columns); used up.
        num_groups: Groups per row.
        key: Decides the random numbers.
        bits: 8 or 4; 4 are packed.
    """
    roots = grouped(values.sqrt_(), num_groups)
    scales = roots.amax(dim=-1).div_(largest_code(bits)).clamp_(min=SMALLEST_SCALE)
    steps = roots.div_(scales.unsqueeze(-1))
    if key is None:
        steps.round_()
    else:
        round_stochastic(steps, key)
    codes = steps.clamp_(1, largest_code(bits)).to(torch.uint8).flatten(-2)
    return pack(codes, bits), scales
