"""The result as a plain folder that transformers, or PEFT, loads without any code of ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint import disk_errors
from engine.contract.durable import sync_file, sync_folder
from engine.contract.paths import is_file
from engine.contract.run_dir import RunDir
from engine.exports.end_of_turn import all_end_tokens
from engine.exports.model_card import CardForm, model_card
from engine.exports.run_facts import CARD, facts_of
from engine.exports.shards import in_original_form, write_shards
from engine.fingerprint import record_result
from engine.methods.lora import LoraMethod
from engine.methods.protocol import Method
from engine.model import LoadedModel


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
            write_result(draft, loaded, method)
            _write_card(run, draft, loaded, method)
            record_result(draft, loaded)
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


def write_result(folder: Path, loaded: LoadedModel, method: Method) -> None:
    """Write what a method holds, with its tokenizer: a whole model, or an adapter.

    Args:
        folder: Where to; it is empty.
        loaded: The model that it was made from.
        method: What was trained.

    Raises:
        SafetensorError: The disk is full or failing.
    """
    if isinstance(method, LoraMethod):
        from engine.adapter_folder import write_adapter

        write_adapter(folder, method)
    else:
        _write_model(folder, loaded, method)
    loaded.tokenizer.save_pretrained(folder)


def _write_card(run: RunDir, folder: Path, loaded: LoadedModel, method: Method) -> None:
    if not is_file(run.spec_path):
        return
    is_adapter = isinstance(method, LoraMethod)
    weights = "float32, adapter only" if is_adapter else format_name(loaded.stored_dtype)
    form = CardForm("adapter" if is_adapter else "model", weights)
    text = model_card(facts_of(run, loaded.folder), form)
    (folder / CARD).write_text(text, encoding="utf-8")


def format_name(dtype: torch.dtype) -> str:
    """What a format is called.

    >>> format_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def _write_model(folder: Path, loaded: LoadedModel, method: Method) -> None:
    dtype = loaded.stored_dtype
    weights = (
        (name, tensor.to(device="cpu", dtype=dtype, copy=True)) for name, tensor in method.weights()
    )
    write_model(folder, loaded, weights, dtype)


def write_model(
    folder: Path, loaded: LoadedModel, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype
) -> None:
    """Write a model's weights, config and generation settings as transformers reads them.

    Args:
        folder: Where to.
        loaded: The model that it was made from.
        weights: By their names in that model, each once; taken one at a time.
        dtype: Their format.

    Raises:
        SafetensorError: The disk is full or failing.
    """
    model: Any = loaded.model
    write_shards(folder, in_original_form(model, loaded.folder, weights))
    config = type(model.config).from_dict(model.config.to_dict())
    config.dtype = dtype
    config.save_pretrained(folder)
    if model.can_generate() and model.generation_config is not None:
        settings = deepcopy(model.generation_config)
        ends = all_end_tokens(model, loaded.tokenizer)
        settings.eos_token_id = ends[0] if len(ends) == 1 else ends or None
        settings.save_pretrained(folder)
