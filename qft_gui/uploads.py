"""Datasets that come through the browser."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from engine.contract.errors import RequestError

MAX_UPLOAD_BYTES = 256 << 20
UPLOAD_SUFFIXES = (".json", ".jsonl")


def keep_upload(runs: Path, source: Path) -> Path:
    """Copy an uploaded dataset to where it outlives the browser tab.

    Raises:
        RequestError: It is of the wrong kind or too large.
    """
    suffix = Path(source.name).suffix.lower()
    if suffix not in UPLOAD_SUFFIXES:
        raise RequestError("data.source", "only .json and .jsonl files can be read.")
    if source.stat().st_size > MAX_UPLOAD_BYTES:
        raise RequestError("data.source", "the file is larger than 256 MB.")
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(source.name).stem)
    folder = runs / ".uploads"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{stem[:60] or 'data'}{suffix}"
    shutil.copyfile(source, target)
    return target
