"""A run's state as one of its checkpoints holds it, read without touching the run.

`engine.preparation` takes a run over: it writes events and sets broken checkpoints aside. What is
here only looks, so that it may be called while another process trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from engine.checkpoint import committed, verify
from engine.contract.errors import RequestError
from engine.contract.model_source import resolve_model
from engine.contract.run_dir import RunDir
from engine.contract.spec import RunSpec
from engine.methods import METHODS
from engine.methods.protocol import Method
from engine.model import LoadedModel, fetch_model, load_model

# A run that goes on may remove a checkpoint while it is being looked at; it has a newer one then.
TRIES = 3


@dataclass(frozen=True)
class RunState:
    """A method that holds what the run's method held after `step`.

    Attributes:
        adapted: The model with the adapter on it, where one is trained.
    """

    step: int
    method: Method
    adapted: LoadedModel | None


def read_state(run: RunDir, spec: RunSpec, step: int | None = None) -> RunState | None:
    """A checkpoint that verifies, laid out in main memory; None if there is none.

    Args:
        run: The run folder; not changed.
        spec: The run's own.
        step: Of which checkpoint; by default the newest.

    Raises:
        RequestError: The model that the run began with cannot be had any more.
    """
    with _newest(run, step) as found:
        if found is None:
            return None
        step, stored = found
        folder = fetch_model(resolve_model(spec.model.source), spec.model.revision)
        loaded = load_model(folder)
        method = METHODS[spec.method.kind]()
        # On the CPU always: the GPU may be in use by the very run that is looked at.
        method.prepare(loaded.model, _on_any_computer(spec), torch.device("cpu"))
        own = method.state_dict()
        if own.keys() != set(stored.keys()):
            raise RequestError(
                "TARGET",
                f"the checkpoint of step {step} was made by another version or for another model.",
                "Use the version that made the run.",
            )
        for name, tensor in own.items():
            tensor.copy_(stored.get_tensor(name))
        has_adapter = spec.method.kind in ("qlora", "lora")
        return RunState(step, method, loaded if has_adapter else None)


def _on_any_computer(spec: RunSpec) -> RunSpec:
    """The spec without what only the run's own hardware can do; its state is the same."""
    if spec.method.kind != "qft":
        return spec
    method = spec.method.model_copy(update={"matmul": "dequantize"})
    return spec.model_copy(update={"method": method})


@contextmanager
def _newest(run: RunDir, step: int | None) -> Iterator[tuple[int, Any] | None]:
    """Step and open tensors of the newest whole checkpoint; open, it may be removed meanwhile."""
    for _ in range(TRIES):
        folder = _first_whole(run, step)
        if folder is None:
            break
        try:
            stored = safe_open(next(folder.glob("*.safetensors")), framework="pt")
        except (OSError, SafetensorError, StopIteration):
            continue
        with stored as tensors:
            yield int(folder.name.rpartition("-")[2]), tensors
        return
    yield None


def whole_checkpoint(run: RunDir, step: int) -> Path:
    """The folder of one checkpoint.

    Raises:
        RequestError: There is none of that step, or it is not what was committed.
    """
    folder = _first_whole(run, step)
    if folder is None:
        raise RequestError(
            "TARGET",
            f"{run.name} has no whole checkpoint of step {step}.",
            "Choose another, or the result.",
        )
    return folder


def _first_whole(run: RunDir, step: int | None) -> Path | None:
    for folder in committed(run):
        if step is not None and folder.name != f"step-{step:06d}":
            continue
        try:
            if verify(run, folder) is None:
                return folder
        except OSError:  # removed meanwhile
            continue
    return None
