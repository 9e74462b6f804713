"""Checkpoints that are whole or absent: written beside, hashed, committed by one rename."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.contract.durable import read_json, sync_file, sync_folder, write_whole
from engine.contract.run_dir import FORMAT, RunDir

KEEP = 2
_STEP = re.compile(r"step-(\d{6,})")
_LEFTOVER = re.compile(r"\.(tmp|del)-\d+-\d+-\d+")
_SYSTEM_ERROR = re.compile(r"([^:]+) \(os error (\d+)\)")
_STATE, _PROGRESS, _MANIFEST = "state.safetensors", "progress.json", "manifest.json"


@dataclass(frozen=True)
class Progress:
    """What the loop itself has to remember, over all attempts.

    Attributes:
        elapsed_s: Seconds of training, evaluation and saving.
        peak_bytes: What the first steps needed, once they are measured.
    """

    step: int = 0
    tokens_seen: int = 0
    elapsed_s: float = 0.0
    eval_loss_before: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Restored:
    """A verified checkpoint."""

    progress: Progress
    state: dict[str, Tensor]


def save_checkpoint(
    run: RunDir,
    attempt: int,
    progress: Progress,
    state: dict[str, Tensor],
    record: Callable[[Path], None] | None = None,
) -> Path:
    """Commit a checkpoint and prune old ones.

    Args:
        run: The run folder.
        attempt: Number of this attempt.
        progress: What the loop has to remember.
        state: Of the method.
        record: Called with the folder once the state is in it; what it writes is part of it.

    Raises:
        OSError: The disk is full or failing; older checkpoints are untouched.
    """
    target = run.checkpoints / f"step-{progress.step:06d}"
    draft = run.checkpoints / f".tmp-{progress.step}-{attempt}-{os.getpid()}"
    draft.mkdir(mode=0o700)
    try:
        with disk_errors():
            save_file({key: value.contiguous() for key, value in state.items()}, draft / _STATE)
        sync_file(draft / _STATE)
        write_whole(draft / _PROGRESS, json.dumps(progress.__dict__).encode())
        if record is not None:
            record(draft)
        manifest = {
            "format": FORMAT,
            "run": run.name,
            "attempt": attempt,
            "step": progress.step,
            "files": {file.name: _fingerprint(file) for file in sorted(draft.iterdir())},
        }
        write_whole(draft / _MANIFEST, json.dumps(manifest, indent=2).encode())
        sync_folder(draft)
        if target.exists():
            _remove(target, attempt)
        draft.rename(target)
        sync_folder(run.checkpoints)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    with suppress(OSError):  # it is committed; the next save removes what is left
        prune(run, attempt)
    return target


@contextmanager
def disk_errors() -> Iterator[None]:
    """Makes an OSError of what safetensors raises when the disk is full or failing."""
    try:
        yield
    except SafetensorError as error:
        found = _SYSTEM_ERROR.search(str(error))
        if found is None:
            raise
        raise OSError(int(found.group(2)), found.group(1).strip()) from error


def prune(run: RunDir, attempt: int, keep: int = KEEP) -> None:
    """Remove all but the newest checkpoints."""
    for folder in committed(run)[keep:]:
        _remove(folder, attempt)


def clean_up(run: RunDir) -> None:
    """Remove what a killed engine left half done. Only with the run's lock held."""
    for entry in run.checkpoints.iterdir():
        if _LEFTOVER.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)


def committed(run: RunDir) -> list[Path]:
    """Checkpoint folders, the newest first."""
    if not run.checkpoints.is_dir():
        return []
    found = [path for path in run.checkpoints.iterdir() if _STEP.fullmatch(path.name)]
    return sorted(found, key=_step_of, reverse=True)


def restore_newest(run: RunDir, on_bad: Callable[[str, str], None]) -> Restored | None:
    """The newest checkpoint that verifies; bad ones are set aside and told of.

    Args:
        run: The run folder.
        on_bad: Called with a folder's name and what is wrong with it.
    """
    for folder in committed(run):
        problem = verify(run, folder)
        if problem is None:
            try:
                return _load(folder)
            except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
                problem = str(error)
        folder.rename(folder.with_name(f".bad-{folder.name}-{os.getpid()}"))
        on_bad(folder.name, problem)
    return None


def verify(run: RunDir, folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None if it is exactly as it was committed."""
    manifest = read_json(folder / _MANIFEST)
    if manifest is None:
        return "its manifest is missing or unreadable"
    if manifest.get("format") != FORMAT:
        return f"it has format {manifest.get('format')}, this version reads {FORMAT}"
    if manifest.get("run") != run.name:
        return f"it belongs to the run {manifest.get('run')}"
    files = manifest.get("files")
    if not isinstance(files, dict) or manifest.get("step") != _step_of(folder):
        return "its manifest was altered"
    if {entry.name for entry in folder.iterdir()} != {*files, _MANIFEST}:
        return "files are missing or were added"
    for name, expected in files.items():
        file = folder / name
        if file.is_symlink() or not file.is_file() or _fingerprint(file) != expected:
            return f"{name} was altered"
    return None


def _load(folder: Path) -> Restored:
    document = read_json(folder / _PROGRESS)
    if document is None:
        raise ValueError(f"{_PROGRESS} is unreadable")
    state = load_file(folder / _STATE)
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds NaN or infinity")
    return Restored(Progress(**document), state)


def _fingerprint(path: Path) -> dict[str, Any]:
    # Block by block: Python 3.10 has no `hashlib.file_digest`.
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _remove(folder: Path, attempt: int) -> None:
    """By rename first: a half removed checkpoint must not look like one."""
    doomed = folder.with_name(f".del-{_step_of(folder)}-{attempt}-{os.getpid()}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _step_of(folder: Path) -> int:
    found = _STEP.fullmatch(folder.name)
    assert found is not None
    return int(found.group(1))
