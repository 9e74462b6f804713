"""The shape of any model that a request names: shipped, remembered, or inspected now."""

from __future__ import annotations

from engine.contract.model_source import ModelReference, read_config
from engine.hub import download
from engine.memory.catalogue import bundled_shape
from engine.memory.model_shape import ModelShape, read_shape, shape_cache_path


def find_shape(reference: ModelReference, revision: str | None = None) -> ModelShape:
    """Shapes, without weights. Torch is imported only where a model has to be inspected.

    Raises:
        RequestError: The model's config cannot be had or read.
    """
    shipped = bundled_shape(reference.name)
    if shipped is not None:
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
