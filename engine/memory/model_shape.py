"""The shapes of a model: all that a forecast needs to know of it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_dir
from pydantic import BaseModel, ConfigDict

from engine.memory.activation_trace import ActivationTrace
from engine.memory.geometry import ModelGeometry, TensorGeometry

SCHEMA = 3
Role = Literal["linear", "embedding", "small", "other"]
_NOT_GEOMETRY = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


class TensorShape(TensorGeometry, BaseModel):
    """One weight. `role` decides how a method stores it.

    `linear` is the matrix of a linear layer inside the blocks, `embedding` the token table or the
    head, `small` a norm or bias, `other` anything else. `transposed` is a matrix that the model
    keeps as (inputs, outputs).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, ...]
    role: Role
    repeat: int = 1
    transposed: bool = False


class ModelShape(ModelGeometry, BaseModel):
    """A model without its weights.

    Tied weights are listed once. `{}` in a name stands for the block's number where `repeat`
    blocks are alike. `caps_scores` is whether the head's scores go through a limit. `traces` says
    what passes keep, by `activation_trace.trace_key`; it is empty where nobody has traced the
    model, or nobody could.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    name: str
    hub_id: str | None = None
    model_type: str
    tensors: tuple[TensorShape, ...]
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    max_position: int | None = None
    caps_scores: bool = False
    traces: dict[str, ActivationTrace] = {}

    def __hash__(self) -> int:
        return hash((self.name, self.model_type, self.num_layers, self.hidden_size))


def read_shape(path: Path) -> ModelShape | None:
    """A stored shape; None if absent, unreadable or of another schema."""
    try:
        document = json.loads(path.read_bytes())
        shape = ModelShape.model_validate(document)
    except (OSError, ValueError):
        return None
    return shape if shape.schema_version == SCHEMA else None


def shape_cache_path(config: dict[str, Any]) -> Path:
    """Where an inspected model's shape is kept for this user."""
    return Path(user_cache_dir("qft-workbench")) / "shapes" / f"{config_key(config)}.json"


def config_key(config: dict[str, Any]) -> str:
    """Same key, same shapes: a hash of what decides them in config.json, and of who traces them."""
    geometry = {key: value for key, value in config.items() if key not in _NOT_GEOMETRY}
    canonical = json.dumps([SCHEMA, _libraries(), geometry], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@cache
def _libraries() -> list[str]:
    """What decides which kernels run, and what they keep."""
    return [f"{name} {version(name)}" for name in ("torch", "transformers", "peft")]
