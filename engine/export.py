"""The result as a plain folder that transformers, or PEFT, loads without any code of ours."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from engine.checkpoint import disk_errors
from engine.contract.durable import sync_file, sync_folder
from engine.contract.run_dir import RunDir
from engine.methods.lora import LoraMethod
from engine.methods.protocol import Method
from engine.model import LoadedModel

_LARGEST_SHARD = "4GB"


def export_model(run: RunDir, loaded: LoadedModel, method: Method) -> Path:
    """Write `export/`, whole or not at all; an older one is replaced.

    Raises:
        OSError: The disk is full or failing.
    """
    _clean_up(run)
    draft = run.path / f".export-new-{os.getpid()}"
    draft.mkdir()
    try:
        with disk_errors():
            _write(draft, loaded, method)
        for file in draft.iterdir():
            sync_file(file)
        sync_folder(draft)
        old = _set_aside(run)
        draft.rename(run.export)
        sync_folder(run.path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return run.export


def remove_export(run: RunDir) -> None:
    """Remove `export/` if there is one."""
    shutil.rmtree(_set_aside(run), ignore_errors=True)


def _set_aside(run: RunDir) -> Path:
    """At once, by a rename: a half removed export must not look like one."""
    old = run.path / f".export-old-{os.getpid()}"
    if run.export.exists():
        run.export.rename(old)
    return old


def _clean_up(run: RunDir) -> None:
    for leftover in run.path.glob(".export-*"):  # of an engine that was killed
        shutil.rmtree(leftover, ignore_errors=True)


def _write(folder: Path, loaded: LoadedModel, method: Method) -> None:
    if isinstance(method, LoraMethod):
        from engine.adapter_folder import write_adapter

        write_adapter(folder, method)
    else:
        _write_model(folder, loaded, method)
    loaded.tokenizer.save_pretrained(folder)


def _write_model(folder: Path, loaded: LoadedModel, method: Method) -> None:
    model: Any = loaded.model
    dtype = loaded.stored_dtype
    weights = {
        name: tensor.to(device="cpu", dtype=dtype, copy=True) for name, tensor in method.weights()
    }
    # To the names of the original's files: transformers has some others in memory.
    original = revert_weight_conversion(model, weights)
    weights = {name: _by_itself(tensor) for name, tensor in original.items()}
    save_torch_state_dict(weights, folder, max_shard_size=_LARGEST_SHARD, metadata={"format": "pt"})
    config = type(model.config).from_dict(model.config.to_dict())
    config.dtype = dtype
    config.save_pretrained(folder)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def _by_itself(tensor: Tensor) -> Tensor:
    """Experts come apart as views of one tensor, which no file can hold."""
    if tensor.untyped_storage().nbytes() == tensor.nbytes:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
