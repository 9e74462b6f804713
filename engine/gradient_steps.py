"""Steps that hold the whole gradient: accumulate over micro-batches, measure it, clip it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import nn

from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.step_report import NonFiniteError


def accumulate(model: nn.Module, batches: Sequence[Batch]) -> tuple[float, int]:
    """Gradients of the mean loss over all micro-batches, left in every `.grad`.

    Returns:
        The loss summed over target tokens, in nats, and the number of target tokens.

    Raises:
        NonFiniteError: The loss is not finite; no weight has moved.
    """
    total = sum(batch.num_target_tokens for batch in batches)
    loss_nats = 0.0
    for batch in batches:
        loss = summed_loss(model, batch)
        loss_nats += float(loss.detach())
        if not math.isfinite(loss_nats):
            raise NonFiniteError("the loss", weights_intact=True)
        (loss / max(1, total)).backward()
    return loss_nats, total


def clipped_norm(parameters: Iterable[nn.Parameter], max_norm: float | None) -> float:
    """The length of the whole gradient; a longer one is shortened in place.

    Args:
        parameters: Whose gradients make it; those without one count nothing.
        max_norm: Longest allowed; None for no limit.

    Raises:
        NonFiniteError: A gradient is not finite; no weight has moved.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in held if parameter.grad is not None]
    total = nn.utils.get_total_norm(gradients)
    norm = float(total)
    if not math.isfinite(norm):
        raise NonFiniteError("a gradient", weights_intact=True)
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(held, max_norm, total)
    return norm
