"""An adapter as PEFT keeps it in a folder: written as a run's result, loaded with its base.

A folder of a QLoRA run also says in `quantization_config.json` how its base is kept in 4 bits, as
transformers' `BitsAndBytesConfig` takes it: the adapter has learned beside those rounding errors.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from engine.adapter_parts import (
    QUANTIZATION,
    WEIGHTS,
    AdapterParts,
    file_name,
    quantization,
    read_adapter,
)
from engine.adapters import freeze
from engine.contract.durable import write_json
from engine.methods.lora import LoraMethod
from engine.model import LoadedModel, load_model
from engine.tokenizer import load_tokenizer


def write_adapter(folder: Path, method: LoraMethod) -> None:
    """Write `adapter_config.json` and the adapter's weights in float32."""
    config = method.config
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules or ())  # PEFT keeps a set
    config.save_pretrained(str(folder))
    weights = {file_name(name): one.to("cpu").contiguous() for name, one in method.weights()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    if method.four_bit is not None:
        write_json(folder / QUANTIZATION, quantization(method.four_bit))


def load_adapter(folder: Path, device: torch.device) -> LoadedModel:
    """An adapter on its base, laid out as it was trained; its matrices alone take gradients.

    Args:
        folder: In a run folder the run's spec says what the base is, elsewhere the adapter does.
        device: Where to.

    Raises:
        RequestError: Base or adapter cannot be had, do not fit, or are not plain LoRA.
    """
    return load_on_base(read_adapter(folder), device)


def load_on_base(parts: AdapterParts, device: torch.device) -> LoadedModel:
    """An adapter that was read, on its base.

    Raises:
        RequestError: The base cannot be had, or they do not fit.
    """
    loaded = load_base(parts, device)
    parts.put_on(loaded.model)
    return with_tokenizer_of(parts, loaded)


def load_base(parts: AdapterParts, device: torch.device) -> LoadedModel:
    """The base of an adapter as that was trained beside it, with nothing on it yet.

    Raises:
        RequestError: It cannot be had.
    """
    loaded = load_model(parts.base_folder())
    freeze(loaded.model, parts.form, device)
    loaded.model.eval()
    return loaded


def with_tokenizer_of(parts: AdapterParts, loaded: LoadedModel) -> LoadedModel:
    """The same model with the tokenizer and the chat template of an adapter on it."""
    if parts.tokenizer is None:
        return loaded
    tokenizer, template_added = load_tokenizer(parts.tokenizer)
    return replace(loaded, tokenizer=tokenizer, template_added=template_added)
