"""4-bit codes with one scale per group of a row, for an optimizer's first moment.

A code is a sign and a power of two: 0, 1/64, 1/32 ... 1/2 or all of the group's largest. Most
moments are far smaller than the largest, and even steps would keep little of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.quant.int8 import grouped, scales_of
from engine.quant.packing import pack, unpack
from engine.quant.randomness import RandomKey, random_bits

LIMIT = 7
_OFFSET = 8
_SMALLEST = 2.0 ** (1 - LIMIT)
# A float32 is sign, exponent and 23 bits of mantissa; an exponent of zero is stored as 127.
_MANTISSA_BITS, _BIAS = 23, 127
_HALF = 1 << 15


def dequantize(codes: Tensor, scales: Tensor, columns: int) -> Tensor:
    """Values of packed codes, float32, shape (rows, columns).

    Args:
        codes: uint8, shape (rows, half of the columns).
        scales: Float32, shape (rows, groups).
        columns: How many, as an odd last one is packed with nothing.
    """
    powers = unpack(codes, columns, 4).float().sub_(_OFFSET)
    levels = powers.sign().mul_(powers.abs_().sub_(LIMIT).exp2_())
    return grouped(levels, scales.shape[-1]).mul_(scales.unsqueeze(-1)).flatten(-2)


def quantize(values: Tensor, num_groups: int, key: RandomKey | None) -> tuple[Tensor, Tensor]:
    """Packed codes and scales.

    Args:
        values: Float32, shape (rows, columns); used up.
        num_groups: Groups per row.
        key: Rounds stochastically to one of the two neighbouring levels, so that the mean is the
            value; None to the nearer one.
    """
    scales = scales_of(values, num_groups, torch.float32, headroom=127)
    levels = grouped(values, num_groups).div_(scales.unsqueeze(-1))
    signs, sizes = levels.sign(), levels.abs_()
    noise = (
        torch.full_like(sizes, _HALF, dtype=torch.int32)
        if key is None
        else random_bits(sizes.numel(), key, sizes.device).view(sizes.shape)
    )
    # The mantissa is how far a value is on its way to the next power: noise carries it there.
    carried = sizes.view(torch.int32) + (noise << (_MANTISSA_BITS - 16))
    powers = (carried >> _MANTISSA_BITS).sub_(_BIAS - LIMIT).float()
    tiny = (sizes / _SMALLEST).add_(noise, alpha=1 / (2 * _HALF)).floor_()
    powers = torch.where(sizes < _SMALLEST, tiny, powers).clamp_(max=LIMIT)
    codes = powers.mul_(signs).add_(_OFFSET).to(torch.uint8)
    return pack(codes.flatten(-2), 4), scales
