"""Models of the hub that are on this computer already. Asks no network."""

from __future__ import annotations

import os
from pathlib import Path

from engine.contract.durable import read_json
from engine.contract.paths import is_file

_INDEX = "model.safetensors.index.json"
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def cached_model(hub_id: str, revision: str | None) -> Path | None:
    """The folder of a hub model that was downloaded whole; None where something of it is missing.

    Args:
        hub_id: As `owner/name`.
        revision: A commit, a branch or a tag; None for the main branch.
    """
    # Only here: it takes a tenth of a second to import, which most commands can do without.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    except HFValidationError:
        return None
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return folder if _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
    if is_file(folder / _INDEX):
        names = set((read_json(folder / _INDEX) or {}).get("weight_map", {}).values())
        return bool(names) and all(is_file(folder / str(name)) for name in names)
    return any(is_file(file) for file in folder.glob("*.safetensors"))


def is_offline() -> bool:
    """Whether this program was told not to use the network for models."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in _OFFLINE)
