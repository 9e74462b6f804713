"""Loading what a run made: a model folder, or an adapter with the model that it belongs to."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.contract.model_source import check_model_folder, is_adapter_folder
from engine.model import LoadedModel, load_model


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
