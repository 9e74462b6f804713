"""What each weight of a model is for. The forecast and the methods go by the same roles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.contract.errors import RequestError
from engine.contract.model_source import FIELD
from engine.memory.model_shape import Role


@dataclass(frozen=True)
class NamedWeight:
    """One weight, its name in the original model, its role and the module that holds it."""

    name: str
    parameter: nn.Parameter
    role: Role
    module: nn.Module
    attribute: str


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
    # A subclass with a forward of its own does something else with its weight.
    if type(module).forward is nn.Linear.forward and attribute == "weight":
        return "linear"
    return "other"


def output_head(model: Any) -> nn.Module | None:
    """The layer that turns hidden states into scores over the vocabulary."""
    return model.get_output_embeddings()
