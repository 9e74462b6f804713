"""Weights on their way into safetensors files, one at a time, so that no second copy is held."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from engine.model import empty_model

SHARD_BYTES = 2_000_000_000
_INDEX = "model.safetensors.index.json"


def write_shards(
    folder: Path, weights: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES
) -> int:
    """Write weights as transformers keeps them: one file, or several with an index.

    Args:
        folder: Where to; it has no weights yet.
        weights: By name, each once; taken one at a time.
        shard_bytes: What a file holds at most, unless a single weight is larger.

    Returns:
        The bytes of all weights.

    Raises:
        SafetensorError: The disk is full or failing.
    """
    files: list[list[str]] = []
    held: dict[str, Tensor] = {}
    total = 0
    for name, tensor in weights:
        if held and sum(one.nbytes for one in held.values()) + tensor.nbytes > shard_bytes:
            files.append(_write(folder, len(files), held))
        held[name] = _by_itself(tensor)
        total += tensor.nbytes
    files.append(_write(folder, len(files), held))
    _name(folder, files, total)
    return total


def _write(folder: Path, number: int, held: dict[str, Tensor]) -> list[str]:
    save_file(held, folder / _draft_name(number), metadata={"format": "pt"})
    names = list(held)
    held.clear()
    return names


def _name(folder: Path, files: list[list[str]], total: int) -> None:
    """How many there are is known only now, and is part of every name."""
    if len(files) == 1:
        (folder / _draft_name(0)).rename(folder / "model.safetensors")
        return
    place: dict[str, str] = {}
    for number, names in enumerate(files):
        final = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        (folder / _draft_name(number)).rename(folder / final)
        place |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(place.items()))}
    (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _draft_name(number: int) -> str:
    return f"part-{number:05d}.safetensors"


def _by_itself(tensor: Tensor) -> Tensor:
    """Experts come apart as views of one tensor, which no file can hold."""
    if tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.is_contiguous():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def in_original_form(
    model: Any, folder: Path, weights: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """Weights by the names of the original's files: transformers has some others in memory.

    Args:
        model: As transformers loaded it.
        folder: What it was loaded from.
        weights: By their names in the model, each once; taken one at a time where one weight of
            the files never needs two of the model.
    """
    if not _each_by_itself(model, dict(empty_model(folder).named_parameters())):
        yield from revert_weight_conversion(model, dict(weights)).items()
        return
    for name, tensor in weights:
        yield from revert_weight_conversion(model, {name: tensor}).items()


def _each_by_itself(model: Any, empty: Mapping[str, Tensor]) -> bool:
    together = revert_weight_conversion(model, dict(empty))
    apart: dict[str, Tensor] = {}
    for name, tensor in empty.items():
        apart |= revert_weight_conversion(model, {name: tensor})
    return {k: v.shape for k, v in together.items()} == {k: v.shape for k, v in apart.items()}
