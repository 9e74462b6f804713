"""Full tuning: AdamW on every weight in float32. The yardstick the others are measured against.

"Decoupled Weight Decay Regularization" (Loshchilov and Hutter, 2019), as torch implements it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from engine.contract.spec import RunSpec
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.methods.protocol import NonFiniteError, StepReport
from engine.roles import named_weights, refuse_non_finite

_MOMENTS = ("exp_avg", "exp_avg_sq")


class FullMethod:
    """Sixteen bytes for each weight: itself, its gradient and two moments."""

    def prepare(self, model: nn.Module, spec: RunSpec, device: torch.device) -> None:
        """Everything in float32 on the device."""
        self._model = model.to(device=device, dtype=torch.float32)
        self._max_grad_norm = spec.train.max_grad_norm
        self._named = {named.name: named.parameter for named in named_weights(model)}
        for name, parameter in self._named.items():
            refuse_non_finite(name, parameter)
        decay, plain = _by_dimension(self._named.values())
        self._optimizer = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": spec.train.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            fused=True,
        )
        self._allocate_moments()

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """Accumulate over the micro-batches, clip if asked, update."""
        total = sum(batch.num_target_tokens for batch in batches)
        loss_nats = 0.0
        for batch in batches:
            loss = summed_loss(self._model, batch)
            loss_nats += float(loss.detach())
            if not math.isfinite(loss_nats):
                self._optimizer.zero_grad(set_to_none=True)
                raise NonFiniteError("the loss", weights_intact=True)
            (loss / max(1, total)).backward()
        norm = self._gradient_norm()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return StepReport(loss_nats, total, grad_norm=norm)

    def _gradient_norm(self) -> float:
        parameters = list(self._named.values())
        gradients = [p.grad for p in parameters if p.grad is not None]
        total = nn.utils.get_total_norm(gradients)
        norm = float(total)
        if not math.isfinite(norm):
            self._optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError("a gradient", weights_intact=True)
        if self._max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self._max_grad_norm, total)
        return norm

    def _allocate_moments(self) -> None:
        """Before the first step, so that a state can be loaded and memory is what the plan says."""
        for parameter in self._named.values():
            self._optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                **{moment: torch.zeros_like(parameter) for moment in _MOMENTS},
            }

    def state_dict(self) -> dict[str, Tensor]:
        """Weights, both moments and AdamW's own step count."""
        state: dict[str, Tensor] = {}
        for name, parameter in self._named.items():
            state[f"{name}/weight"] = parameter.detach()
            for moment, tensor in self._optimizer.state[parameter].items():
                state[f"{name}/{moment}"] = tensor
        return state

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The weights as they are trained."""
        for name, parameter in self._named.items():
            yield name, parameter.detach()

    def moments(self) -> Iterable[tuple[str, str, Tensor]]:
        """Both moments of every weight."""
        for name, parameter in self._named.items():
            for moment in _MOMENTS:
                yield name, moment, self._optimizer.state[parameter][moment]

    def new_epoch(self, step: int) -> None:
        """Nothing here goes by passes."""


def _by_dimension(
    parameters: Iterable[nn.Parameter],
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices decay; norms and biases do not."""
    every = list(parameters)
    return [p for p in every if p.ndim > 1], [p for p in every if p.ndim <= 1]
