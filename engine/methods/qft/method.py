"""QFT: every weight is trained and kept in 8 bits.

"QFT: Quantized Full-parameter Tuning of LLMs with Affordable Resources" (Li et al., 2023): weights,
gradients and momentum are stored as 8-bit codes and computed with in floating point (section 3.1);
the largest weights of a layer are kept apart in float32 (section 3.2); a custom backward pushes
each gradient on a stack, since an integer tensor has no `.grad`, and the optimizer pops it
(section 3.3). `preset: paper` is that algorithm.

Two departures make it train at the learning rates of fine-tuning, and fit into less memory. The
paper rounds to nearest, which loses every update under half a step; otherwise an update is rounded
stochastically, and may keep a residual. And the paper holds all gradients before it updates;
otherwise a gradient is used at once, some rows at a time, and none is ever whole.

Where the bytes are: `engine.memory.plans.qft_plan`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.casting import compute_dtype
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.memory.plans import qft_plan
from engine.methods.protocol import NonFiniteError, StepReport
from engine.methods.qft.gradients import FusedGradients, GradientStack
from engine.methods.qft.metrics import Metrics
from engine.methods.qft.take_over import TakeOver
from engine.methods.qft.weight import EVERY, TrainedWeight
from engine.optim.adamw import adamw_direction, adamw_moments
from engine.optim.lion import lion_direction, lion_momentum
from engine.quant.int8_product import refuse_slow_products
from engine.quant.randomness import RandomKey
from engine.storage.int8 import Int8Storage
from engine.storage.outliers import OutlierStorage
from engine.storage.protocol import Storage

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec

# What a random number is for. Stream 1 is of scales that grow while a weight is rounded, and those
# of gradients lie far above.
_ROUND_WEIGHT, _ROUND_MOMENT, _CHOOSE_OUTLIERS = 0, 2, 5
_MOMENT_NAMES = {"lion": ("momentum",), "adamw": ("exp_avg", "exp_avg_sq")}
_CLIP_EPSILON = 1e-6


class QftMethod:
    """Trains every weight in about two bytes each, states included."""

    def prepare(self, model: nn.Module, spec: RunSpec, device: torch.device) -> None:
        """Turn every weight into its stored form and every layer into one that uses it.

        Raises:
            RequestError: A weight is not finite, an architecture cannot be trained so, or the
                device has no 8-bit products.
        """
        assert spec.method.kind == "qft"
        self._model, self._settings, self._train = model, spec.method, spec.train
        if self._settings.matmul == "int8":
            refuse_slow_products(device)
        self._learning_rate, self._step = 0.0, 0
        self._stack = GradientStack(self._train.seed)
        self._fused = FusedGradients(self._update_and_measure)
        stacked = self._settings.gradients == "stack"
        taking = TakeOver(
            qft_plan(self._settings),
            self._stack if stacked else self._fused,
            compute_dtype(device),
            self._settings.matmul == "int8",
            device,
        )
        self._weights = list(taking.weights(model))
        self._metrics = Metrics(self._weights, self._settings)

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """Forward and backward passes over all micro-batches, and one update of every weight."""
        self._learning_rate, self._step = learning_rate, step
        self._metrics.begin()
        self._stack.begin(step)
        self._fused.forget()
        total = sum(batch.num_target_tokens for batch in batches)
        loss_nats = sum(self._pass(batch, total) for batch in batches)
        if self._settings.gradients == "stack":
            norm, factor = self._pop_stack()
        else:
            self._fused.finish()
            norm, factor = self._norm_of_fused(), None
        metrics = self._metrics.of_step(learning_rate, step, factor)
        self._metrics.begin()
        return StepReport(loss_nats, total, norm, metrics)

    def _pass(self, batch: Batch, total: int) -> float:
        """One micro-batch. When a fused backward ends, every weight has moved."""
        loss = summed_loss(self._model, batch)
        loss_nats = float(loss.detach())
        if not math.isfinite(loss_nats):
            raise NonFiniteError("the loss", weights_intact=True)
        (loss / max(1, total)).backward()
        return loss_nats

    def _pop_stack(self) -> tuple[float, float | None]:
        """Clip by the exact norm of the whole gradient, then update from the last weight on."""
        norm = math.sqrt(float(self._stack.square()))
        if not math.isfinite(norm):
            raise NonFiniteError(f"the gradient of {self._stack.culprit()}", weights_intact=True)
        limit = self._train.max_grad_norm
        factor = None if limit is None else min(1.0, limit / (norm + _CLIP_EPSILON))
        self._stack.pop_all(self._update, 1.0 if factor is None else factor)
        return norm, factor

    def _norm_of_fused(self) -> float:
        norm = math.sqrt(float(self._metrics.square()))
        if not math.isfinite(norm):
            raise NonFiniteError(f"the gradient of {self._metrics.culprit()}", weights_intact=False)
        return norm

    def _update_and_measure(self, weight: TrainedWeight, rows: slice, gradient: Tensor) -> None:
        self._metrics.count_gradient(weight, gradient)
        self._update(weight, rows, gradient)

    def _update(self, weight: TrainedWeight, rows: slice, gradient: Tensor) -> None:
        """The optimizer on some rows of one weight. `gradient`: float32, (rows, columns)."""
        key = RandomKey(self._train.seed, self._step, weight.number, chunk=rows.start)
        moments = [moment.read(rows) for moment in weight.moments]
        if self._settings.update == "lion":
            direction = lion_direction(gradient, moments[0])
            lion_momentum(gradient, moments[0])
        else:
            adamw_moments(gradient, moments[0], moments[1])
            direction = adamw_direction(moments[0], moments[1], self._step)
        for number, values in enumerate(moments):
            self._keep_moment(weight, number, rows, values, key)
        decays = weight.decays and self._train.weight_decay > 0
        if decays:
            direction.add_(weight.storage.read(rows), alpha=self._train.weight_decay)
        rounding = key if self._settings.rounding == "stochastic" else None
        signs = self._settings.update == "lion" and not decays
        change = weight.storage.add(rows, direction, -self._learning_rate, rounding, signs=signs)
        self._metrics.count_change(change)

    def _keep_moment(
        self, weight: TrainedWeight, number: int, rows: slice, values: Tensor, key: RandomKey
    ) -> None:
        """Round a moment: to nearest where it has 8 bits and a sign, else stochastically."""
        moment = weight.moments[number]
        fine = isinstance(moment, Int8Storage)
        moment.write(rows, values, None if fine else key.of(stream=_ROUND_MOMENT + number))

    def new_epoch(self, step: int) -> None:
        """Decide anew which weights are outliers: the paper's thresholds, refreshed lazily."""
        stochastic = self._settings.rounding == "stochastic"
        for weight in self._weights:
            if isinstance(weight.storage, OutlierStorage):
                key = RandomKey(self._train.seed, step, weight.number, _CHOOSE_OUTLIERS)
                weight.storage.choose(key if stochastic else None)

    def state_dict(self) -> dict[str, Tensor]:
        """Codes, scales and values of every weight and moment. Random numbers need no state."""
        state: dict[str, Tensor] = {}
        for weight in self._weights:
            stored = {"weight": weight.storage, **dict(self._named_moments(weight))}
            for name, storage in stored.items():
                for part, tensor in storage.tensors().items():
                    state[f"{weight.name}/{name}.{part}"] = tensor
        return state

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The weights as the passes see them, one at a time."""
        for weight in self._weights:
            yield weight.name, weight.values()

    def moments(self) -> Iterable[tuple[str, str, Tensor]]:
        """Every moment in float32, one at a time: weight's name, moment's name, values."""
        for weight in self._weights:
            for name, moment in self._named_moments(weight):
                yield weight.name, name, weight.original(moment.read(EVERY))

    def _named_moments(self, weight: TrainedWeight) -> Iterator[tuple[str, Storage]]:
        return zip(_MOMENT_NAMES[self._settings.update], weight.moments, strict=True)
