"""The result as a plain Hugging Face folder that transformers loads without any code of ours."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from engine.contract.durable import sync_file, sync_folder
from engine.contract.run_dir import RunDir
from engine.methods.protocol import Method
from engine.model import LoadedModel

_LARGEST_SHARD = "4GB"


def export_model(run: RunDir, loaded: LoadedModel, method: Method) -> Path:
    """Write `export/`, whole or not at all; an older one is replaced.

    Raises:
        OSError: The disk is full or failing.
    """
    draft = run.path / f".export-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        _write(draft, loaded, method)
        for file in draft.iterdir():
            sync_file(file)
        sync_folder(draft)
        if run.export.exists():
            shutil.rmtree(run.export)
        draft.rename(run.export)
        sync_folder(run.path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return run.export


def _write(folder: Path, loaded: LoadedModel, method: Method) -> None:
    model: Any = loaded.model
    dtype = _stored_dtype(model.config)
    weights = {
        name: tensor.to(device="cpu", dtype=dtype, copy=True) for name, tensor in method.weights()
    }
    save_torch_state_dict(weights, folder, max_shard_size=_LARGEST_SHARD, metadata={"format": "pt"})
    config = type(model.config).from_dict(model.config.to_dict())
    config.dtype = dtype
    config.save_pretrained(folder)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def _stored_dtype(config: Any) -> torch.dtype:
    """The format that the original was stored in; bfloat16 if it does not say."""
    dtype = getattr(config, "dtype", None)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    return dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
