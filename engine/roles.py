"""What each weight of a model is for. The forecast and the methods go by the same roles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.contract.errors import RequestError
from engine.contract.model_source import FIELD

if TYPE_CHECKING:
    from engine.memory.model_shape import Role


@dataclass(frozen=True)
class NamedWeight:
    """One weight, its name in the original model, its role and the module that holds it."""

    name: str
    parameter: nn.Parameter
    role: Role
    module: nn.Module
    attribute: str

    @property
    def transposed(self) -> bool:
        """Whether it is a matrix stored (inputs, outputs), as GPT-2's Conv1D does."""
        return self.role == "linear" and is_conv1d(self.module)


def named_weights(model: nn.Module) -> Iterator[NamedWeight]:
    """Every weight once; of tied ones the first name, as transformers saves them."""
    head = output_head(model)
    seen: set[int] = set()
    for path, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            name = f"{path}.{attribute}" if path else attribute
            role = _role(module, attribute, parameter, head)
            yield NamedWeight(name, parameter, role, module, attribute)


def refuse_non_finite(name: str, parameter: nn.Parameter) -> None:
    """A damaged file must not be tuned.

    Raises:
        RequestError: The weight holds NaN or infinity.
    """
    if not bool(torch.isfinite(parameter).all()):
        raise RequestError(
            FIELD, f"{name} holds NaN or infinity: the model's files are damaged.", "Get them anew."
        )


def _role(
    module: nn.Module, attribute: str, parameter: nn.Parameter, head: nn.Module | None
) -> Role:
    if parameter.ndim < 2:
        return "small"
    if isinstance(module, nn.Embedding) or module is head:
        return "embedding"
    return "linear" if is_product(module) and attribute == "weight" else "other"


def is_product(module: nn.Module) -> bool:
    """Whether a module multiplies with its weight and does nothing else with it.

    A subclass with a forward of its own may.
    """
    return type(module).forward is nn.Linear.forward or is_conv1d(module)


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is GPT-2's linear layer, with its weight the other way round."""
    return type(module).forward is Conv1D.forward


def holders(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """By `id` of each parameter, every module that holds it, and under which name."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            found.setdefault(id(parameter), []).append((module, attribute))
    return found


def output_head(model: Any) -> nn.Module | None:
    """The layer that turns hidden states into scores over the vocabulary."""
    return model.get_output_embeddings()
