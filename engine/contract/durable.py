"""Files that are whole or absent: write beside, fsync, rename, fsync the folder."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, cast


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut. Windows has no such call."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush a file that another library wrote."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Write `path` so that readers and crashes see all of it or none of it."""
    # A name of its own: what a killed process left behind, or another thread, is not in the way.
    descriptor, name = tempfile.mkstemp(prefix=f".tmp-{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document as a whole. NaN is refused: it is not JSON."""
    write_whole(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`; None if it is absent, unreadable or no object."""
    try:
        return as_object(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def as_object(value: Any) -> dict[str, Any] | None:
    """Parsed JSON if it is an object, else None."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
