"""Folders that are being written, and what is left of those whose writer was killed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.contract.durable import read_json, write_json
from engine.contract.identity import Identity, current_identity, is_alive

# Says whose draft a folder is; nothing is ever removed that has none.
_WRITER = ".writer.json"
_DRAFT = re.compile(r"\..+-new-\d+")


@contextmanager
def draft_folder(parent: Path, name: str) -> Generator[Path]:
    """A folder to write into, beside what it will become; it is gone at the end.

    What others left behind in `parent` when they were killed is removed first.

    Args:
        parent: Where.
        name: Of what is written.

    Raises:
        OSError: It cannot be made.
    """
    remove_leftovers(parent)
    draft = parent / f".{name}-new-{os.getpid()}"
    draft.mkdir()
    try:
        write_json(draft / _WRITER, current_identity().as_json())
        yield draft
    finally:
        # Where it was given its name there is none.
        shutil.rmtree(draft, ignore_errors=True)


def commit_draft(draft: Path, path: Path) -> None:
    """Give what was written its name, at once."""
    draft.rename(path)
    # Last: killed in between, a draft without it would be nobody's for ever.
    (path / _WRITER).unlink()


def remove_leftovers(parent: Path) -> None:
    """Remove drafts whose writer is dead; those of other computers stay."""
    with suppress(OSError):  # others may do the same, or the folder may be closed to us
        for folder in parent.iterdir():
            if _DRAFT.fullmatch(folder.name) and not folder.is_symlink() and _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    document = read_json(folder / _WRITER)
    writer = Identity.from_json(document) if document else None
    here = current_identity().host
    return writer is not None and writer.host == here and not is_alive(writer)
