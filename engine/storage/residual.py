"""8-bit codes, and a few bits of what they cannot hold.

A weight is scale * (code + residual / steps). The passes see the codes alone; updates move the
whole, so a change far under one code adds up exactly instead of on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.quant import int8
from engine.quant.packing import pack_nibbles, unpack_nibbles
from engine.quant.randomness import RandomKey
from engine.quant.residual import add_fine, fine_steps, joined, split
from engine.storage.int8 import Int8Storage
from engine.storage.protocol import Change


@dataclass(frozen=True)
class ResidualStorage(Int8Storage):
    """Codes, scales and residuals: int8, or 4 bits, two to a byte."""

    residual: Tensor

    @property
    def _bits(self) -> int:
        return 4 if self.residual.dtype == torch.uint8 else 8

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live."""
        return {**super().tensors(), "residual": self.residual}

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, residuals included."""
        fine = self._fine(rows).div_(fine_steps(self._bits))
        grouped = int8.grouped(fine, self.scales.shape[-1])
        return grouped.mul_(self.scales[rows].float().unsqueeze(-1)).flatten(-2)

    def write(self, rows: slice, values: Tensor, key: RandomKey | None = None) -> None:
        """Replace some rows and their scales, rounding to the nearest fine step."""
        del key
        scales = int8.scales_of(
            values, self.scales.shape[-1], self.scales.dtype, headroom=int8.HEADROOM
        )
        self.scales[rows].copy_(scales)
        grouped = int8.grouped(values, scales.shape[-1])
        fine = grouped.mul_(fine_steps(self._bits)).div_(scales.float().unsqueeze(-1)).round_()
        self._keep(rows, fine.flatten(-2))

    def add(
        self,
        rows: slice,
        direction: Tensor,
        rate: float,
        key: RandomKey | None,
        *,
        signs: bool = False,
    ) -> Change:
        """Change some rows by whole fine steps; stochastic where a key is given."""
        del signs
        before = self.codes[rows].clone()
        moved, grown = add_fine(
            self._fine(rows), self.scales[rows], direction, rate, key, fine_steps(self._bits)
        )
        self._keep(rows, moved)
        return Change(torch.count_nonzero(before != self.codes[rows]), grown)

    def _fine(self, rows: slice) -> Tensor:
        """Codes and residuals as one whole number of fine steps, float32."""
        residual = self.residual[rows]
        if self._bits == 4:
            residual = unpack_nibbles(residual, self.num_columns).sub_(8)
        return joined(self.codes[rows], residual, fine_steps(self._bits))

    def _keep(self, rows: slice, fine: Tensor) -> None:
        codes, residual = split(fine, fine_steps(self._bits))
        self.codes[rows].copy_(codes)
        if self._bits == 4:
            self.residual[rows].copy_(pack_nibbles(residual.add_(8).to(torch.uint8)))
        else:
            self.residual[rows].copy_(residual)
