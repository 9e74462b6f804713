"""A folder that is there as a whole or not at all: written beside, committed by one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.checkpoint import disk_errors
from engine.contract.drafts import commit_draft, draft_folder
from engine.contract.durable import sync_file, sync_folder
from engine.contract.errors import RequestError
from engine.contract.paths import is_folder
from engine.memory.units import gib

FIELD = "--out"
# Tokenizer, settings and card, and what the file system takes for itself.
_BESIDE_WEIGHTS = 64 << 20


@contextmanager
def new_folder(out: Path, needed_bytes: int, keep_out_of: Path) -> Iterator[Path]:
    """Somewhere to write to; it takes the place of `out` if nothing goes wrong, else it is removed.

    Args:
        out: Must not exist, or be empty.
        needed_bytes: What the weights will take.
        keep_out_of: A folder with a writer of its own; `out` must not lie in it.

    Raises:
        RequestError: `out` cannot be used, or the disk has not enough room or fails.
    """
    out = out.absolute()
    check_out(out, keep_out_of)
    check_room(out.parent, needed_bytes)
    try:
        with disk_errors(), draft_folder(out.parent, out.name) as draft:
            yield draft
            for file in draft.iterdir():
                file.chmod(_usual_mode())
                sync_file(file)
            sync_folder(draft)
            if out.exists():
                out.rmdir()
            commit_draft(draft, out)
            sync_folder(out.parent)
    except OSError as error:
        # numpy tells no cause where less was written than it asked for.
        reason = (error.strerror or "the disk is full or failing").lower()
        raise RequestError(
            FIELD, f"{out} could not be written: {reason}.", "Choose another place."
        ) from error


def _usual_mode() -> int:
    """What a file is made with here: libraries that write by way of a draft give less."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def check_out(out: Path, keep_out_of: Path) -> None:
    """Refuse a place that cannot be written to, before anything is loaded.

    Raises:
        RequestError: It holds something, is no folder, or lies where it must not.
    """
    out = out.absolute()
    try:
        inside = out.resolve().is_relative_to(keep_out_of.resolve())
        taken = out.is_symlink() or (out.exists() and not out.is_dir())
        holds_something = not taken and out.is_dir() and any(out.iterdir())
    except (OSError, ValueError) as error:
        raise RequestError(FIELD, f"{out} cannot be used.", "Choose another place.") from error
    if taken:
        raise RequestError(FIELD, f"{out} is no folder.", "Name a folder that does not exist yet.")
    if holds_something:
        raise RequestError(FIELD, f"{out} is not empty.", "Name a folder that does not exist yet.")
    if inside:
        raise RequestError(FIELD, f"{out} lies in the run folder.", "Choose a place outside of it.")
    if not out.name or not is_folder(out.parent):
        raise RequestError(FIELD, f"{out.parent} is no folder.", "Make it first.")


def check_room(folder: Path, needed_bytes: int) -> None:
    """Refuse a disk that is too full.

    Raises:
        RequestError: It has not enough room for so many bytes, or cannot be asked.
    """
    needed = needed_bytes + _BESIDE_WEIGHTS
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise RequestError(FIELD, f"{folder} cannot be used.", "Choose another place.") from error
    if free < needed:
        raise RequestError(
            FIELD,
            f"the export takes up to {gib(needed)} and the disk has {gib(free)} free.",
            "Make room, or choose another disk.",
        )
