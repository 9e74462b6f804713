"""Updates inside the backward pass: a gradient is used as soon as it is whole, and freed.

"Full Parameter Fine-tuning for Large Language Models with Limited Resources" (Lv et al., 2023),
section 3: each trained tensor has a hook that updates it when its gradient has been accumulated,
so that one gradient is alive at a time. To clip by the length of the whole gradient, a backward
pass before it only measures (section 3.3).

A weight changes in place, and autograd knows of it: a weight that is updated while a pass still
needs it raises an error. So gradients must be whole when they arrive, which rules out reentrant
checkpointing. A weight that two layers share, such as a tied table, arrives once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from engine.casting import compute_dtype, compute_in
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.memory.layout import row_chunks
from engine.memory.plans import MemoryPlan
from engine.quant.randomness import RandomKey
from engine.quant.rounding import stochastic_bfloat16
from engine.roles import NamedWeight, named_weights, refuse_non_finite
from engine.step_report import NonFiniteError, StepReport

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec

# As torch's clipping has it.
_CLIP_EPSILON = 1e-6


class Chunk(NamedTuple):
    """Some rows of some matrices of a weight."""

    matrices: slice
    rows: slice


@dataclass(frozen=True)
class FusedWeight:
    """One trained weight, seen as a stack of matrices; a vector is a matrix of one row.

    Attributes:
        name: In the original model.
        number: Keys its random numbers.
        parameter: The weight itself.
        rate: Its learning rate as a multiple of the others'.
        weight_decay: Pull to zero; norms and biases have none.
    """

    name: str
    number: int
    parameter: nn.Parameter
    rate: float
    weight_decay: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Matrices, rows and columns."""
        *stack, rows, columns = (1, 1, *self.parameter.shape)
        return math.prod(stack), rows, columns

    def groups(self) -> Iterator[list[Chunk]]:
        """Chunks of whole matrices; many small matrices are one chunk, a large one is several."""
        matrices, rows, columns = self.shape
        limit = MemoryPlan.chunk_elements(self.parameter.device.type)
        together = max(1, limit // (rows * columns))
        for first in range(0, matrices, together):
            group = slice(first, min(first + together, matrices))
            yield [Chunk(group, slice(*ends)) for ends in row_chunks((rows, columns), limit)]


@dataclass(frozen=True)
class WeightUpdate:
    """A weight at the moment of its update.

    Attributes:
        weight: Which.
        learning_rate: The weight's own.
        step: Number of the step, from 1.
        key: Decides how it is rounded; None to nearest.
    """

    weight: FusedWeight
    learning_rate: float
    step: int
    key: RandomKey | None
    _gradient: Tensor
    _clip_value: float | None
    _clip_factor: float

    def gradient(self, chunk: Chunk) -> Tensor:
        """Clipped, in float32, (matrices, rows, columns); live where it is stored so."""
        piece = self._gradient.view(self.weight.shape)[chunk].float()
        if self._clip_value is not None:
            piece = piece.clamp(-self._clip_value, self._clip_value)
        return piece if self._clip_factor == 1 else piece * self._clip_factor

    def read(self, chunk: Chunk) -> Tensor:
        """The weights in float32, (matrices, rows, columns): live where they are stored so.

        To be changed in place and handed to `write`.
        """
        return self._stored(chunk).float()

    def write(self, chunk: Chunk, values: Tensor) -> None:
        """Round what `read` gave back into the weight."""
        stored = self._stored(chunk)
        if stored.dtype == torch.float32:
            return  # changed already
        if self.key is None:
            stored.copy_(values)
            return
        first = chunk.matrices.start * self.weight.shape[1] + chunk.rows.start
        stored.copy_(stochastic_bfloat16(values, self.key.of(chunk=first)))

    def _stored(self, chunk: Chunk) -> Tensor:
        # Detached and not `.data`: autograd counts the changes of the one, not of the other.
        return self.weight.parameter.detach().view(self.weight.shape)[chunk]


class _Pass(NamedTuple):
    """What a backward pass is for: the length of the gradient, the update, or both at once."""

    measures: bool
    updates: bool


class BackwardUpdates:
    """A model whose backward pass updates it.

    Args:
        model: Freshly loaded; taken over as the settings say.
        spec: With LOMO's or AdaLomo's settings.
        device: Where to train.
        rule: Called with each weight's update as its gradient arrives.

    Raises:
        RequestError: A weight is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: RunSpec,
        device: torch.device,
        rule: Callable[[WeightUpdate], None],
    ) -> None:
        assert spec.method.kind == "lomo" or spec.method.kind == "adalomo"
        self._model, self._settings, self._train, self._rule = model, spec.method, spec.train, rule
        self._learning_rate, self._step, self._clip_factor = 0.0, 0, 1.0
        self._pass = _Pass(measures=True, updates=True)
        self._squares: list[tuple[str, Tensor]] = []
        self._named = {named.name: named.parameter for named in self._take_over(device)}

    def _take_over(self, device: torch.device) -> list[NamedWeight]:
        """Every weight on the device in the format it is kept in; a hook on each trained one."""
        assert self._settings.precision != "auto", "the device decides: engine.memory.resolve"
        kept = torch.bfloat16 if self._settings.precision == "bf16" else torch.float32
        named = list(named_weights(self._model))
        self.weights: list[FusedWeight] = []
        for number, one in enumerate(named):
            refuse_non_finite(one.name, one.parameter)
            # A copy always: a view of the mapped file would keep all of it in memory.
            one.parameter.data = one.parameter.data.to(device, kept, copy=True).contiguous()
            rate = self._settings.embedding_rate if one.role == "embedding" else 1.0
            one.parameter.requires_grad_(rate > 0)
            if rate > 0:
                decay = self._train.weight_decay if one.parameter.ndim > 1 else 0.0
                self._hook(FusedWeight(one.name, number, one.parameter, rate, decay))
        self._model.to(device)
        if kept != torch.float32:
            compute_in(self._model, compute_dtype(device))
        return named

    def _hook(self, weight: FusedWeight) -> None:
        self.weights.append(weight)
        weight.parameter.register_post_accumulate_grad_hook(lambda _: self._receive(weight))

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """One forward pass, and one backward pass; two where the gradient is clipped by its length.

        Raises:
            NonFiniteError: Weights have moved only where the gradient alone is not finite, and
                there was no pass to measure it before.
        """
        (batch,) = batches  # a spec with more is refused
        self._learning_rate, self._step, self._clip_factor = learning_rate, step, 1.0
        loss = summed_loss(self._model, batch)
        loss_nats, targets = float(loss.detach()), batch.num_target_tokens
        if not math.isfinite(loss_nats):
            raise NonFiniteError("the loss", weights_intact=True)
        mean = loss / max(1, targets)
        limit = self._train.max_grad_norm
        if limit is None or self._settings.clip != "two_pass_norm":
            return StepReport(loss_nats, targets, self._backward(mean, _Pass(True, True)))
        # Keeping the graph saves a forward pass, and takes no more memory: the peak is where the
        # backward pass begins, and recomputed activations are freed as they are used.
        norm = self._backward(mean, _Pass(measures=True, updates=False))
        self._clip_factor = min(1.0, limit / (norm + _CLIP_EPSILON))
        self._backward(mean, _Pass(measures=False, updates=True))
        return StepReport(loss_nats, targets, norm, {"clip_factor": self._clip_factor})

    def _backward(self, mean: Tensor, doing: _Pass) -> float:
        """A whole pass; the gradient's length, if measured. No gradient outlives it."""
        self._pass = doing
        try:
            mean.backward(retain_graph=not doing.updates)
            square = float(sum(one for _, one in self._squares))
            if not math.isfinite(square):
                culprit = next(n for n, one in self._squares if not bool(torch.isfinite(one)))
                raise NonFiniteError(f"the gradient of {culprit}", weights_intact=not doing.updates)
        finally:
            self._squares.clear()
            for weight in self.weights:
                weight.parameter.grad = None
        return math.sqrt(square)

    def _receive(self, weight: FusedWeight) -> None:
        """A gradient that is whole: measured, used and freed."""
        gradient, weight.parameter.grad = weight.parameter.grad, None
        assert gradient is not None
        if self._pass.measures:
            self._squares.append((weight.name, _square(gradient)))
        if self._pass.updates:
            self._rule(self._update_of(weight, gradient))

    def _update_of(self, weight: FusedWeight, gradient: Tensor) -> WeightUpdate:
        stochastic = self._settings.rounding == "stochastic"
        return WeightUpdate(
            weight,
            self._learning_rate * weight.rate,
            self._step,
            RandomKey(self._train.seed, self._step, weight.number) if stochastic else None,
            gradient,
            self._settings.clip_value if self._settings.clip == "value" else None,
            self._clip_factor,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The trained weights, live."""
        return {f"{one.name}/weight": one.parameter.detach() for one in self.weights}

    def all_weights(self) -> Iterable[tuple[str, Tensor]]:
        """Every weight of the model, frozen ones too, under its original name."""
        for name, parameter in self._named.items():
            yield name, parameter.detach()


def _square(gradient: Tensor) -> Tensor:
    """Sum of squares in float32, a scalar where the gradient is."""
    pieces = gradient.flatten().split(MemoryPlan.chunk_elements(gradient.device.type))
    norms = [torch.linalg.vector_norm(piece, dtype=torch.float32) for piece in pieces]
    return torch.stack(norms).square_().sum()
