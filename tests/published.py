"""QFT as its papers have it, without any of the engine's shortcuts, to compare with.

Plain autograd on a float twin, the optimizer in float64 as published, and no rounding: what the
engine stores must then be within one step of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from engine.contract.method_settings import QftSettings
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.memory.layout import Dense, Int8, SquareRoot
from engine.memory.plans import MemoryPlan, TensorPlan, plan_for
from engine.methods.qft import method as qft_method
from engine.preparation import Prepared
from engine.roles import holders, named_weights
from engine.storage.allocate import allocate
from engine.storage.protocol import Storage, WeightStorage
from tests.tiny import float_twin, snapshot

CPU = torch.device("cpu")
# Settings in which embeddings, norms and biases are 8-bit codes too.
ALL_IN_CODES: dict[str, Any] = {"quantize": "all"}
State = dict[str, Tensor]


def rows_of(storage: Storage) -> slice:
    return slice(0, storage.num_rows)


@dataclass(frozen=True)
class Stored:
    """One weight with its moments, rebuilt from a state."""

    name: str
    plan: TensorPlan
    weight: WeightStorage
    moments: dict[str, Storage]
    transposed: bool
    decays: bool
    tied: bool

    def matrix(self, original: Tensor) -> Tensor:
        """A gradient in the shape that the weight is stored in."""
        turned = original.T if self.transposed else original
        return turned.reshape(self.weight.num_rows, self.weight.num_columns)

    def values(self) -> Tensor:
        """The weight itself, residuals and outliers included."""
        return self.weight.read(rows_of(self.weight))

    def step(self) -> Tensor:
        """Distance to the next storable value, broadcastable to the matrix; 0 where exact."""
        layout = self.plan.weight
        if not isinstance(layout, Int8):
            size = 2**-7 if layout == Dense("bfloat16") else 0.0
            return self.values().abs() * size
        return spread(self.weight) / 2**layout.residual_bits


def spread(storage: Storage) -> Tensor:
    """The scale of every element."""
    scales = storage.tensors()["scales"].float()
    return scales.repeat_interleave(storage.num_columns // scales.shape[1], dim=1)


def stored_weights(one: Prepared, state: State) -> Iterator[Stored]:
    """Everything that a state holds, by the layouts of the plan."""
    settings = one.spec.method
    assert isinstance(settings, QftSettings)
    plan = qft_method.qft_plan(settings)
    twin = float_twin(one)
    for named in named_weights(twin):
        layouts = plan.of(named.role)
        shape = tuple(named.parameter.shape)[:: -1 if named.transposed else 1]

        def rebuilt(kind: str, layout: Any, shape: Any = shape, name: str = named.name) -> Storage:
            storage = allocate(layout, shape, CPU)
            for part, tensor in storage.tensors().items():
                tensor.copy_(state[f"{name}/{kind}.{part}"])
            return storage

        kinds = ["momentum"] if len(layouts.moments) == 1 else ["exp_avg", "exp_avg_sq"]
        moments = {
            kind: rebuilt(kind, layout) for kind, layout in zip(kinds, layouts.moments, strict=True)
        }
        weight = cast(WeightStorage, rebuilt("weight", layouts.weight))
        decays = named.parameter.ndim > 1
        tied = len(holders(twin)[id(named.parameter)]) > 1
        yield Stored(named.name, layouts, weight, moments, named.transposed, decays, tied)


def twin_gradients(one: Prepared, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Of the mean loss over all batches, by plain autograd, in the original shapes."""
    twin = float_twin(one)
    total = sum(batch.num_target_tokens for batch in batches)
    for batch in batches:
        (summed_loss(twin, batch) / total).backward()
    found: dict[str, Tensor] = {}
    for named in named_weights(twin):
        gradient = named.parameter.grad
        found[named.name] = torch.zeros_like(named.parameter) if gradient is None else gradient
    return found


@dataclass(frozen=True)
class Update:
    """What one weight and its moments would be without any rounding, float64 matrices.

    `step_before` is the distance between storable values before the update. `sure` is False where
    the gradient is nothing but rounding errors, as that of a key's bias is.
    """

    weight: Tensor
    moments: dict[str, Tensor]
    step_before: Tensor
    sure: Tensor


def lion(stored: Stored, gradient: Tensor, rate: float, decay: float) -> Update:
    """Algorithm 2 of "Symbolic Discovery of Optimization Algorithms"."""
    momentum = stored.moments["momentum"].read(rows_of(stored.weight)).double()
    old = stored.values().double()
    mixed = 0.9 * momentum + 0.1 * gradient
    weight = old - rate * (mixed.sign() + decay * old)
    moments = {"momentum": 0.99 * momentum + 0.01 * gradient}
    return Update(weight, moments, stored.step(), is_sure(mixed))


def adamw(stored: Stored, gradient: Tensor, rate: float, decay: float, step: int) -> Update:
    """Algorithm 2 of "Decoupled Weight Decay Regularization"."""
    every, old = rows_of(stored.weight), stored.values().double()
    first = 0.9 * stored.moments["exp_avg"].read(every).double() + 0.1 * gradient
    second = 0.999 * stored.moments["exp_avg_sq"].read(every).double() + 0.001 * gradient**2
    corrected = first / (1 - 0.9**step)
    direction = corrected / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    weight = old - rate * (direction + decay * old)
    moments = {"exp_avg": first, "exp_avg_sq": second}
    return Update(weight, moments, stored.step(), is_sure(first))


def is_sure(slope: Tensor) -> Tensor:
    return (slope.abs() > 1e-7) | (slope == 0)


def exact_step(
    one: Prepared, batches: Sequence[Batch], rate: float, step: int
) -> dict[str, Update]:
    """Every weight after one step from where `one` stands, without rounding."""
    settings, train = one.spec.method, one.spec.train
    assert isinstance(settings, QftSettings)
    gradients, found = twin_gradients(one, batches), {}
    for stored in stored_weights(one, snapshot(one)):
        gradient = stored.matrix(gradients[stored.name]).double()
        decay = train.weight_decay if stored.decays else 0.0
        found[stored.name] = (
            lion(stored, gradient, rate, decay)
            if settings.update == "lion"
            else adamw(stored, gradient, rate, decay, step)
        )
    return found


def moment_error(storage: Storage, layout: Any, exact: Tensor) -> tuple[Tensor, float]:
    """How far a stored moment is from the exact one, in its steps, and how far it may be."""
    found = storage.read(rows_of(storage)).double()
    if isinstance(layout, Dense):
        return (found - exact).abs() / exact.abs().amax().clamp(min=1e-30), 1e-5
    step = spread(storage).double()
    if isinstance(layout, SquareRoot):  # no root is below one step
        return (found.sqrt() - exact.sqrt().clamp(min=step)).abs() / step, 1.001
    return (found - exact).abs() / step, 0.501  # the largest two levels of 4 bits: half and all


def exact_gradients(monkeypatch: pytest.MonkeyPatch, *, moments: bool = False) -> None:
    """Gradients that wait, and the moments if asked for, are kept in float32."""
    exact = Dense("float32")

    def plan(settings: QftSettings) -> MemoryPlan:
        found = plan_for(settings)

        def held(one: TensorPlan) -> TensorPlan:
            kept = tuple(exact for _ in one.moments) if moments else one.moments
            return replace(one, gradient=exact, moments=kept)

        return replace(
            found,
            matrices=held(found.matrices),
            tables=held(found.tables),
            small=held(found.small),
            other=held(found.other),
        )

    monkeypatch.setattr(qft_method, "qft_plan", plan)
