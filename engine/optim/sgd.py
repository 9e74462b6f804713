"""Gradient descent without momentum; weight decay shrinks the weight itself."""

from __future__ import annotations

from torch import Tensor


def sgd_step(values: Tensor, gradient: Tensor, learning_rate: float, weight_decay: float) -> None:
    """One step, in place; float32, both of one shape.

    Without momentum this is torch's SGD: there the decay is added to the gradient, which is the
    same but for rounding.

    Args:
        values: The weights.
        gradient: Not changed.
        learning_rate: How far to go.
        weight_decay: Share of the learning rate by which a weight shrinks.
    """
    if weight_decay:
        values.mul_(1 - learning_rate * weight_decay)
    values.add_(gradient, alpha=-learning_rate)
