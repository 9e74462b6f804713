"""What a step tells people: whether the codes move, and whether they can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.methods.qft.weight import TrainedWeight
from engine.quant.residual import fine_steps
from engine.storage.int8 import Int8Storage
from engine.storage.outliers import OutlierStorage
from engine.storage.protocol import Change

if TYPE_CHECKING:
    from engine.contract.method_settings import QftSettings

# Scales looked at in each weight: a 7B model has hundreds of millions.
_SAMPLE = 512
# Scales move slowly; how many steps pass between two looks.
_LOOK_EVERY = 10


class Metrics:
    """Counts of one step. Tensors are summed where they are: a GPU waits once, at its end."""

    def __init__(self, weights: Sequence[TrainedWeight], settings: QftSettings) -> None:
        self._coded = [storage for weight in weights if (storage := _codes_of(weight)) is not None]
        self._num_codes = sum(storage.codes.numel() for storage in self._coded)
        outliers = [
            weight.storage for weight in weights if isinstance(weight.storage, OutlierStorage)
        ]
        self._num_outliers = sum(storage.values.numel() for storage in outliers)
        self._num_beside = sum(storage.rest.codes.numel() for storage in outliers)
        self._bits = settings.residual_bits
        self._median_step: float | None = None
        self.begin()

    def begin(self) -> None:
        """Forget what was counted, and the tensors it was counted in."""
        self._squares: list[tuple[TrainedWeight, Tensor]] = []
        self._codes: list[Tensor | int] = []
        self._groups: list[Tensor | int] = []

    def count_gradient(self, weight: TrainedWeight, gradient: Tensor) -> None:
        """Note the length of some rows' gradient."""
        self._squares.append((weight, torch.linalg.vector_norm(gradient).square_()))

    def count_change(self, change: Change) -> None:
        """Note what an update did to the codes."""
        self._codes.append(change.codes)
        self._groups.append(change.groups)

    def square(self) -> Tensor:
        """Sum of squares of all gradients noted, a scalar."""
        return torch.stack([square for _, square in self._squares]).sum()

    def culprit(self) -> str:
        """The first weight whose gradient is not finite."""
        return next(
            weight.name for weight, square in self._squares if not bool(torch.isfinite(square))
        )

    def of_step(
        self, learning_rate: float, step: int, clip_factor: float | None
    ) -> dict[str, float]:
        """The numbers of this step, by their names in the event.

        Args:
            learning_rate: Of this step.
            step: Its number, from 1.
            clip_factor: What clipping multiplied the gradient by; None where nothing is clipped.
        """
        found: dict[str, float] = {}
        if clip_factor is not None:
            found["clip_factor"] = clip_factor
        if not self._num_codes:
            return found
        if self._median_step is None or step % _LOOK_EVERY == 1:
            self._median_step = median_step(self._coded, self._bits)
        found["codes_changed_percent"] = 100 * float(sum(self._codes)) / self._num_codes
        found["groups_grown"] = float(sum(self._groups))
        found["median_step"] = self._median_step
        found["update_in_steps"] = learning_rate / self._median_step
        if self._num_outliers:
            found["outlier_percent"] = 100 * self._num_outliers / self._num_beside
        return found


def median_step(coded: Sequence[Int8Storage], residual_bits: int) -> float:
    """The step between two storable values that half of the weights are above, in their units."""
    samples: list[Tensor] = []
    for storage in coded:
        scales = storage.scales.flatten()
        samples.append(scales[:: math.ceil(scales.numel() / _SAMPLE)].float())
    median = float(torch.cat(samples).median())
    return median / fine_steps(residual_bits) if residual_bits else median


def _codes_of(weight: TrainedWeight) -> Int8Storage | None:
    storage = weight.storage
    if isinstance(storage, OutlierStorage):
        storage = storage.rest
    return storage if isinstance(storage, Int8Storage) else None
