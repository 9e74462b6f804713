"""Checking a request before anything is created. Torch only where nothing else can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.contract.bundled import sample_datasets
from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.model_source import ModelReference, check_model_folder, resolve_model
from engine.contract.presets import resolve_presets
from engine.contract.run_dir import RunDir, create_run
from engine.contract.spec import DataSpec, ModelSpec, RunSpec
from engine.data.dataset import Dataset
from engine.data.source import dataset_path, is_hub_dataset, read_dataset
from engine.hub import pin_revision
from engine.memory.devices import choose_device
from engine.memory.resolve import resolve_for_device
from engine.shapes import find_shape

T = TypeVar("T")


def create_checked_run(spec: RunSpec, runs: Path, name: str | None) -> RunDir:
    """Check everything the spec names, complete it, and create its run folder.

    Raises:
        RequestError: One mistake.
        RequestErrors: Several; nothing was created.
    """
    return create_run(runs, complete(spec), name)


def complete(spec: RunSpec) -> RunSpec:
    """The spec with presets, absolute paths, pinned revision and data.

    Raises:
        RequestErrors: One for each thing that cannot be used.
    """
    found: list[RequestError] = []
    model = _collect(found, lambda: _checked_model(spec))
    read = _collect(found, lambda: _read(spec.data))
    device = _collect(found, lambda: choose_device(spec.train.device))
    _collect(found, lambda: _check_products(spec))
    if found or model is None or read is None or device is None:
        raise RequestErrors(found)
    data, dataset = read
    data = data.model_copy(update={"sha256": dataset.sha256})
    pinned = spec.model_copy(update={"model": _pinned(spec, model), "data": data})
    # An architecture that transformers lacks is found out here, not in the engine.
    shape = find_shape(model, pinned.model.revision)
    return resolve_for_device(resolve_presets(pinned, model), shape, device)


def _collect(found: list[RequestError], check: Callable[[], T]) -> T | None:
    try:
        return check()
    except (RequestError, RequestErrors) as error:
        found.extend(mistakes(error))
        return None


def _read(data: DataSpec) -> tuple[DataSpec, Dataset]:
    """The data with its absolute path or pinned revision, and what is in it."""
    if is_hub_dataset(data.source):
        from engine.data.hub_dataset import pin_dataset_revision

        revision = pin_dataset_revision(data.source, data.revision)
        data = data.model_copy(update={"revision": revision})
    elif data.source not in sample_datasets():
        data = data.model_copy(update={"source": str(dataset_path(data.source))})
    return data, read_dataset(data)


def _checked_model(spec: RunSpec) -> ModelReference:
    reference = resolve_model(spec.model.source)
    if reference.folder is not None:
        check_model_folder(reference.folder)
    return reference


def _check_products(spec: RunSpec) -> None:
    """Whether the hardware multiplies 8-bit numbers is known to torch alone."""
    if spec.method.kind == "qft" and spec.method.matmul == "int8":
        from engine.model import choose_torch_device
        from engine.quant.int8_product import refuse_slow_products

        refuse_slow_products(choose_torch_device(spec.train.device))


def _pinned(spec: RunSpec, reference: ModelReference) -> ModelSpec:
    if reference.hub_id is not None:
        revision = pin_revision(reference.hub_id, spec.model.revision)
        return spec.model.model_copy(update={"revision": revision})
    if reference.kind == "folder":
        return spec.model.model_copy(update={"source": str(reference.folder)})
    return spec.model
