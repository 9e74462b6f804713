"""What comes of one step: its numbers, or that they stopped being numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


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
