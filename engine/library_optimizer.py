"""Optimizers from torch and bitsandbytes, with a state that exists at once and resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

OptimizerName = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "lion", "sgd"]
ADAMW_BETAS = (0.9, 0.999)
LION_BETAS = (0.9, 0.99)
# Moments by the names that torch gives them; bitsandbytes numbers them.
_MOMENTS = {"exp_avg": "state1", "exp_avg_sq": "state2"}


@dataclass(frozen=True)
class Decaying:
    """A parameter and the decay that it is subject to, as a share of the learning rate."""

    parameter: nn.Parameter
    weight_decay: float


class LibraryOptimizer:
    """One optimizer over many parameters.

    Args:
        name: Which. On a CPU the paged ones are the plain ones: there is nowhere to page to.
        parameters: In float32.
    """

    def __init__(self, name: OptimizerName, parameters: Sequence[Decaying]) -> None:
        assert all(one.parameter.dtype == torch.float32 for one in parameters)
        decays = sorted({one.weight_decay for one in parameters})
        self._optimizer = _optimizer(
            name,
            [
                {
                    "params": [p.parameter for p in parameters if p.weight_decay == decay],
                    "weight_decay": decay,
                }
                for decay in decays
            ],
            {one.parameter.device.type for one in parameters} == {"cpu"},
        )
        groups = self._optimizer.param_groups
        self._group_of = {one: group for group in groups for one in group["params"]}
        self._allocate()

    def _allocate(self) -> None:
        """Before the first step, so that a state can be loaded and memory is what the plan says."""
        for number, group in enumerate(self._optimizer.param_groups):
            for place, parameter in enumerate(group["params"]):
                init_state = getattr(self._optimizer, "init_state", None)  # bitsandbytes' own
                if init_state is not None:
                    init_state(group, parameter, number, place)
                elif isinstance(self._optimizer, torch.optim.AdamW):
                    self._optimizer.state[parameter] = {
                        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                        **{moment: torch.zeros_like(parameter) for moment in _MOMENTS},
                    }

    def step(self, learning_rate: float, step: int, only: nn.Parameter | None = None) -> None:
        """Update every parameter that has a gradient, or one of them; gradients stay.

        Args:
            learning_rate: Of this step.
            step: Number of this step, from 1: what corrects moments that began at zero.
            only: The one parameter to update.
        """
        every = self._optimizer.param_groups
        if only is not None:
            group = {**self._group_of[only], "params": [only]}
            self._optimizer.param_groups = [group]
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
            for parameter in group["params"]:
                _count(self._optimizer.state.get(parameter, {}), step - 1)
        self._optimizer.step()
        self._optimizer.param_groups = every

    def state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """The live tensors of one parameter's state; its step count is none of them."""
        return {
            name: value
            for name, value in self._optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor) and not name.startswith("qmap") and name != "step"
        }

    def moments(self, parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
        """Every moment in float32, with its name and the parameter's shape."""
        state: dict[str, Any] = self._optimizer.state.get(parameter, {})
        for name, numbered in _MOMENTS.items():
            if name in state:
                yield name, state[name]
            elif numbered in state:
                yield name, _dequantized(state, numbered)


def _optimizer(
    name: OptimizerName, groups: list[dict[str, Any]], on_cpu: bool
) -> torch.optim.Optimizer:
    plain = name.removeprefix("paged_") if on_cpu else name
    if plain == "sgd":
        return torch.optim.SGD(groups, lr=0.0)
    if plain == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=ADAMW_BETAS, fused=True)
    # Only here: it takes a second to import, and most methods have no use for it.
    from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit, PagedAdamW32bit
    from bitsandbytes.optim.lion import Lion

    if plain == "lion":
        return Lion(groups, lr=0.0, betas=LION_BETAS)
    kinds: dict[str, Any] = {
        "adamw_8bit": AdamW8bit,
        "paged_adamw_8bit": PagedAdamW8bit,
        "paged_adamw": PagedAdamW32bit,
    }
    return kinds[plain](groups, lr=0.0, betas=ADAMW_BETAS)


def _count(state: dict[str, Any], steps: int) -> None:
    if isinstance(state.get("step"), Tensor):
        state["step"].fill_(steps)
    elif "step" in state:
        state["step"] = steps


def _dequantized(state: dict[str, Any], moment: str) -> Tensor:
    values: Tensor = state[moment]
    if values.dtype == torch.float32:
        return values
    number = moment[-1]

    from bitsandbytes.functional import dequantize_blockwise

    return dequantize_blockwise(
        values, absmax=state[f"absmax{number}"], code=state[f"qmap{number}"], blocksize=256
    )
