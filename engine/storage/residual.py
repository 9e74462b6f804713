"""8-bit codes, and a few bits of what they cannot hold.

The passes see the codes alone; updates move the whole. With more bits, less of an update is random.
One bit halves the steps that an update is rounded to, and so halves the noise that it adds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.quant import int8
from engine.quant.packing import pack, unpack
from engine.quant.randomness import RandomKey
from engine.quant.residual import add_fine, fine_steps, joined, move_halves, split, zero_of
from engine.storage.int8 import Int8Storage
from engine.storage.protocol import Change


@dataclass(frozen=True)
class ResidualStorage(Int8Storage):
    """Codes, scales and residuals of 1, 4 or 8 bits, packed into bytes."""

    residual: Tensor
    bits: int

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live."""
        return {**super().tensors(), "residual": self.residual}

    def read(self, rows: slice) -> Tensor:
        """Some rows in float32, residuals included."""
        steps = fine_steps(self.bits)
        whole = int8.grouped(self._fine(rows), self.scales.shape[-1])
        sizes = (self.scales[rows].float() / steps).unsqueeze(-1)
        return whole.sub_(zero_of(steps)).mul_(sizes).flatten(-2)

    def write(self, rows: slice, values: Tensor, key: RandomKey | None = None) -> None:
        """Replace some rows and their scales, rounding to the nearest fine step."""
        del key
        steps = fine_steps(self.bits)
        scales = int8.scales_of(
            values, self.scales.shape[-1], self.scales.dtype, headroom=int8.HEADROOM
        )
        self.scales[rows].copy_(scales)
        whole = int8.grouped(values, scales.shape[-1]).div_(scales.float().unsqueeze(-1))
        self._keep(rows, whole.mul_(steps).add_(zero_of(steps)).round_().flatten(-2))

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
        if signs and self.bits == 1 and key is not None:
            change = self._add_signs(rows, direction, rate, key)
            if change is not None:
                return change
        before = self.codes[rows].clone()
        moved, grown = add_fine(
            self._fine(rows), self.scales[rows], direction, rate, key, fine_steps(self.bits)
        )
        self._keep(rows, moved)
        return Change(torch.count_nonzero(before != self.codes[rows]), grown)

    def _add_signs(self, rows: slice, signs: Tensor, rate: float, key: RandomKey) -> Change | None:
        halves = unpack(self.residual[rows], self.num_columns, 1).view(torch.int8)
        moved = move_halves(self.codes[rows], halves, self.scales[rows], signs, rate, key)
        if moved is None:
            return None
        self.residual[rows].copy_(pack(halves.view(torch.uint8), 1))
        return Change(int8.count_changed(moved[0]), moved[1])

    def _fine(self, rows: slice) -> Tensor:
        """Codes and residuals as one whole number of fine steps, float32."""
        residual = unpack(self.residual[rows], self.num_columns, self.bits)
        return joined(self.codes[rows], residual, fine_steps(self.bits))

    def _keep(self, rows: slice, fine: Tensor) -> None:
        codes, residual = split(fine, fine_steps(self.bits))
        self.codes[rows].copy_(codes)
        self.residual[rows].copy_(pack(residual.to(torch.uint8), self.bits))
