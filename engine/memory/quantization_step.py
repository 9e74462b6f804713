"""How far apart the values are that 8-bit codes can hold, read off a model's own files.

An update that is small against this step is lost or left to chance, and that can be known before a
run starts: a few whole rows of some matrices are enough, and neither torch nor the model is needed.
"""

from __future__ import annotations

import json
import re
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from engine.contract.method_settings import QftSettings
from engine.contract.model_source import DAMAGE, MAX_HEADER_BYTES
from engine.memory.layout import groups_per_row
from engine.memory.model_shape import ModelShape

# As `engine.quant.int8` has them, which needs torch.
LIMIT = 127
HEADROOM = 1.05

MAX_TENSORS = 32
MAX_ROWS = 8
VALUES_PER_TENSOR = 1 << 14
_BLOCK = re.compile(r"\.\d+\.")
_LONGEST_ROW = 1 << 20


@dataclass(frozen=True)
class _Format:
    """A floating-point format. Without their signs, its bit patterns are ordered as its values."""

    code: Literal["H", "I"]
    infinity: int

    def value(self, pattern: int) -> float:
        """The value of a pattern without its sign."""
        if self.code == "I":
            return struct.unpack("<f", pattern.to_bytes(4, "little"))[0]
        if self.infinity == _BFLOAT16_INFINITY:
            return struct.unpack("<f", (pattern << 16).to_bytes(4, "little"))[0]
        return struct.unpack("<e", pattern.to_bytes(2, "little"))[0]


_BFLOAT16_INFINITY = 0x7F80
_FORMATS = {
    "BF16": _Format("H", _BFLOAT16_INFINITY),
    "F16": _Format("H", 0x7C00),
    "F32": _Format("I", 0x7F80_0000),
}


@dataclass(frozen=True)
class _Kind:
    """One kind of matrix, over all blocks."""

    name: str
    transposed: bool
    num_elements: int


@dataclass(frozen=True)
class _Wanted:
    """A tensor to sample. `place` is where in its output rows, from 0 to 1, `weight` its share."""

    name: str
    file: Path
    transposed: bool
    place: float
    weight: float


@dataclass(frozen=True)
class _Stored:
    """Where the data of a matrix lies in its file."""

    file: Path
    format: _Format
    shape: tuple[int, int]
    start: int


def median_step(folder: Path, shape: ModelShape, settings: QftSettings) -> float | None:
    """The quantization step that half of the model's 8-bit weights are finer than.

    Args:
        folder: The model's files.
        shape: Its shapes: which of its tensors become codes.
        settings: How they will be stored.

    Returns:
        In units of the weights, from a fixed sample; the finer step of the residual where there is
        one. None where the files hold nothing that can be read.
    """
    names = ("model.safetensors", "model.safetensors.index.json")
    weights = next((folder / name for name in names if (folder / name).is_file()), None)
    if weights is None:
        return None
    try:
        state = weights.stat()
        largest = _median_largest(
            weights,
            (state.st_mtime_ns, state.st_size),
            _kinds(shape),
            settings.scale_group,
            settings.outlier_percent,
        )
    except DAMAGE:
        return None
    if largest is None:
        return None
    roomy = settings.rounding == "stochastic" or settings.residual_bits > 0
    headroom = HEADROOM if roomy else 1.0
    return largest * headroom / LIMIT / 2**settings.residual_bits


@lru_cache(maxsize=64)
def _median_largest(
    weights: Path,
    state: tuple[int, int],
    kinds: tuple[_Kind, ...],
    group: Literal["row"] | int,
    outlier_percent: float,
) -> float | None:
    """The median over weights of the largest magnitude in their group; read once per `state`."""
    del state
    sample: list[tuple[float, float]] = []
    headers: dict[Path, dict[str, Any]] = {}
    for wanted in _wanted(_files_by_name(weights, headers), kinds):
        if wanted.file not in headers:
            headers[wanted.file] = _read_header(wanted.file)
        stored = _find(headers[wanted.file], wanted)
        largest = _largest_of_groups(stored, wanted, group, outlier_percent) if stored else []
        sample += [(value, wanted.weight / len(largest)) for value in largest]
    return _weighted_median(sample)


def _files_by_name(weights: Path, headers: dict[Path, dict[str, Any]]) -> dict[str, Path]:
    """The file of every tensor, by the name that it is stored under."""
    if weights.suffix == ".safetensors":
        headers[weights] = _read_header(weights)
        return dict.fromkeys(headers[weights], weights)
    if weights.stat().st_size > MAX_HEADER_BYTES:
        raise ValueError("an index larger than any header may be")
    shards = json.loads(weights.read_bytes())["weight_map"]
    # A shard lies beside its index: a path elsewhere is not followed.
    return {name: weights.parent / Path(shard).name for name, shard in shards.items()}


def _kinds(shape: ModelShape) -> tuple[_Kind, ...]:
    """The matrices that become codes, most weights first."""
    sizes: dict[tuple[str, bool], int] = {}
    for tensor in shape.tensors:
        if tensor.role == "linear":
            key = (tensor.name, tensor.transposed)
            sizes[key] = sizes.get(key, 0) + tensor.num_elements * tensor.repeat
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return tuple(_Kind(*key, size) for key, size in ordered[:MAX_TENSORS])


