"""An adapter as PEFT keeps it in a folder: written as a run's result, loaded with its base.

A folder of a QLoRA run also says in `quantization_config.json` how its base is kept in 4 bits, as
transformers' `BitsAndBytesConfig` takes it: the adapter has learned beside those rounding errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.adapters import ADAPTER, add_adapter, freeze
from engine.contract.durable import read_json, write_json
from engine.contract.errors import RequestError
from engine.contract.model_source import (
    ADAPTER_CONFIG,
    FIELD,
    read_header,
    resolve_model,
)
from engine.contract.paths import is_file
from engine.contract.run_dir import RunDir
from engine.four_bit import FourBitFormat
from engine.methods.lora import LoraMethod
from engine.model import LoadedModel, fetch_model, load_model, load_tokenizer
from engine.roles import refuse_non_finite

WEIGHTS = "adapter_model.safetensors"
QUANTIZATION = "quantization_config.json"
# PEFT wraps the model twice.
_PREFIX = "base_model.model."
# What decides a plain adapter, and what says nothing about how it computes.
_READ = {"r", "lora_alpha", "target_modules", "fan_in_fan_out", "use_rslora"}
_SILENT = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}


def write_adapter(folder: Path, method: LoraMethod) -> None:
    """Write `adapter_config.json` and the adapter's weights in float32."""
    config = method.config
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules or ())  # PEFT keeps a set
    config.save_pretrained(str(folder))
    weights = {_file_name(name): one.to("cpu").contiguous() for name, one in method.weights()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    if method.four_bit is not None:
        write_json(folder / QUANTIZATION, _quantization(method.four_bit))


def load_adapter(folder: Path, device: torch.device) -> LoadedModel:
    """An adapter on its base, laid out as it was trained; its matrices alone take gradients.

    Args:
        folder: In a run folder the run's spec says what the base is, elsewhere the adapter does.
        device: Where to.

    Raises:
        RequestError: Base or adapter cannot be had, do not fit, or are not plain LoRA.
    """
    document = read_json(folder / ADAPTER_CONFIG)
    if document is None:
        raise _damaged(folder / ADAPTER_CONFIG)
    config = _config(folder, document)
    stored = _stored(folder)
    source, revision = _base(folder, document)
    loaded = load_model(fetch_model(resolve_model(source), revision))
    freeze(loaded.model, _form(folder), device)
    try:
        trained = add_adapter(loaded.model, config, seed=0)
    except ValueError as error:
        raise _does_not_fit(folder, source) from error
    expected = {_file_name(name): matrix for name, matrix in trained.items()}
    shapes = {name: matrix.shape for name, matrix in expected.items()}
    if shapes != {name: tensor.shape for name, tensor in stored.items()}:
        raise _does_not_fit(folder, source)
    with torch.no_grad():
        for name, matrix in expected.items():
            matrix.copy_(stored[name])
            refuse_non_finite(name, matrix)
    loaded.model.eval()
    tokenizer, template_added = load_tokenizer(folder)
    return replace(loaded, tokenizer=tokenizer, template_added=template_added)


def _file_name(name: str) -> str:
    return _PREFIX + name.replace(f".{ADAPTER}.", ".")


def _quantization(form: FourBitFormat) -> dict[str, Any]:
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": form.quant_type,
        "bnb_4bit_use_double_quant": form.double_quant,
        "bnb_4bit_compute_dtype": "bfloat16",
    }


def _form(folder: Path) -> FourBitFormat | None:
    path = folder / QUANTIZATION
    if not is_file(path):
        return None
    document = read_json(path) or {}
    quant_type = document.get("bnb_4bit_quant_type")
    if quant_type not in ("nf4", "fp4"):
        raise _damaged(path)
    form = FourBitFormat(quant_type, document.get("bnb_4bit_use_double_quant") is True)
    if document != _quantization(form):
        raise _damaged(path)
    return form


def _config(folder: Path, document: Mapping[str, Any]) -> LoraConfig:
    """Only what a plain adapter needs is taken over: PEFT's config can name code to import."""
    usual = LoraConfig().to_dict()
    strange = [
        key
        for key, value in document.items()
        if key not in _READ | _SILENT and value and value != usual.get(key)
    ]
    if document.get("peft_type") != "LORA" or strange:
        what = strange[0] if strange else document.get("peft_type")
        raise RequestError(
            FIELD, f"{folder} holds no plain LoRA adapter, but one with {what}.", "Choose another."
        )
    try:
        return LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=int(document["r"]),
            lora_alpha=float(document["lora_alpha"]),  # pyright: ignore[reportArgumentType]
            target_modules=[str(name) for name in document["target_modules"]],
            fan_in_fan_out=document.get("fan_in_fan_out") is True,
            use_rslora=document.get("use_rslora") is True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / ADAPTER_CONFIG) from error


def _stored(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not is_file(path):
        raise RequestError(
            FIELD, f"{folder} has no {WEIGHTS}.", "An adapter is loaded from safetensors only."
        )
    read_header(path)  # refuses a damaged file
    return load_file(path)


def _base(folder: Path, document: Mapping[str, Any]) -> tuple[str, str | None]:
    run = RunDir(folder.parent)
    if folder == run.export and is_file(run.spec_path):
        model = run.spec().model
        return model.source, model.revision
    return str(document.get("base_model_name_or_path")), document.get("revision")


def _damaged(path: Path) -> RequestError:
    return RequestError(FIELD, f"{path} is damaged.", "Get it anew.")


def _does_not_fit(folder: Path, source: str) -> RequestError:
    return RequestError(
        FIELD, f"the adapter in {folder} does not fit {source}.", "It belongs to another model."
    )
