"""Low-rank adapters beside a frozen model, by PEFT.

"LoRA: Low-Rank Adaptation of Large Language Models" (Hu et al., 2021), section 4.1: a layer gives
W x + (alpha / rank) B A x, where W is frozen, A begins at random and B at zero. "QLoRA: Efficient
Finetuning of Quantized LLMs" (Dettmers et al., 2023), equation 5: the same with W in 4 bits.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, TaskType, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import cast_adapter_dtype
from torch import Tensor, nn

from engine.casting import compute_dtype, compute_in
from engine.contract.adapter_targets import is_target, refuse_adapter
from engine.roles import named_weights, refuse_non_finite

if TYPE_CHECKING:
    from engine.contract.method_settings import LoraSettings, QloraSettings
    from engine.four_bit import FourBitFormat

ADAPTER = "default"
_CAST = re.compile(r"\.parametrizations\.(\w+)\.original$")


def adapter_config(model: nn.Module, method: LoraSettings | QloraSettings) -> LoraConfig:
    """What PEFT is to put on a freshly loaded model.

    Raises:
        RequestError: `targets` names no layer, or the model has none that 4 bits can hold.
    """
    layers = {
        named.name.removesuffix(".weight"): named.transposed
        for named in named_weights(model)
        if named.role == "linear"
    }
    refuse_adapter(method, layers)
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=method.rank,
        lora_alpha=method.alpha,  # pyright: ignore[reportArgumentType]  PEFT only divides it
        lora_dropout=method.dropout,
        target_modules=sorted(layer for layer in layers if is_target(layer, method.targets)),
        fan_in_fan_out=any(layers.values()),
    )


def freeze(model: Any, form: FourBitFormat | None, device: torch.device) -> None:
    """Lay a freshly loaded model out as the base of an adapter, on the device.

    Everything is kept in bfloat16 and nothing is trained. On a CPU a layer computes in float32.

    Args:
        model: In main memory.
        form: How the linear layers of the blocks are kept instead; None for bfloat16 too.
        device: Where it is used.

    Raises:
        RequestError: A weight is not finite.
    """
    model.requires_grad_(False)
    for named in named_weights(model):
        refuse_non_finite(named.name, named.parameter)
        named.parameter.data = named.parameter.data.to(torch.bfloat16)
    placed: set[nn.Module] = set()
    if form is not None:
        # Only here: LoRA needs no bitsandbytes.
        from engine.four_bit import is_four_bit, quantize_linear_layers

        quantize_linear_layers(model, form, device, compute_dtype(device))
        placed = {module for module in model.modules() if is_four_bit(module)}
    for module in model.modules():
        if module not in placed:
            _move(module, device)
    compute_in(model, compute_dtype(device))


def _move(module: nn.Module, device: torch.device) -> None:
    """Its own tensors only; a layer in 4 bits must not be touched once it is in place."""
    for parameter in module.parameters(recurse=False):
        # A copy always: a view of the mapped file would keep all of it in memory.
        parameter.data = parameter.data.to(device, copy=True)
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, buffer.to(device))


def add_adapter(
    model: nn.Module, config: LoraConfig, seed: int, name: str = ADAPTER
) -> dict[str, nn.Parameter]:
    """Put an adapter on a frozen model, in place.

    Args:
        model: As `freeze` leaves it; it may have adapters of other names.
        config: As `adapter_config` makes it.
        seed: Decides the random half of the adapter.
        name: Of the adapter among those of this model.

    Returns:
        By name the adapter's matrices, in float32: all that is trained.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # A second adapter is meant: each is asked for by its name.
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, name)
    cast_adapter_dtype(model, name)  # to float32, from the format of the layer beside it
    trained = {
        path: one
        for path, one in model.named_parameters()
        if one.requires_grad and f".{name}." in path
    }
    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    return trained


def switch_to(model: nn.Module, name: str | None) -> None:
    """Have a model answer with one of its adapters, or as its base alone, for None.

    No weight is moved or computed: it takes milliseconds, whatever the model's size.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            layer.enable_adapters(name is not None)
            if name is not None:
                layer.set_adapter([name], inference_mode=True)


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of one plain model that does what base and adapter do, one at a time.

    A 4-bit weight is taken as it is dequantized: the adapter has learned beside its rounding error,
    so neither the original weight nor a weight quantized anew would do.

    Returns:
        Each weight of the original model once, by its name there, in bfloat16.
    """
    from engine.four_bit import dequantized, is_four_bit  # only here: training LoRA needs neither

    adapted = {path: one for path, one in model.named_modules() if isinstance(one, LoraLayer)}
    seen: set[int] = set()
    for path, module in model.named_modules():
        layer = adapted.get(path.removesuffix(".base_layer"))
        for attribute, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{attribute}"
            if id(parameter) in seen or parameter.requires_grad:
                continue
            seen.add(id(parameter))
            weight: Tensor = parameter.detach()
            if attribute == "weight" and is_four_bit(module):
                weight = dequantized(module)
            if attribute == "weight" and layer is not None:
                weight = weight.float() + _difference(layer)
            yield _original_name(name), weight.to(torch.bfloat16)


def _difference(layer: Any) -> Tensor:
    """What an adapter adds to its layer's weight, in float32 and in that weight's shape."""
    return layer.get_delta_weight(ADAPTER).detach().float()


def _original_name(name: str) -> str:
    return _CAST.sub(r".\1", name).replace(".base_layer.", ".")
