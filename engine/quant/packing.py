"""Two 4-bit codes in one byte: the even column in the low half."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def pack_nibbles(codes: Tensor) -> Tensor:
    """Halve the width.

    Args:
        codes: uint8 in [0, 15], shape (rows, columns).

    Returns:
        uint8, shape (rows, half of the columns, rounded up).
    """
    even = functional.pad(codes, (0, codes.shape[-1] % 2))
    return even[:, ::2] | (even[:, 1::2] << 4)


def unpack_nibbles(packed: Tensor, columns: int) -> Tensor:
    """The codes again, as int8 in [0, 15], shape (rows, columns)."""
    both = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
    return both[:, :columns].to(torch.int8)
