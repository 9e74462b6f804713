"""The shapes of any causal language model, from its config alone: no weights are read."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from engine.contract.durable import write_whole
from engine.contract.model_source import read_config
from engine.memory.model_shape import ModelShape, TensorShape, shape_cache_path
from engine.model import empty_model
from engine.roles import named_weights
from engine.trace_activations import trace_activations

_BLOCK = re.compile(r"\.\d+\.")


def inspect_folder(folder: Path) -> ModelShape:
    """Shapes of the model in a folder; kept in the cache for the forecast.

    Raises:
        RequestError: The config cannot be read or is no causal language model's.
    """
    config = read_config(folder)
    shape = traced_shape(empty_model(folder), folder.name)
    cache = shape_cache_path(config)
    # Without a writable cache it is inspected again next time.
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, shape.model_dump_json().encode())
    return shape


def traced_shape(model: nn.Module, name: str, hub_id: str | None = None) -> ModelShape:
    """Shapes of a model, and what its passes keep; seconds of work."""
    traces = trace_activations(model.config)
    return shape_of(model, name, hub_id).model_copy(update={"traces": traces})


def shape_of(model: nn.Module, name: str, hub_id: str | None = None) -> ModelShape:
    """Shapes of a model, on any device; alike tensors of repeated blocks are folded into one."""
    counted: Counter[tuple[str, tuple[int, ...], str, bool]] = Counter()
    for named in named_weights(model):
        pattern = _BLOCK.sub(".{}.", named.name)
        counted[pattern, tuple(named.parameter.shape), named.role, named.transposed] += 1
    tensors = tuple(
        TensorShape.model_validate(
            {
                "name": name,
                "shape": shape,
                "role": role,
                "repeat": repeat,
                "transposed": transposed,
            }
        )
        for (name, shape, role, transposed), repeat in counted.items()
    )
    config: Any = model.config
    return ModelShape(name=name, hub_id=hub_id, tensors=tensors, **_geometry(config))


def _geometry(config: Any) -> dict[str, Any]:
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    hidden = int(text.hidden_size)
    return {
        "model_type": str(config.model_type),
        "num_layers": int(text.num_hidden_layers),
        "hidden_size": hidden,
        "intermediate_size": _intermediate_size(text, hidden),
        "num_heads": heads,
        "num_key_value_heads": int(getattr(text, "num_key_value_heads", None) or heads),
        "head_dim": int(getattr(text, "head_dim", None) or hidden // heads),
        "vocab_size": int(text.vocab_size),
        "tied": bool(getattr(text, "tie_word_embeddings", False)),
        "max_position": getattr(text, "max_position_embeddings", None),
        "caps_scores": bool(getattr(text, "final_logit_softcapping", None)),
    }


def _intermediate_size(config: Any, hidden: int) -> int:
    """Architectures name it differently; four times the hidden size where none is given."""
    for name in ("intermediate_size", "ffn_dim", "n_inner"):
        value = getattr(config, name, None)
        if value:
            return int(value)
    return 4 * hidden
