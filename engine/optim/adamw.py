"""AdamW: "Decoupled Weight Decay Regularization" (Loshchilov and Hutter, 2019), algorithm 2."""

from __future__ import annotations

import math

from torch import Tensor

BETA1 = 0.9
BETA2 = 0.999
EPSILON = 1e-8


def adamw_moments(gradient: Tensor, first: Tensor, second: Tensor) -> None:
    """Both moments after this step, in place of the ones before. Float32, all of one shape."""
    first.lerp_(gradient, 1 - BETA1)
    second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)


def adamw_direction(first: Tensor, second: Tensor, step: int) -> Tensor:
    """The step divided by the learning rate, with both moments corrected for their start at zero.

    Args:
        first: First moment after this step.
        second: Second moment after this step.
        step: Number of this step, from 1.
    """
    denominator = second.sqrt().div_(math.sqrt(1 - BETA2**step)).add_(EPSILON)
    return (first / denominator).div_(1 - BETA1**step)
