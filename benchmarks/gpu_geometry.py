"""Models of a real size with random weights, and batches of random tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from engine.data.batching import Batch
from engine.memory.activation_trace import ActivationTrace, Compute
from engine.memory.geometry import ModelGeometry, TensorGeometry
from engine.model_switches import recompute_activations
from engine.roles import named_weights
from engine.trace_activations import trace_activations

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec
    from engine.memory.model_shape import ModelShape, Role

_DEVIATION = 0.02  # of the weights, as transformers begins a Llama
GEOMETRIES: dict[str, dict[str, Any]] = {
    "llama-2-7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "llama-3.1-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    # Goes through all the same code in seconds, on any computer.
    "tiny": {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True)
class PlainTensor(TensorGeometry):
    """One weight, as `engine.memory.model_shape.TensorShape` has it."""

    name: str
    shape: tuple[int, ...]
    role: Role
    repeat: int = 1
    transposed: bool = False


@dataclass(frozen=True)
class PlainShape(ModelGeometry):
    """A model without its weights, as `engine.memory.model_shape.ModelShape` has it."""

    name: str
    model_type: str
    tensors: tuple[PlainTensor, ...]
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    max_position: int | None
    caps_scores: bool
    traces: dict[str, ActivationTrace] = field(hash=False)


def empty_model(geometry: str) -> nn.Module:
    """The model on the meta device: no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(_config(geometry), dtype=torch.bfloat16)


def _config(geometry: str) -> LlamaConfig:
    return LlamaConfig(**GEOMETRIES[geometry], pad_token_id=0, bos_token_id=1, eos_token_id=2)


def shape_for(geometry: str, spec: RunSpec, kind: str) -> ModelShape:
    """What a forecast needs to know of a model, for one run on a device of that kind."""
    is_wide = kind == "cpu" or getattr(spec.method, "precision", None) == "fp32"
    adapter = spec.method.kind in ("lora", "qlora")
    return plain_shape(geometry, "float32" if is_wide else "bfloat16", adapter=adapter)


@cache
def plain_shape(geometry: str, compute: Compute, *, adapter: bool) -> ModelShape:
    """The shapes of a model, each tensor by itself, for the forecast.

    Args:
        geometry: A key of `GEOMETRIES`.
        compute: Format of activations.
        adapter: Whether the model is frozen and adapters learn.
    """
    config = _config(geometry)
    tensors = tuple(
        PlainTensor(named.name, tuple(named.parameter.shape), named.role)
        for named in named_weights(empty_model(geometry))
    )
    shape = PlainShape(
        name=geometry,
        model_type="llama",
        tensors=tensors,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads or config.num_attention_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        vocab_size=config.vocab_size,
        tied=config.tie_word_embeddings,
        max_position=config.max_position_embeddings,
        caps_scores=False,
        traces=trace_activations(config, (compute,), (adapter,)),
    )
    return cast("ModelShape", shape)


def random_weights(
    geometry: str, draw: torch.device, keep: torch.device, seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """Every weight in bfloat16, one at a time: no second copy of the model, and none in float32.

    Args:
        geometry: A key of `GEOMETRIES`.
        draw: Where random numbers are drawn; another device draws others.
        keep: Where the weights go.
        seed: Decides them.
    """
    generator = torch.Generator(draw).manual_seed(seed)
    for named in named_weights(empty_model(geometry)):
        shape = named.parameter.shape
        values = torch.ones(shape, dtype=torch.bfloat16, device=draw)
        if len(shape) > 1:
            values.normal_(0.0, _DEVIATION, generator=generator)
        yield named.name, values.to(keep)


def model_with(geometry: str, weights: Iterable[tuple[str, Tensor]]) -> nn.Module:
    """A model that holds these weights and recomputes activations.

    Args:
        geometry: A key of `GEOMETRIES`.
        weights: All of them, in the model's order; not copied.
    """
    model: Any = empty_model(geometry)
    for named, (name, values) in zip(named_weights(model), weights, strict=True):
        assert name == named.name
        setattr(named.module, named.attribute, nn.Parameter(values))
    # Its table is no weight: made on the meta device, it is empty.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=model.config)
    recompute_activations(model)
    return model


def random_batch(geometry: str, rows: int, tokens: int, device: torch.device) -> Batch:
    """Random tokens, every one of which is trained; the same for every method."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, GEOMETRIES[geometry]["vocab_size"], (rows, tokens), generator=generator)
    return Batch(ids, torch.ones_like(ids), ids.clone()).to(device)
