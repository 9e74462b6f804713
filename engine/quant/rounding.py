"""Stochastic rounding: up with probability equal to the fraction, so that it is unbiased."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.quant.randomness import RandomKey, add_uniform, random_bits

_LOW_BITS = 1 << 16


def round_stochastic(values: Tensor, key: RandomKey) -> Tensor:
    """Round to whole numbers so that the mean of many roundings is the value, in place.

    Args:
        values: Float32, any shape with rows first.
        key: Decides the random numbers.
    """
    return add_uniform(values, key).floor_()


def round_up_to_bfloat16(values: Tensor) -> Tensor:
    """The smallest bfloat16 not below each positive float32 value."""
    rounded = values.to(torch.bfloat16)
    short = rounded.float() < values
    # One more in the bit pattern is the next larger number, for positive finite values.
    return (rounded.view(torch.int16) + short.to(torch.int16)).view(torch.bfloat16)


def stochastic_bfloat16(values: Tensor, key: RandomKey) -> Tensor:
    """Round float32 to bfloat16 so that the mean of many roundings is the value.

    Args:
        values: Float32, any shape; finite, or else they are rounded to nearest.
        key: Decides the random numbers.

    Returns:
        Bfloat16. A float32 is 16 high bits, which bfloat16 keeps, and 16 low bits: adding a random
        number of 16 bits carries into the high ones with probability low / 65536.
    """
    noise = random_bits(values.numel(), key, values.device).view(values.shape)
    carried = noise.add_(values.view(torch.int32)).bitwise_and_(-_LOW_BITS).view(torch.float32)
    # Asking a GPU would wait for it; there it is cheaper to do it always.
    if values.device.type != "cpu" or not bool(torch.isfinite(values.sum())):
        carried = torch.where(torch.isfinite(values), carried, values)
    return carried.to(torch.bfloat16)
