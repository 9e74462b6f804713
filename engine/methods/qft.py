"""QFT: every weight is trained and kept in 8 bits, and updated inside the backward pass.

"QFT: Quantized Full-parameter Tuning of LLMs with Affordable Resources" (Li et al., 2023): weights
and momentum are stored as 8-bit codes and computed with in floating point (section 3); a custom
backward hands each gradient on, since an integer tensor has no `.grad` (section 3.3); Lion moves
every weight by the same size (section 3.1).

Two departures. The paper rounds to nearest, which loses every update under half a step; here an
update is rounded stochastically unless `rounding: nearest` asks for the published way. And the
paper stacks all gradients before it updates; here a gradient is used at once and never kept, so
that one tensor's gradient is alive at a time.

Stored how: `engine.memory.plans.QFT_PLAN`. Linear layers of the blocks as int8 with a scale per
row; embeddings and head in bfloat16, updated stochastically too; norms and biases in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from engine.contract.errors import RequestError
from engine.contract.model_source import FIELD
from engine.contract.spec import QftSettings, RunSpec
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.memory.layout import Int8
from engine.memory.plans import QFT_PLAN
from engine.methods.protocol import NonFiniteError, StepReport
from engine.optim.lion import lion_direction, lion_momentum
from engine.quant.int8 import dequantize
from engine.quant.randomness import RandomKey
from engine.quant.storage import DenseStorage, Int8Storage, Storage, allocate, quantized
from engine.roles import NamedWeight, named_weights, refuse_non_finite


@dataclass(frozen=True)
class TrainedWeight:
    """One weight with its momentum. `number` keys its random numbers."""

    name: str
    number: int
    shape: tuple[int, ...]
    weight: Storage
    momentum: Storage
    decays: bool


class QftMethod:
    """Trains every weight in about two bytes each."""

    def prepare(self, model: nn.Module, spec: RunSpec, device: torch.device) -> None:
        """Turn the model's linear layers into 8-bit ones and hook every other weight."""
        assert isinstance(spec.method, QftSettings)
        self._model = model
        self._stochastic = spec.method.rounding == "stochastic"
        self._weight_decay = spec.train.weight_decay
        self._seed = spec.train.seed
        self._compute = compute_dtype(device)
        self._learning_rate = 0.0
        self._step = 0
        self._squares = 0.0
        self._changed = 0
        self._trained = [
            self._take_over(model, named, number, device)
            for number, named in enumerate(list(named_weights(model)))
        ]
        _refuse_shared(model, self._trained)
        model.to(device)
        _compute_in(model, self._compute)

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """One forward and one backward pass; when backward ends, every weight has moved."""
        assert len(batches) == 1, "the spec refuses accumulation for fused updates"
        batch = batches[0]
        self._learning_rate, self._step = learning_rate, step
        self._squares, self._changed = 0.0, 0
        loss = summed_loss(self._model, batch)
        loss_nats, count = float(loss.detach()), batch.num_target_tokens
        if not math.isfinite(loss_nats):
            raise NonFiniteError("the loss", weights_intact=True)
        (loss / max(1, count)).backward()
        return StepReport(
            loss_nats,
            count,
            grad_norm=math.sqrt(self._squares),
            metrics=self._metrics(),
        )

    def _metrics(self) -> dict[str, float]:
        codes = self._num_codes
        return {"codes_changed_percent": 100 * self._changed / codes} if codes else {}

    def _update(self, trained: TrainedWeight, rows: slice, gradient: Tensor) -> None:
        """Lion on some rows of one weight. `gradient`: (rows, columns), float32."""
        square = float(torch.linalg.vector_norm(gradient)) ** 2
        if not math.isfinite(square):
            raise NonFiniteError(f"the gradient of {trained.name}", weights_intact=False)
        self._squares += square
        momentum = trained.momentum.read(rows)
        change = lion_direction(gradient, momentum)
        if trained.decays and self._weight_decay:
            change.add_(trained.weight.read(rows), alpha=self._weight_decay)
        change.mul_(-self._learning_rate)
        self._apply(trained, rows, change)
        trained.momentum.write(rows, lion_momentum(gradient, momentum))

    def _apply(self, trained: TrainedWeight, rows: slice, change: Tensor) -> None:
        key = RandomKey(self._seed, self._step, trained.number, chunk=rows.start)
        storage = trained.weight
        before = storage.codes[rows].clone() if isinstance(storage, Int8Storage) else None
        storage.add(rows, change, key if self._stochastic else None)
        if before is not None and isinstance(storage, Int8Storage):
            self._changed += int(torch.count_nonzero(before != storage.codes[rows]))

    def _take_over(
        self, model: nn.Module, named: NamedWeight, number: int, device: torch.device
    ) -> TrainedWeight:
        plan = QFT_PLAN.of(named.role)
        shape = tuple(named.parameter.shape)
        refuse_non_finite(named.name, named.parameter)
        if named.role == "linear":
            assert isinstance(plan.weight, Int8)
            weight: Storage = quantized(plan.weight, named.parameter, device)
        else:
            stored = allocate(plan.weight, shape, torch.device("meta")).tensors()["values"]
            # A copy always: a view of the mapped file would keep all of it in memory.
            named.parameter.data = named.parameter.data.to(device, stored.dtype, copy=True)
            weight = DenseStorage(named.parameter)
        momentum = allocate(plan.moments[0], shape or (1,), device)
        trained = TrainedWeight(
            named.name, number, shape, weight, momentum, decays=named.parameter.ndim > 1
        )
        self._hook(model, named, trained)
        return trained

    def _hook(self, model: nn.Module, named: NamedWeight, trained: TrainedWeight) -> None:
        """See to it that `_update` gets this weight's gradient as soon as it exists."""
        if named.role == "linear":
            assert isinstance(named.module, nn.Linear)
            layer = QftLinear(named.module.bias, trained, self._compute, self._update)
            model.set_submodule(named.name.rpartition(".")[0], layer)
            return

        def consume(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradient, parameter.grad = parameter.grad, None
            matrix = gradient.view(trained.weight.num_rows, trained.weight.num_columns)
            for rows in row_chunks(trained.weight, parameter.device):
                self._update(trained, rows, matrix[rows].float())

        named.parameter.register_post_accumulate_grad_hook(consume)

    @property
    def _num_codes(self) -> int:
        return sum(
            trained.weight.codes.numel()
            for trained in self._trained
            if isinstance(trained.weight, Int8Storage)
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Codes, scales and values of every weight and momentum. Random numbers need no state."""
        state: dict[str, Tensor] = {}
        for trained in self._trained:
            for part, tensor in trained.weight.tensors().items():
                state[f"{trained.name}/weight.{part}"] = tensor
            for part, tensor in trained.momentum.tensors().items():
                state[f"{trained.name}/momentum.{part}"] = tensor
        return state

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The weights in floating point, one at a time."""
        for trained in self._trained:
            storage = trained.weight
            if isinstance(storage, Int8Storage):
                values = dequantize(storage.codes, storage.scales, torch.float32)
                yield trained.name, values.view(trained.shape)
            else:
                yield trained.name, storage.tensors()["values"]


def compute_dtype(device: torch.device) -> torch.dtype:
    """The format of activations: bfloat16 where hardware multiplies it, float32 on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


class QftLinear(nn.Module):
    """A linear layer whose weight is codes. Same output as its dequantized twin."""

    def __init__(
        self,
        bias: nn.Parameter | None,
        trained: TrainedWeight,
        compute: torch.dtype,
        update: Callable[[TrainedWeight, slice, Tensor], None],
    ) -> None:
        super().__init__()
        assert isinstance(trained.weight, Int8Storage)
        self.register_parameter("bias", bias)
        self.trained = trained
        self.storage = trained.weight
        self.compute = compute
        self.update = update

    @property
    def weight(self) -> Tensor:
        """The dequantized weight, shape (out, in); some models look at its dtype."""
        return dequantize(self.storage.codes, self.storage.scales, self.compute)

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs`: (..., in). Returns (..., out)."""
        outputs = _QftMatmul.apply(inputs.to(self.compute), self)
        return outputs if self.bias is None else outputs + self.bias


class _QftMatmul(torch.autograd.Function):
    """Multiply with the dequantized weight; in backward, update the weight and keep no gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: QftLinear) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.layer = layer
        ctx.version = layer.storage.codes._version
        return functional.linear(inputs, layer.weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None]:
        (inputs,) = ctx.saved_tensors
        layer: QftLinear = ctx.layer
        if ctx.version != layer.storage.codes._version:
            raise RequestError(
                FIELD,
                f"{layer.trained.name} is used twice in one pass, and QFT has already updated it.",
                "Choose full, or another model.",
            )
        grad_output = grad_outputs[0]
        # With the weight of the forward pass, so before the update.
        grad_input = grad_output @ layer.weight if ctx.needs_input_grad[0] else None
        rows_of_output = grad_output.flatten(0, -2)
        rows_of_input = inputs.flatten(0, -2)
        for rows in row_chunks(layer.storage, inputs.device):
            gradient = rows_of_output[:, rows].T @ rows_of_input
            layer.update(layer.trained, rows, gradient.float())
        return grad_input, None


def _refuse_shared(model: nn.Module, taken: Sequence[TrainedWeight]) -> None:
    """A matrix that a second layer holds too would stay there as it was, untrained."""
    known = {id(one.weight.values) for one in taken if isinstance(one.weight, DenseStorage)}
    for name, parameter in model.named_parameters():
        if id(parameter) not in known:
            raise RequestError(
                FIELD,
                f"{name} is shared by several layers: this architecture cannot be tuned with QFT.",
                "Choose full, or another model.",
            )


class _Cast(nn.Module):
    """Lets a weight be stored in one format and computed with in another."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, weight: Tensor) -> Tensor:
        return weight.to(self.dtype)


def _compute_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Make every weight that is stored in another format appear in `dtype`."""
    for module in list(model.modules()):
        for attribute, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dtype != dtype:
                parametrize.register_parametrization(module, attribute, _Cast(dtype), unsafe=True)


def row_chunks(storage: Storage, device: torch.device) -> list[slice]:
    """Whole rows, at most `chunk_elements` weights at once, so that temporaries stay bounded."""
    size = max(1, QFT_PLAN.chunk_elements(device.type) // storage.num_columns)
    return [
        slice(start, min(start + size, storage.num_rows))
        for start in range(0, storage.num_rows, size)
    ]
