"""What weight files are known by, however they are split: a hash of samples of every tensor.

A large model is read in part only, so that knowing it again takes no second reading of all of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.contract.model_source import read_header

_WHOLE_BYTES = 4096
_NUM_BLOCKS, _BLOCK_BYTES = 16, 256


@dataclass(frozen=True)
class _Stored:
    """Where a tensor is: its file, and its bytes in that."""

    file: Path
    start: int
    num_bytes: int
    kind: str


def hash_of_files(folder: Path) -> str:
    """Of the names, formats and shapes of all tensors in a folder, and of samples of their bytes.

    A tensor of up to 4 KiB is read whole, of a larger one 16 blocks of 256 bytes, evenly spread
    from its first to its last.

    Raises:
        RequestError: A file is damaged.
        OSError: It cannot be read.
    """
    tensors: dict[str, _Stored] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(_tensors_of(file))
    digest = hashlib.sha256()
    opened: dict[Path, BinaryIO] = {}
    try:
        for name, stored in sorted(tensors.items()):
            if stored.file not in opened:
                opened[stored.file] = stored.file.open("rb", buffering=0)
            digest.update(f"{name} {stored.kind}\n".encode())
            _add_samples(digest, opened[stored.file], stored)
    finally:
        for file in opened.values():
            file.close()
    return digest.hexdigest()


def _tensors_of(path: Path) -> dict[str, _Stored]:
    shapes = read_header(path)  # refuses a damaged file
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    found: dict[str, _Stored] = {}
    for name, (dtype, shape) in shapes.items():
        start, end = (int(at) for at in header[name]["data_offsets"])
        found[name] = _Stored(path, 8 + length + start, end - start, f"{dtype} {shape}")
    return found


def _add_samples(digest: hashlib._Hash, file: BinaryIO, stored: _Stored) -> None:
    if stored.num_bytes <= _WHOLE_BYTES:
        starts, length = [0], stored.num_bytes
    else:
        last, length = stored.num_bytes - _BLOCK_BYTES, _BLOCK_BYTES
        starts = [math.floor(last * at / (_NUM_BLOCKS - 1)) for at in range(_NUM_BLOCKS)]
    for start in starts:
        file.seek(stored.start + start)
        digest.update(file.read(length))
