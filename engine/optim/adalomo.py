"""AdaLomo's rule: a factored second moment, and an update of bounded size for each matrix.

"AdaLomo: Low-memory Optimization with Adaptive Learning Rate" (Lv et al., 2023), section 3 and
algorithm 1; the factors, the decay and the scale by the weights' own size are those of "Adafactor"
(Shazeer and Stern, 2018), algorithm 4. There is no first moment and no correction for the start,
since the first step replaces what was there.

Everything here is float32 and works on a stack of matrices, shape (matrices, rows, columns), each
by itself; rows may come some at a time. A vector is a matrix of one row.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DECAY_EXPONENT = -0.8
# Added to squares, and the least size that a matrix of weights counts as.
_SQUARE_EPSILON = 1e-30
_SIZE_EPSILON = 1e-3
# Largest root mean square of a direction.
_CLIP_THRESHOLD = 1.0


def second_moment_decay(step: int) -> float:
    """Share of the second moment that stays at step `step`, from 1: none at the first."""
    return 1 - step**_DECAY_EXPONENT


def moved_average(moment: Tensor, mean_square: Tensor, decay: float) -> Tensor:
    """A factor of the second moment after this step, as a new tensor.

    Args:
        moment: Before, (matrices, rows) or (matrices, columns).
        mean_square: Of the gradient, over the other of the two; same shape.
        decay: From `second_moment_decay`.
    """
    return moment.mul(decay).add_(mean_square.add(_SQUARE_EPSILON), alpha=1 - decay)


def inverse_roots(row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """What rows and columns of a gradient are multiplied by, to divide it by its root mean square.

    Args:
        row: Mean square of each row, (matrices, rows).
        column: Mean square of each column, (matrices, columns).

    Returns:
        Shapes (matrices, rows, 1) and (matrices, 1, columns).
    """
    relative = row / row.mean(dim=-1, keepdim=True)
    return relative.rsqrt_().unsqueeze(-1), column.rsqrt().unsqueeze(-2)


def direction_square(square: Tensor, row_root: Tensor, column_root: Tensor) -> Tensor:
    """Sum of squares of the direction, (matrices,), without making it.

    Args:
        square: Of the gradient, (matrices, rows, columns).
        row_root: Of these rows, from `inverse_roots`.
        column_root: From `inverse_roots`.
    """
    weighted = square @ column_root.square().transpose(-1, -2)
    return (weighted * row_root.square()).sum(dim=(-2, -1))


def rates(
    learning_rate: float, weight_square: Tensor, direction_square: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """How far to go along the direction, and the learning rate that decay goes by.

    Args:
        learning_rate: Relative to the size of the weights.
        weight_square: Sum of squares of the weights before the step, (matrices,).
        direction_square: Sum of squares of the direction, (matrices,).
        count: Weights in one matrix.

    Returns:
        Both (matrices, 1, 1).
    """
    size = (weight_square / count).sqrt_().clamp_(min=_SIZE_EPSILON)
    own_rate = size.mul_(learning_rate).view(-1, 1, 1)
    length = (direction_square / count).sqrt_()
    return own_rate / length.div_(_CLIP_THRESHOLD).clamp_(min=1.0).view(-1, 1, 1), own_rate


def adalomo_step(
    values: Tensor,
    gradient: Tensor,
    row_root: Tensor,
    column_root: Tensor,
    far: Tensor,
    shrink: Tensor | None,
) -> None:
    """Some rows of the step, in place.

    Args:
        values: The weights, (matrices, rows, columns).
        gradient: Same shape; used up.
        row_root: Of these rows, from `inverse_roots`.
        column_root: From `inverse_roots`.
        far: From `rates`.
        shrink: What decay multiplies the weights by, (matrices, 1, 1); None for no decay.
    """
    if shrink is not None:
        values.mul_(shrink)
    values.sub_(gradient.mul_(column_root).mul_(row_root * far))


def second_moment(row: Tensor, column: Tensor) -> Tensor:
    """The whole second moment that the factors stand for, (matrices, rows, columns)."""
    mean = row.mean(dim=-1, keepdim=True)
    relative = torch.where(mean > 0, row / mean, 0.0)
    return relative.unsqueeze(-1) * column.unsqueeze(-2)
