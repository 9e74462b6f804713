"""LOMO: plain gradient descent on every weight, with one gradient alive at a time.

"Full Parameter Fine-tuning for Large Language Models with Limited Resources" (Lv et al., 2023),
algorithm 1. There is no optimizer state. Weights in bfloat16 are rounded stochastically, which the
paper does not: to nearest, an update under half of a weight's last digit would be lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.backward_updates import BackwardUpdates, WeightUpdate
from engine.data.batching import Batch
from engine.methods.protocol import StepReport
from engine.optim.sgd import sgd_step

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec


class LomoMethod:
    """Two bytes for each weight, or four in float32, and nothing beside it."""

    def prepare(self, model: nn.Module, spec: RunSpec, device: torch.device) -> None:
        """Every weight in the format it is kept in, with a hook that updates it.

        Raises:
            RequestError: A weight is not finite.
        """
        assert spec.method.kind == "lomo"
        self._updates = BackwardUpdates(model, spec, device, _update)

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """One batch; when its backward pass ends, every weight has moved."""
        return self._updates.step(batches, learning_rate, step)

    def state_dict(self) -> dict[str, Tensor]:
        """The trained weights. Random numbers need no state."""
        return self._updates.state_dict()

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The weights as they are kept, frozen ones too."""
        return self._updates.all_weights()

    def moments(self) -> Iterable[tuple[str, str, Tensor]]:
        """There are none."""
        return ()

    def new_epoch(self, step: int) -> None:
        """Nothing here goes by passes."""


def _update(update: WeightUpdate) -> None:
    for group in update.weight.groups():
        for chunk in group:
            values = update.read(chunk)
            decay = update.weight.weight_decay
            sgd_step(values, update.gradient(chunk), update.learning_rate, decay)
            update.write(chunk, values)
