"""What the ablation compares QFT with: Lion and AdamW by plain autograd, no layer of ours.

Weights are kept in float32, or in bfloat16 without a float32 master copy; moments in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from engine.contract.spec import RunSpec
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.methods.protocol import StepReport
from engine.optim.adamw import adamw_direction, adamw_moments
from engine.optim.lion import lion_direction, lion_momentum
from engine.quant.randomness import RandomKey
from engine.quant.rounding import stochastic_bfloat16
from engine.roles import named_weights

Optimizer = Literal["lion", "adamw"]
_MOMENTS = {"lion": ("momentum",), "adamw": ("exp_avg", "exp_avg_sq")}


@dataclass
class ReferenceMethod:
    """A method of plain autograd.

    Attributes:
        optimizer: The update rule.
        weights_in: Format of the weights between two steps; passes and updates are in float32.
        stochastic: How a new weight is rounded to bfloat16.
    """

    optimizer: Optimizer
    weights_in: torch.dtype = torch.float32
    stochastic: bool = False
    _stored: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    _moments: dict[str, tuple[Tensor, ...]] = field(default_factory=dict[str, tuple[Tensor, ...]])

    def prepare(self, model: nn.Module, spec: RunSpec, device: torch.device) -> None:
        """Copy the weights in their format; the model's own become float32 copies of these."""
        assert spec.train.weight_decay == 0
        assert spec.train.max_grad_norm is None
        self._model = model.to(device=device, dtype=torch.float32)
        self._seed = spec.train.seed
        self._named = {named.name: named.parameter for named in named_weights(model)}
        for name, parameter in self._named.items():
            self._stored[name] = parameter.detach().to(self.weights_in, copy=True)
            zeros = (torch.zeros_like(parameter) for _ in _MOMENTS[self.optimizer])
            self._moments[name] = tuple(zeros)
            parameter.data.copy_(self._stored[name])

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """One pass over all micro-batches, one update."""
        total = sum(batch.num_target_tokens for batch in batches)
        loss_nats = 0.0
        for batch in batches:
            loss = summed_loss(self._model, batch)
            loss_nats += float(loss.detach())
            (loss / total).backward()
        square = 0.0
        for number, (name, parameter) in enumerate(self._named.items()):
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            square += float(gradient.square().sum())
            key = RandomKey(self._seed, step, number)
            self._update(name, parameter.data, gradient, learning_rate, step, key)
        return StepReport(loss_nats, total, square**0.5)

    def _update(
        self, name: str, weight: Tensor, gradient: Tensor, rate: float, step: int, key: RandomKey
    ) -> None:
        moments = self._moments[name]
        if self.optimizer == "lion":
            direction = lion_direction(gradient, moments[0])
            lion_momentum(gradient, moments[0])
        else:
            adamw_moments(gradient, moments[0], moments[1])
            direction = adamw_direction(moments[0], moments[1], step)
        exact = weight.add(direction, alpha=-rate)
        if self.stochastic and self.weights_in == torch.bfloat16:
            exact = stochastic_bfloat16(exact, key)
        self._stored[name].copy_(exact)
        weight.copy_(self._stored[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Weights in their format and moments."""
        state = {f"{name}/weight": stored for name, stored in self._stored.items()}
        for name, moments in self._moments.items():
            for moment, tensor in zip(_MOMENTS[self.optimizer], moments, strict=True):
                state[f"{name}/{moment}"] = tensor
        return state

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The weights as the passes see them."""
        for name, parameter in self._named.items():
            yield name, parameter.detach()

    def moments(self) -> Iterable[tuple[str, str, Tensor]]:
        """Every moment of every weight."""
        for name, moments in self._moments.items():
            for moment, tensor in zip(_MOMENTS[self.optimizer], moments, strict=True):
                yield name, moment, tensor

    def new_epoch(self, step: int) -> None:
        """Nothing here goes by passes."""
