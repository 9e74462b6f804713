"""What a method is: it owns one step. The loop owns time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from engine.data.batching import Batch
from engine.step_report import NonFiniteError, StepReport

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec

__all__ = ["Method", "NonFiniteError", "StepReport"]


class Method(Protocol):
    """One way to change weights."""

    def prepare(
        self, model: nn.Module, spec: RunSpec, device: torch.device
    ) -> Sequence[str] | None:
        """Take over a freshly loaded model: lay it out as the plan says, on `device`.

        Returns:
            Sentences that a person should read, where there are any.
        """
        ...

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """One update from all micro-batches of optimizer step number `step`, from 1.

        Raises:
            NonFiniteError: Loss or gradient is not finite; the update is not to be kept.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a bitwise exact resume needs.

        The tensors are live, so that a saved state is taken back by copying into them.
        """
        ...

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The trained weights under the names of the original model, one at a time.

        An adapter's are under their own, in the model that has it on.
        """
        ...

    def moments(self) -> Iterable[tuple[str, str, Tensor]]:
        """Every optimizer moment in float32, one at a time: weight's name, moment's name, values.

        The values have the shape of the weight, and are zero before the first step.
        """
        ...

    def new_epoch(self, step: int) -> None:
        """Called before `step`, the first of a further pass over the data."""
        ...
