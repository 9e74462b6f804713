"""Several small codes in one byte, the first in the lowest bits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def pack(codes: Tensor, bits: int) -> Tensor:
    """Make rows narrower.

    Args:
        codes: uint8, less than 2 to the power of `bits`, shape (rows, columns).
        bits: 1, 4 or 8.

    Returns:
        uint8, shape (rows, bytes of a row).
    """
    if bits == 8:
        return codes
    if bits == 1 and codes.device.type == "cpu":  # many times as fast
        return torch.from_numpy(np.packbits(codes.numpy(), axis=-1, bitorder="little"))
    in_byte = 8 // bits
    padded = functional.pad(codes, (0, -codes.shape[-1] % in_byte)).unflatten(-1, (-1, in_byte))
    packed = padded[..., 0].clone()
    for place in range(1, in_byte):
        packed |= padded[..., place] << (bits * place)
    return packed


def unpack(packed: Tensor, columns: int, bits: int) -> Tensor:
    """The codes again, uint8, shape (rows, columns)."""
    if bits == 8:
        return packed
    if bits == 1 and packed.device.type == "cpu":
        found = np.unpackbits(packed.numpy(), axis=-1, count=columns, bitorder="little")
        return torch.from_numpy(found)
    mask = (1 << bits) - 1
    places = [(packed >> shift) & mask for shift in range(0, 8, bits)]
    return torch.stack(places, dim=-1).flatten(-2)[:, :columns]
