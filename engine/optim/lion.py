"""Lion: "Symbolic Discovery of Optimization Algorithms" (Chen et al., 2023), algorithm 2."""

from __future__ import annotations

from torch import Tensor

BETA1 = 0.9
BETA2 = 0.99


def lion_direction(gradient: Tensor, momentum: Tensor) -> Tensor:
    """The sign of the interpolated gradient; every entry is -1, 0 or 1. Same shape as both."""
    return momentum.lerp(gradient, 1 - BETA1).sign_()


def lion_momentum(gradient: Tensor, momentum: Tensor) -> Tensor:
    """The momentum after this step, in place of the one before."""
    return momentum.lerp_(gradient, 1 - BETA2)
