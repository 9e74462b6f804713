"""Loading what a run made: a model folder, an adapter with its base, or a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.contract.errors import RequestError
from engine.contract.model_source import check_model_folder, is_adapter_folder
from engine.model import LoadedModel, fetch_model, load_model
from engine.roles import named_weights
from engine.run_state import read_state, whole_checkpoint
from engine.target import FIELD, Target

if TYPE_CHECKING:
    from engine.adapter_parts import AdapterParts


def load_target(target: Target, device: torch.device) -> LoadedModel:
    """What a person named, ready to answer.

    Args:
        target: As `find_target` finds it.
        device: Where to.

    Raises:
        RequestError: It cannot be had, is damaged, or must not be loaded.
    """
    parts = adapter_of(target)
    if parts is not None:
        from engine.adapter_folder import load_on_base

        return load_on_base(parts, device)
    if target.step is not None:
        return _load_checkpoint(target, device)
    return load_result(model_folder(target), device)


def load_result(folder: Path, device: torch.device) -> LoadedModel:
    """The model in a folder, ready to answer.

    Args:
        folder: Of a whole model, or of an adapter.
        device: Where to.

    Raises:
        RequestError: It is neither, or must not be loaded.
    """
    if is_adapter_folder(folder):
        # Only here: PEFT and bitsandbytes take two seconds to import.
        from engine.adapter_folder import load_adapter

        return load_adapter(folder, device)
    check_model_folder(folder)
    loaded = load_model(folder)
    loaded.model.to(device).eval()
    return loaded


def adapter_of(target: Target) -> AdapterParts | None:
    """The adapter that a target is; None for a whole model.

    Raises:
        RequestError: It is damaged, or no plain LoRA.
    """
    if not target.is_adapter:
        return None
    from engine.adapter_parts import read_adapter, read_adapter_checkpoint

    assert target.folder is not None
    if target.run is not None and target.step is not None:
        return read_adapter_checkpoint(target.run, whole_checkpoint(target.run, target.step))
    return read_adapter(target.folder)


def model_folder(target: Target) -> Path:
    """The folder with the files of a whole model; a hub model is downloaded.

    For a checkpoint it is that of the model that the run began with, which has its sizes.

    Raises:
        RequestError: It cannot be had, or must not be loaded.
    """
    if target.step is not None:
        return model_folder(target.base())
    if target.reference is not None:
        return fetch_model(target.reference, target.revision)
    assert target.folder is not None
    check_model_folder(target.folder)
    return target.folder


def _load_checkpoint(target: Target, device: torch.device) -> LoadedModel:
    """The weights that the run's method held, in the form in which an export stores them."""
    run, step = target.run, target.step
    assert run is not None
    assert step is not None
    whole_checkpoint(run, step)
    state = read_state(run, run.spec(), step)
    if state is None:  # removed by the run meanwhile
        raise RequestError(
            FIELD, f"{run.name} no longer has a checkpoint of step {step}.", "Choose another."
        )
    loaded = load_model(model_folder(target))
    weights = {named.name: named.parameter for named in named_weights(loaded.model)}
    with torch.no_grad():
        for name, tensor in state.method.weights():
            parameter = weights[name]
            # Without the format in between, it would not be what the export of this step is.
            parameter.data = tensor.to(device="cpu", dtype=loaded.stored_dtype, copy=True)
    del state
    loaded.model.to(device).eval()
    return loaded
