"""What a person names to talk to, to judge or to export: a run, a checkpoint, a model. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.contract.durable import as_object, read_json
from engine.contract.errors import RequestError
from engine.contract.model_source import (
    ADAPTER_CONFIG,
    ModelReference,
    is_adapter_folder,
    resolve_model,
)
from engine.contract.paths import is_folder, typed_path
from engine.contract.run_dir import RunDir, find_run

FIELD = "TARGET"
_STEP_FOLDER = re.compile(r"step-(\d{6,})")
_RUN_AT_STEP = re.compile(r"(.+)@(\d{1,9})")
_AT_BASE = "@base"


@dataclass(frozen=True)
class Target:
    """Something that can answer, found by its name; nothing of it is loaded yet.

    Attributes:
        name: For people.
        folder: Where its files are; None until a hub model is downloaded.
        kind: A run's result or checkpoint, a whole model, or an adapter on its own.
        run: The run that it belongs to.
        base_source: The model that it was made from, as `model.source` takes it; None for a model.
        revision: The commit on the hub of that model, or of the model itself.
        step: Of a run's checkpoint; None for its result.
        reference: Of a whole model, what it is called.
        original_of: The run that is said to have begun with this model, where a run names it.
    """

    name: str
    folder: Path | None
    kind: Literal["run", "model", "adapter"]
    run: RunDir | None = None
    base_source: str | None = None
    revision: str | None = None
    step: int | None = None
    reference: ModelReference | None = None
    original_of: RunDir | None = None

    @property
    def is_tuned(self) -> bool:
        """Whether it is known to have been made from another model."""
        return self.kind != "model"

    @property
    def is_adapter(self) -> bool:
        """Whether its weights are low-rank matrices beside those of another model."""
        if self.kind == "run" and self.run is not None and self.step is not None:
            return self.run.spec().method.kind in ("lora", "qlora")
        return self.kind != "model" and self.folder is not None and is_adapter_folder(self.folder)

    def base(self) -> Target:
        """The model that it was made from.

        Raises:
            RequestError: It is none that was made from another.
        """
        if self.base_source is None and self.kind == "adapter":
            raise RequestError(
                FIELD,
                f"the adapter in {self.folder} does not say which model it belongs to.",
                f"Write that model's name or folder as base_model_name_or_path into "
                f"{ADAPTER_CONFIG}.",
            )
        if self.base_source is None:
            raise RequestError(
                FIELD, f"{self.name} was made from no other model.", "Name a run, or leave --base."
            )
        return _model(self.base_source, self.revision, self.run)


def find_target(text: str, runs: Path) -> Target:
    """Find out what a name means. Looks at files, downloads nothing.

    Args:
        text: A run's name or folder; that with `@STEP`, or the folder of one of its checkpoints;
            that with `@base` for the model that the run began with; a model folder, an adapter's
            folder, a catalogue name, a hub id, or `starter`.
        runs: Folder that holds all runs.

    Raises:
        RequestError: There is nothing of that name, or the run has no result.
    """
    if not text.strip() or "\0" in text:
        raise RequestError(FIELD, "no model is named.", "Name a run, a model folder or starter.")
    folder = typed_path(text)
    if folder.name == "export" and _found(str(folder.parent), runs) is not None:
        text = str(folder.parent)
    return (
        checkpoint_of(text, runs)
        or _original_of(text, runs)
        or _run(text, runs)
        or _model(text, None)
    )


def _run(text: str, runs: Path) -> Target | None:
    run = _found(text, runs)
    if run is None:
        return None
    model = run.spec().model
    if not run.has_export:
        raise RequestError(
            FIELD,
            f"{run.name} has no result yet.",
            "Let it finish, name a checkpoint as RUN@STEP, or ask its base.",
        )
    return Target(run.name, run.export, "run", run, model.source, model.revision)


def find_base(text: str, runs: Path) -> Target:
    """The model that a run began with, whether or not the run has a result.

    Raises:
        RequestError: There is no such run.
    """
    run = _found(text, runs)
    if run is not None:
        return _base_of(run)
    target = find_target(text, runs)
    return target.base() if target.is_tuned else target


def _original_of(text: str, runs: Path) -> Target | None:
    if not text.endswith(_AT_BASE) or _found(text, runs) is not None:
        return None
    run = _found(text.removesuffix(_AT_BASE), runs)
    return _base_of(run) if run is not None else None


def _base_of(run: RunDir) -> Target:
    model = run.spec().model
    return _model(model.source, model.revision, run)


def checkpoint_of(text: str, runs: Path) -> Target | None:
    """The checkpoint that a name means; None where it means no run's.

    Raises:
        RequestError: That run has no such checkpoint.
    """
    folder = typed_path(text)
    inside = _STEP_FOLDER.fullmatch(folder.name)
    if inside and folder.parent.name == "checkpoints":
        run = _found(str(folder.parent.parent), runs)
        return _at_step(run, int(inside.group(1))) if run else None
    named = _RUN_AT_STEP.fullmatch(text)
    run = _found(named.group(1), runs) if named and _found(text, runs) is None else None
    return _at_step(run, int(named.group(2))) if named and run else None


def _at_step(run: RunDir, step: int) -> Target:
    folder = run.checkpoints / f"step-{step:06d}"
    if not is_folder(folder):
        kept = sorted(
            int(found.group(1))
            for found in map(_STEP_FOLDER.fullmatch, (one.name for one in _inside(run.checkpoints)))
            if found
        )
        raise RequestError(
            FIELD,
            f"{run.name} has no checkpoint of step {step}.",
            f"It has {', '.join(map(str, kept))}." if kept else "It has none.",
        )
    model = run.spec().model
    name = f"{run.name}@{step}"
    return Target(name, folder.resolve(), "run", run, model.source, model.revision, step)


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if is_folder(folder) else []


def _found(text: str, runs: Path) -> RunDir | None:
    try:
        return find_run(text, runs)
    except RequestError:
        return None


def _model(source: str, revision: str | None, original_of: RunDir | None = None) -> Target:
    reference = resolve_model(source)
    folder = reference.folder
    if folder is not None and is_adapter_folder(folder):
        document: dict[str, Any] = as_object(read_json(folder / ADAPTER_CONFIG)) or {}
        base, of_base = document.get("base_model_name_or_path"), document.get("revision")
        return Target(reference.name, folder, "adapter", None, str(base) if base else None, of_base)
    return Target(
        reference.name,
        folder,
        "model",
        revision=revision,
        reference=reference,
        original_of=original_of,
    )


def same_model(one: Target, other: Target) -> bool:
    """Whether two names mean the very same whole model."""
    if one.kind != "model" or other.kind != "model":
        return False
    if one.folder is not None and other.folder is not None:
        return one.folder.resolve() == other.folder.resolve()
    return _on_hub(one) == _on_hub(other)


def _on_hub(target: Target) -> tuple[str | None, str | None]:
    return target.reference.hub_id if target.reference else None, target.revision
