"""What a method is: it owns one step. The loop owns time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from engine.contract.spec import RunSpec
from engine.data.batching import Batch


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        loss_nats: Summed over target tokens, before the update.
        num_target_tokens: Over all micro-batches of the step.
        grad_norm: Euclidean length of the mean loss's gradient, before any clipping.
        metrics: A method's own numbers for people, such as `codes_changed_percent`.
    """

    loss_nats: float
    num_target_tokens: int
    grad_norm: float
    metrics: dict[str, float] = field(default_factory=dict[str, float])


class NonFiniteError(ArithmeticError):
    """The loss or a gradient is NaN or infinite.

    Attributes:
        weights_intact: False if part of the weights had moved already.
    """

    def __init__(self, what: str, *, weights_intact: bool) -> None:
        super().__init__(what)
        self.weights_intact = weights_intact


class Method(Protocol):
    """One way to change weights."""

    def prepare(self, model: nn.Module, spec: RunSpec, device: torch.device) -> None:
        """Take over a freshly loaded model: lay it out as the plan says, on `device`."""
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
        """The trained weights under the names of the original model, one at a time."""
        ...

    def moments(self) -> Iterable[tuple[str, str, Tensor]]:
        """Every optimizer moment in float32, one at a time: weight's name, moment's name, values.

        The values have the shape of the weight, and are zero before the first step.
        """
        ...

    def new_epoch(self, step: int) -> None:
        """Called before `step`, the first of a further pass over the data."""
        ...
