"""The shape of any model that a request names: shipped, remembered, or inspected now."""

from __future__ import annotations

from typing import Any

from engine.contract.durable import as_object, read_json
from engine.contract.model_source import ModelReference, read_config
from engine.hub import download
from engine.memory.catalogue import bundled_shape
from engine.memory.model_shape import ModelShape, read_shape, shape_cache_path


def find_shape(reference: ModelReference, revision: str | None = None) -> ModelShape:
    """Shapes, without weights. Torch is imported only where a model has to be inspected.

    Raises:
        RequestError: The model's config cannot be had or read.
    """
    if reference.kind in ("starter", "catalogue"):
        shipped = bundled_shape(reference.name)
        assert shipped is not None, f"{reference.name} has no shape in assets/models"
        return shipped
    folder = reference.folder
    if folder is None:
        assert reference.hub_id is not None
        folder = download(reference.hub_id, revision, weights=False)
    known = read_shape(shape_cache_path(read_config(folder)))
    if known is not None:
        return known
    from engine.inspect_model import inspect_folder

    return inspect_folder(folder)


def describe_tokenizer(reference: ModelReference) -> dict[str, Any] | None:
    """Number of tokens and whether there is a chat template, read off the files.

    None for a catalogue model: its shape ships with the app, its tokenizer does not.
    """
    folder = reference.folder
    if reference.kind == "hub":
        assert reference.hub_id is not None
        folder = download(reference.hub_id, None, weights=False)
    if folder is None:
        return None
    model = as_object((read_json(folder / "tokenizer.json") or {}).get("model")) or {}
    vocabulary = model.get("vocab")
    config = read_json(folder / "tokenizer_config.json") or {}
    template = (folder / "chat_template.jinja").is_file() or bool(config.get("chat_template"))
    return {
        "num_tokens": len(vocabulary) if isinstance(vocabulary, dict | list) else None,
        "chat_template": template,
    }
