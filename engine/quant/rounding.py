"""Stochastic rounding: up with probability equal to the fraction, so that it is unbiased."""

from __future__ import annotations

import torch
from torch import Tensor

_LOW_BITS = 1 << 16


def round_up_to_bfloat16(values: Tensor) -> Tensor:
    """The smallest bfloat16 not below each positive float32 value."""
    rounded = values.to(torch.bfloat16)
    short = rounded.float() < values
    # One more in the bit pattern is the next larger number, for positive finite values.
    return (rounded.view(torch.int16) + short.to(torch.int16)).view(torch.bfloat16)


def stochastic_bfloat16(values: Tensor, random: Tensor) -> Tensor:
    """Round float32 to bfloat16 so that the mean of many roundings is the value.

    Args:
        values: Float32, any shape.
        random: Uniform numbers in [0, 1), same shape.

    Returns:
        Bfloat16. A float32 is 16 high bits, which bfloat16 keeps, and 16 low bits: adding a random
        number of 16 bits carries into the high ones with probability low / 65536.
        Infinity and NaN stay as they are.
    """
    bits = values.view(torch.int32)
    noise = (random * _LOW_BITS).to(torch.int32)
    carried = (bits + noise).bitwise_and_(-_LOW_BITS).view(torch.float32)
    return torch.where(torch.isfinite(values), carried, values).to(torch.bfloat16)
