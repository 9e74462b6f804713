"""Weights stored in one format and computed with in another, one at a time.

A CPU multiplies float32 fastest, and many cannot multiply bfloat16 at all. Where a model's weights
are kept in bfloat16 all the same, each is cast when its layer needs it, and cast again in the
backward pass: no second copy of the model is ever alive.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from engine.roles import is_conv1d, is_product


def compute_dtype(device: torch.device) -> torch.dtype:
    """The format of activations: bfloat16 where hardware multiplies it, float32 on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def compute_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Make every layer compute in `dtype`, whatever its weights are stored in.

    Gradients arrive in the weights' own format. Norms and weights of unknown kind are cast as a
    whole, and their casts live until the backward pass.
    """
    for module in list(model.modules()):
        every = module.named_parameters(recurse=False)
        own = {name: one for name, one in every if one.is_floating_point()}  # not 4-bit codes
        if all(parameter.dtype == dtype for parameter in own.values()):
            continue
        if isinstance(module, nn.Embedding) and _takes_tokens_alone(module):
            _cast_rows(module, dtype)
        elif is_product(module):
            _cast_in_forward(module, dtype)
        else:
            for attribute in own:
                cast = _Cast(dtype)
                parametrize.register_parametrization(module, attribute, cast, unsafe=True)


def _takes_tokens_alone(module: nn.Embedding) -> bool:
    """Whether it is asked as a plain embedding is; OPT's table of positions is not."""
    return len(signature(type(module).forward).parameters) == 2


def _cast_rows(module: Any, dtype: torch.dtype) -> None:
    """Bind a forward that casts the rows that it looks up, and no others.

    What a subclass does with its table, such as to scale it, it does with a table of these rows.
    """
    kind: Any = type(module)
    weights: dict[str, Any] = module._parameters

    def embed(tokens: Tensor) -> Tensor:
        weight, padding = weights["weight"], module.padding_idx
        if kind.forward is nn.Embedding.forward:
            return functional.embedding(tokens, weight, padding).to(dtype)
        rows, places = tokens.unique(return_inverse=True)
        few = functional.embedding(rows, weight, padding).to(dtype)
        weights["weight"], module.padding_idx = few, None
        try:
            return kind.forward(module, places)
        finally:
            weights["weight"], module.padding_idx = weight, padding

    module.forward = embed


def _cast_in_forward(module: Any, dtype: torch.dtype) -> None:
    """Bind a forward to this one layer; its class stays, so that roles and PEFT know it."""
    transposed = is_conv1d(module)

    def multiply(inputs: Tensor) -> Tensor:
        bias = None if module.bias is None else module.bias.to(dtype)
        product: Tensor = _CastProduct.apply(inputs.to(dtype), module.weight, transposed)
        return product if bias is None else product + bias

    module.forward = multiply


class _CastProduct(torch.autograd.Function):
    """`inputs @ weight.T` in the inputs' format; the weight's cast is dropped at once.

    Shapes: inputs (..., in); weight (out, in), or (in, out) where transposed; product (..., out).
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, transposed: bool) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(inputs, weight)
        ctx.transposed = transposed
        cast = weight.to(inputs.dtype)
        return inputs @ cast if transposed else functional.linear(inputs, cast)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight = None, None
        if ctx.needs_input_grad[0]:
            cast = weight.to(gradient.dtype)
            of_inputs = gradient @ (cast.T if ctx.transposed else cast)
            del cast  # before the weight's gradient, which is as large, is made
        if ctx.needs_input_grad[1]:
            outputs, taken = gradient.flatten(0, -2), inputs.flatten(0, -2)
            product = taken.T @ outputs if ctx.transposed else outputs.T @ taken
            of_weight = product.to(weight.dtype)
        return of_inputs, of_weight, None


class _Cast(nn.Module):
    """Lets a norm or a weight of unknown kind appear in another format."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, weight: Tensor) -> Tensor:
        return weight.to(self.dtype)