def _wanted(files: dict[str, Path], kinds: tuple[_Kind, ...]) -> list[_Wanted]:
    """Some tensors of every kind, spread evenly over the blocks."""
    stored: dict[str, list[str]] = {}
    for name in files:
        stored.setdefault(_BLOCK.sub(".{}.", name), []).append(name)
    wanted: list[_Wanted] = []
    for kind in kinds:
        # Some models are saved without the name of the part that holds the blocks.
        found = stored.get(kind.name) or stored.get(kind.name.partition(".")[2]) or []
        count = min(len(found), MAX_TENSORS // len(kinds))
        for at in _evenly(count, len(found)):
            place, weight = (at + 0.5) / len(found), kind.num_elements / count
            wanted.append(_Wanted(found[at], files[found[at]], kind.transposed, place, weight))
    return wanted


def _evenly(count: int, number: int) -> list[int]:
    """`count` of the positions below `number`, with equal distances."""
    return [(2 * at + 1) * number // (2 * count) for at in range(count)]


def _read_header(file: Path) -> dict[str, Any]:
    """The table at the start of a safetensors file; offsets count from the file's beginning."""
    if not file.is_file():
        raise ValueError("no file, so opening it could wait for ever")
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(MAX_HEADER_BYTES, file.stat().st_size - 8):
            raise ValueError("header longer than the file")
        header = cast("dict[str, Any]", json.loads(stream.read(length)))
    header["__data__"] = 8 + length
    return header


def _find(header: dict[str, Any], wanted: _Wanted) -> _Stored | None:
    """Where a matrix lies; None for what is no matrix or in another format."""
    entry = header[wanted.name]
    form, shape = _FORMATS.get(str(entry["dtype"])), entry["shape"]
    if form is None or len(shape) != 2 or not 1 <= min(shape) <= max(shape) <= _LONGEST_ROW:
        return None
    rows, columns = int(shape[0]), int(shape[1])
    start, end = (header["__data__"] + int(offset) for offset in entry["data_offsets"])
    is_whole = end - start == rows * columns * array(form.code).itemsize
    if not is_whole or end > wanted.file.stat().st_size:
        raise ValueError("data shorter or longer than the header says")
    return _Stored(wanted.file, form, (rows, columns), start)


def _largest_of_groups(
    stored: _Stored, wanted: _Wanted, group: Literal["row"] | int, outlier_percent: float
) -> list[float]:
    """The largest magnitude of every group in some rows, outliers left out."""
    rows = _read_columns(stored, wanted.place) if wanted.transposed else _read_rows(stored)
    sign = 1 << (8 * rows[0].itemsize - 1)
    matrix = [[pattern & (sign - 1) for pattern in row] for row in rows]
    if max(map(max, matrix)) >= stored.format.infinity:
        return []  # damaged: loading the model says so
    if outlier_percent:
        matrix = _without_outliers(matrix, outlier_percent)
    width = len(matrix[0]) // groups_per_row(group, len(matrix[0]))
    return [
        stored.format.value(max(row[start : start + width]))
        for row in matrix
        for start in range(0, len(row), width)
    ]


def _without_outliers(matrix: list[list[int]], percent: float) -> list[list[int]]:
    """The same with zero for the largest magnitudes; they are kept apart, in float32."""
    ordered = sorted(pattern for row in matrix for pattern in row)
    border = ordered[len(ordered) - 1 - round(len(ordered) * percent / 100)]
    return [[pattern if pattern <= border else 0 for pattern in row] for row in matrix]


def _read_rows(stored: _Stored) -> list[array[int]]:
    """Bit patterns of some output rows of a matrix that is stored (out, in)."""
    num_outputs, num_inputs = stored.shape
    size = array(stored.format.code).itemsize
    rows: list[array[int]] = []
    with stored.file.open("rb", buffering=0) as stream:
        for row in _evenly(_num_rows(num_outputs, num_inputs), num_outputs):
            stream.seek(stored.start + row * num_inputs * size)
            rows.append(_patterns(stored.format, stream.read(num_inputs * size), num_inputs))
    return rows


def _read_columns(stored: _Stored, place: float) -> list[array[int]]:
    """The same of a matrix that is stored (in, out): some neighbouring columns, at `place`."""
    num_inputs, num_outputs = stored.shape
    size = array(stored.format.code).itemsize
    count = _num_rows(num_outputs, num_inputs)
    first = int(place * (num_outputs - count))
    pieces: list[bytes] = []
    with stored.file.open("rb", buffering=0) as stream:
        for row in range(num_inputs):
            stream.seek(stored.start + (row * num_outputs + first) * size)
            pieces.append(stream.read(count * size))
    values = _patterns(stored.format, b"".join(pieces), num_inputs * count)
    return [values[column::count] for column in range(count)]


def _num_rows(num_outputs: int, num_inputs: int) -> int:
    """A handful, of long rows fewer."""
    return min(num_outputs, MAX_ROWS, max(2, VALUES_PER_TENSOR // num_inputs))


def _patterns(form: _Format, data: bytes, count: int) -> array[int]:
    values: array[int] = array(form.code)
    values.frombytes(data)
    if len(values) != count:
        raise ValueError("data shorter than the header says")
    return values


def _weighted_median(sample: Sequence[tuple[float, float]]) -> float | None:
    """The value that half of the weight is not above; None for an empty sample."""
    left = sum(weight for _, weight in sample) / 2
    for value, weight in sorted(sample):
        left -= weight
        if left <= 0:
            return value
    return None
