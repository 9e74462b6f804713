"""Where a gradient goes from the layer that made it: to the update at once, or onto a stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from engine.memory.layout import Dense
from engine.methods.qft.weight import TrainedWeight
from engine.quant.randomness import RandomKey
from engine.storage.allocate import allocate
from engine.storage.protocol import Storage

Update = Callable[[TrainedWeight, slice, Tensor], None]
# Far above the streams of the update, as each push of a step has one of its own.
_STREAM = 1 << 32


class Gradients(Protocol):
    """What a layer's backward pass hands its gradient to, some rows at a time."""

    def receive(self, weight: TrainedWeight, rows: slice, gradient: Tensor) -> None:
        """Take the gradient of some rows.

        Args:
            weight: Whose.
            rows: Which.
            gradient: Shape (rows, columns), in the format it was computed in; left as it is.
        """
        ...


class FusedGradients:
    """Hands a gradient to the update inside the backward pass, so that none is ever whole.

    A weight of several layers waits for the last of them; what came before is kept meanwhile.
    """

    def __init__(self, update: Update) -> None:
        self._update = update
        self._waiting: dict[tuple[int, int], tuple[TrainedWeight, slice, list[Tensor]]] = {}

    def receive(self, weight: TrainedWeight, rows: slice, gradient: Tensor) -> None:
        """Update these rows, if no other layer's share of the gradient is missing."""
        if weight.num_holders == 1:
            self._update(weight, rows, gradient.float())
            return
        place = (weight.number, rows.start)
        _, _, shares = self._waiting.setdefault(place, (weight, rows, []))
        if len(shares) < weight.num_holders - 1:
            shares.append(gradient.to(_kept_dtype(weight), copy=True))
            return
        del self._waiting[place]
        self._update(weight, rows, sum(shares, gradient.float()))

    def finish(self) -> None:
        """Update with what still waits: for layers that this backward pass did not reach."""
        waiting, self._waiting = self._waiting, {}
        for weight, rows, shares in waiting.values():
            self._update(weight, rows, sum(shares[1:], shares[0].float()))

    def forget(self) -> None:
        """Drop what waits, after a backward pass that failed."""
        self._waiting.clear()


class GradientStack:
    """All gradients in 8 bits, pushed in the backward pass and popped by the optimizer.

    "QFT" (Li et al., 2023), section 3.3. What is pushed twice is added up: accumulation, or a
    layer that is used twice. The norm is that of the sums before they are rounded.

    Args:
        seed: Of the run; sums are rounded stochastically, so that none drifts.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._step = 0
        self._stack: dict[int, tuple[TrainedWeight, Storage]] = {}
        self._squares: dict[tuple[int, int], Tensor] = {}
        self._pushes: Counter[tuple[int, int]] = Counter()

    def begin(self, step: int) -> None:
        """An empty stack for optimizer step number `step`."""
        self._step = step
        self._stack.clear()
        self._squares.clear()
        self._pushes.clear()

    def receive(self, weight: TrainedWeight, rows: slice, gradient: Tensor) -> None:
        """Push some rows, or add to what lies there already."""
        if weight.number not in self._stack:
            device = gradient.device
            held = allocate(weight.gradient, weight.stored_shape, device)
            self._stack[weight.number] = (weight, held)
        storage = self._stack[weight.number][1]
        place = (weight.number, rows.start)
        total, key = gradient.to(torch.float32, copy=True), None
        if place in self._squares:
            total.add_(storage.read(rows))
            # Every sum draws anew: the same noise each time would add up instead of evening out.
            stream = _STREAM + self._pushes[place]
            key = RandomKey(self._seed, self._step, weight.number, stream, rows.start)
        self._pushes[place] += 1
        self._squares[place] = torch.linalg.vector_norm(total).square_()
        storage.write(rows, total, key)

    def square(self) -> Tensor:
        """Sum of the squares of everything on the stack, a scalar."""
        return torch.stack(list(self._squares.values())).sum()

    def culprit(self) -> str:
        """The first weight whose gradient is not finite."""
        return next(
            self._stack[number][0].name
            for (number, _), square in self._squares.items()
            if not bool(torch.isfinite(square))
        )

    def pop_all(self, update: Update, factor: float) -> None:
        """Hand every gradient to the update, the last one first.

        Args:
            update: Called for some rows at a time.
            factor: From clipping; multiplies every gradient.
        """
        while self._stack:
            _, (weight, storage) = self._stack.popitem()
            for rows in weight.chunks():
                update(weight, rows, storage.read(rows).mul_(factor))


def _kept_dtype(weight: TrainedWeight) -> torch.dtype:
    exact = weight.gradient == Dense("float32")
    return torch.float32 if exact else torch.bfloat16
