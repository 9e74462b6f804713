"""A person's own datasets: a folder beside the runs that the page lists, and where uploads go."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from engine.contract.errors import RequestError

MAX_UPLOAD_BYTES = 256 << 20
MOST_LISTED = 100
_MOST_NAME_CHARACTERS = 80
_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)


@dataclass(frozen=True)
class OwnDataset:
    """One file of the folder."""

    path: Path
    size_bytes: int


class OwnDatasets:
    """The folder of a person's own datasets.

    Args:
        runs: Folder that holds all runs; the datasets are beside it.
    """

    def __init__(self, runs: Path) -> None:
        self.folder = runs.resolve().parent / "datasets"

    def files(self) -> tuple[OwnDataset, ...]:
        """What the folder holds, newest first; hidden files and folders are left out."""
        found: list[tuple[float, OwnDataset]] = []
        try:
            for entry in os.scandir(self.folder):
                if not entry.name.startswith(".") and entry.is_file():
                    state = entry.stat()
                    one = OwnDataset(self.folder / entry.name, state.st_size)
                    found.append((state.st_mtime, one))
        except OSError:
            return ()
        found.sort(key=lambda item: (-item[0], item[1].path.name))
        return tuple(one for _, one in found[:MOST_LISTED])

    def keep(self, upload: Path) -> Path:
        """Copy a file that came through the browser to where it outlives the tab.

        Returns:
            Where it is now: under its own name, or with a number if another file has that name.

        Raises:
            RequestError: It is too large, or cannot be written.
        """
        if upload.stat().st_size > MAX_UPLOAD_BYTES:
            raise RequestError("data.source", f"{upload.name} is {self.too_large()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            target = self._target(upload)
            if not target.exists():
                part = target.with_name(f".{target.name}.part")
                shutil.copyfile(upload, part)
                part.replace(target)
        except OSError as error:
            raise RequestError(
                "data.source",
                f"{upload.name} could not be written to {self.folder}: {error.strerror or error}.",
                "Give its whole path instead.",
            ) from error
        target.touch()
        return target

    def too_large(self) -> str:
        """What follows the name of a file that is no upload any more."""
        return (
            f"larger than {MAX_UPLOAD_BYTES >> 20} MB. Put it in {self.folder}, or type its "
            "whole path."
        )

    def _target(self, upload: Path) -> Path:
        """A free name, or that of the very same file."""
        stem, suffixes = _plain_name(upload.name)
        number = 1
        while True:
            name = f"{stem}{suffixes}" if number == 1 else f"{stem}-{number}{suffixes}"
            target = self.folder / name
            if not target.exists() or filecmp.cmp(target, upload, shallow=False):
                return target
            number += 1


def _plain_name(name: str) -> tuple[str, str]:
    """Letters, digits, dots, dashes and underscores of a name, apart from its endings.

    >>> _plain_name("my chats; v2.jsonl.gz"), _plain_name("../.x"), _plain_name("CON.csv")
    (('my-chats-v2', '.jsonl.gz'), ('x', ''), ('CON-data', '.csv'))
    """
    text = unicodedata.normalize("NFC", name)
    text = "".join(one if one.isalnum() or one in "-_." else "-" for one in text)
    while "--" in text:
        text = text.replace("--", "-")
    stem, *endings = text.lstrip("-.").split(".")
    # A long ending is no ending but a part of the name.
    while endings and len(endings[0]) > 8:
        stem = f"{stem}.{endings.pop(0)}"
    stem = stem.strip("-")[:_MOST_NAME_CHARACTERS] or "data"
    # Names that Windows keeps for devices.
    if _DEVICE.fullmatch(stem):
        stem = f"{stem}-data"
    return stem, "".join(f".{ending}" for ending in endings if ending)
