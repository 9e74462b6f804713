"""AdaLomo: updates inside the backward pass, with a factored second moment for each matrix.

"AdaLomo: Low-memory Optimization with Adaptive Learning Rate" (Lv et al., 2023), algorithm 1. A
matrix of experts is a stack of matrices, each with moments and a normalisation of its own; one
whose gradient is zero, since no token came to it, stays as it is.

Three sweeps over the rows of a matrix make an update, so that its temporaries stay bounded: the
root mean square of the direction needs the mean squares of all columns, and the update needs both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from engine.backward_updates import BackwardUpdates, Chunk, FusedWeight, WeightUpdate
from engine.data.batching import Batch
from engine.methods.protocol import StepReport
from engine.optim.adalomo import (
    adalomo_step,
    direction_square,
    inverse_roots,
    moved_average,
    rates,
    second_moment,
    second_moment_decay,
)

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec


@dataclass(frozen=True)
class _Moment:
    """Factors of the second moment, float32: (matrices, rows) and (matrices, columns).

    A vector has no factors: its one row has a mean square for each entry.
    """

    row: Tensor | None
    column: Tensor

    @staticmethod
    def of(weight: FusedWeight) -> _Moment:
        """Zeros for a weight that has not moved."""
        matrices, rows, columns = weight.shape
        device, vector = weight.parameter.device, weight.parameter.ndim < 2
        row = None if vector else torch.zeros(matrices, rows, device=device)
        return _Moment(row, torch.zeros(matrices, columns, device=device))

    def tensors(self) -> dict[str, Tensor]:
        """The real tensors, live, by their names in the state."""
        if self.row is None:
            return {"exp_avg_sq": self.column}
        return {"exp_avg_sq_row": self.row, "exp_avg_sq_col": self.column}


class AdaLomoMethod:
    """Two bytes for each weight, or four in float32, and a few for each row and column."""

    def prepare(self, model: nn.Module, spec: RunSpec, device: torch.device) -> None:
        """Every weight in the format it is kept in, with a hook that updates it, and its moment.

        Raises:
            RequestError: A weight is not finite.
        """
        assert spec.method.kind == "adalomo"
        self._updates = BackwardUpdates(model, spec, device, self._update)
        self._moments = {weight.name: _Moment.of(weight) for weight in self._updates.weights}

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """One batch; when its backward pass ends, every weight has moved."""
        return self._updates.step(batches, learning_rate, step)

    def _update(self, update: WeightUpdate) -> None:
        moment = self._moments[update.weight.name]
        for group in update.weight.groups():
            _update_matrices(update, group, moment)

    def state_dict(self) -> dict[str, Tensor]:
        """The trained weights and their moments; the number of steps comes with each step."""
        state = self._updates.state_dict()
        for name, moment in self._moments.items():
            state |= {f"{name}/{part}": tensor for part, tensor in moment.tensors().items()}
        return state

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The weights as they are kept, frozen ones too."""
        return self._updates.all_weights()

    def moments(self) -> Iterable[tuple[str, str, Tensor]]:
        """The second moment that the factors stand for."""
        for weight in self._updates.weights:
            moment = self._moments[weight.name]
            row = moment.column.new_ones(1, 1) if moment.row is None else moment.row
            whole = second_moment(row, moment.column)
            yield weight.name, "exp_avg_sq", whole.view(weight.parameter.shape)

    def new_epoch(self, step: int) -> None:
        """Nothing here goes by passes."""


class _FirstSweep(NamedTuple):
    """What is known after looking at a gradient once.

    Attributes:
        row: Factor of the second moment, (matrices, rows).
        column: The other, (matrices, columns).
        weight_square: Sum of squares of the weights, (matrices,).
        has_gradient: Whether it is anything but zero, (matrices, 1).
        square: Of the gradient, where all of it was one chunk.
    """

    row: Tensor
    column: Tensor
    weight_square: Tensor
    has_gradient: Tensor
    square: Tensor | None


def _update_matrices(update: WeightUpdate, group: list[Chunk], moment: _Moment) -> None:
    """The step of some matrices, each by itself; `group` are all their rows."""
    row, column, weight_square, has_gradient, known = _new_moment(update, group, moment)
    row_root, column_root = inverse_roots(row, column)
    of_direction = torch.zeros_like(weight_square)
    for chunk in group:
        square = update.gradient(chunk).square() if known is None else known
        of_direction += direction_square(square, row_root[:, chunk.rows], column_root)
    _, rows, columns = update.weight.shape
    far, own_rate = rates(update.learning_rate, weight_square, of_direction, rows * columns)
    far = far * has_gradient.unsqueeze(-1)
    decay = update.weight.weight_decay
    shrink = 1 - own_rate * has_gradient.unsqueeze(-1) * decay if decay else None
    for chunk in group:
        values, gradient = update.read(chunk), update.gradient(chunk)
        adalomo_step(values, gradient, row_root[:, chunk.rows], column_root, far, shrink)
        update.write(chunk, values)


def _new_moment(update: WeightUpdate, group: list[Chunk], moment: _Moment) -> _FirstSweep:
    """The first sweep: both factors move, where there is a gradient at all."""
    matrices = group[0].matrices
    _, rows, columns = update.weight.shape
    of_rows: list[Tensor] = []
    of_columns, square = torch.zeros_like(moment.column[matrices]), None
    weight_square = torch.zeros_like(of_columns[:, 0])
    for chunk in group:
        square = update.gradient(chunk).square()
        of_rows.append(square.sum(dim=-1))
        of_columns += square.sum(dim=-2)
        weight_square += torch.linalg.vector_norm(update.read(chunk), dim=(-2, -1)).square_()
    known = square if len(group) == 1 else None
    row_square = torch.cat(of_rows, dim=-1)
    has_gradient = row_square.amax(dim=-1, keepdim=True) > 0
    decay = second_moment_decay(update.step)
    column = moved_average(moment.column[matrices], of_columns / rows, decay)
    moment.column[matrices] = torch.where(has_gradient, column, moment.column[matrices])
    if moment.row is None:
        one = torch.ones_like(weight_square.unsqueeze(-1))
        return _FirstSweep(one, column, weight_square, has_gradient, known)
    row = moved_average(moment.row[matrices], row_square / columns, decay)
    moment.row[matrices] = torch.where(has_gradient, row, moment.row[matrices])
    return _FirstSweep(row, column, weight_square, has_gradient, known)
