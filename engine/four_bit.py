"""A frozen model in 4 bits: linear layers of the blocks as bitsandbytes keeps them.

"QLoRA: Efficient Finetuning of Quantized LLMs" (Dettmers et al., 2023), section 3. Blocks of 64
weights share a scale, their largest magnitude; a weight is the nearest of sixteen values times it.
Double quantization keeps the scales themselves in 8 bits, less their mean, with one float32 scale
for each 256 of them: 4.127 bits per weight instead of 4.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit, Params4bit
from torch import Tensor, nn

from engine.roles import named_weights


@dataclass(frozen=True)
class FourBitFormat:
    """How a weight is kept in 4 bits.

    Attributes:
        quant_type: The sixteen values: quantiles of a normal distribution, or 4-bit floats.
        double_quant: Whether the scales are quantized too.
    """

    quant_type: Literal["nf4", "fp4"]
    double_quant: bool


def quantize_linear_layers(
    model: Any, form: FourBitFormat, device: torch.device, compute: torch.dtype
) -> int:
    """Replace linear layers of the blocks by frozen 4-bit ones, one after the other.

    Of the 16-bit matrices no more than one is on the device at a time.

    Args:
        model: In main memory, in a 16- or 32-bit format. Embeddings, head and norms stay.
        form: The format.
        device: Where the layers go.
        compute: Format of their products; biases are kept in it.

    Returns:
        How many were replaced. Conv1D layers and experts in one tensor are none of them.
    """
    linear = [
        named.name.removesuffix(".weight")
        for named in named_weights(model)
        if named.role == "linear" and isinstance(named.module, nn.Linear)
    ]
    for path in linear:
        _quantize(model, path, form, device, compute)
    model.is_loaded_in_4bit = True  # by this PEFT knows that it may meet such layers
    return len(linear)


def _quantize(
    model: nn.Module, path: str, form: FourBitFormat, device: torch.device, compute: torch.dtype
) -> None:
    old = model.get_submodule(path)
    assert isinstance(old, nn.Linear)
    new = Linear4bit(
        old.in_features,
        old.out_features,
        bias=False,
        compute_dtype=compute,
        compress_statistics=form.double_quant,
        quant_type=form.quant_type,
        device="meta",
    )
    # In evaluation on a CPU with AVX512-BF16, bitsandbytes would repack the weight for good: later
    # passes through it have no gradient, and it no longer dequantizes to what it was.
    new.support_avx512bf16_for_cpu = False
    if old.bias is not None:
        new.bias = nn.Parameter(old.bias.detach().to(device, compute), requires_grad=False)
    kind: Any = Params4bit  # made by `__new__`, which type checkers do not follow
    weight = kind(
        old.weight.detach(),
        requires_grad=False,
        compress_statistics=form.double_quant,
        quant_type=form.quant_type,
        module=new,
    )
    new.weight = weight.to(device)  # quantizes
    # The format that it dequantizes to: forward goes by the inputs', backward by this.
    weight.quant_state.dtype = compute
    new.train(old.training)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def is_four_bit(module: nn.Module) -> bool:
    """Whether a layer keeps its weight in 4 bits."""
    return isinstance(module, Linear4bit)


def dequantized(layer: nn.Module) -> Tensor:
    """The weight that a 4-bit layer multiplies with, (outputs, inputs), in its products' format."""
    assert isinstance(layer, Linear4bit)
    weight: Any = layer.weight
    values: Any = dequantize_4bit(weight.data, weight.quant_state)
    return values


def scale_tensors(model: nn.Module) -> Iterator[Tensor]:
    """What belongs to the 4-bit weights and is no parameter: scales, and tables of values."""
    for module in model.modules():
        if isinstance(module, Linear4bit):
            weight: Any = module.weight
            yield from _tensors(weight.quant_state)


def _tensors(state: Any) -> Iterator[Tensor]:
    yield state.absmax
    yield state.code
    if state.nested:
        yield state.offset
        yield from _tensors(state.state2)
