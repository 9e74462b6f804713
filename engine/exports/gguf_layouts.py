"""Where each architecture's weights go in a GGUF, and what llama.cpp has to be told of them.

An architecture is here only if llama.cpp computes it exactly as transformers does; a setting that
it would not follow is refused. The rules are those of llama.cpp's own conversion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType
from torch import Tensor

from engine.contract.errors import RequestError

FIELD = "--to"
Changed = tuple[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One architecture.

    Attributes:
        architecture: What llama.cpp calls it.
        expected: Settings of the config that llama.cpp takes for granted.
        describe: Writes what is particular to it.
        change: What becomes of a weight: its name in the files, and its values as llama.cpp
            multiplies with them. It works without values, too, on the meta device.
        drops_head: Whether a head of its own is left out, since llama.cpp takes the token table.
    """

    architecture: MODEL_ARCH
    expected: Mapping[str, Any]
    describe: Callable[[GGUFWriter, Any], None]
    change: Callable[[str, Tensor, Any], Tensor]
    drops_head: bool = False


def layout_of(config: Any) -> Layout:
    """The layout of a model.

    Raises:
        RequestError: There is none, or llama.cpp would not follow a setting of this model.
    """
    layout = LAYOUTS.get(config.model_type)
    if layout is None:
        raise RequestError(
            FIELD,
            f"a GGUF of the architecture {config.model_type} is not written here.",
            f"Use --to hf; GGUF is for {', '.join(sorted(LAYOUTS))}.",
        )
    for name, expected in layout.expected.items():
        value = getattr(config, name, expected)
        accepted = expected if isinstance(expected, tuple) else (expected,)
        if value not in accepted:
            raise _not_followed(f"{name} = {value}")
    _refuse_rope(config)
    _refuse_layers(config)
    return layout


def notes_of(config: Any) -> list[str]:
    """What is otherwise than in transformers, a sentence each."""
    window = getattr(config, "sliding_window", None)
    if config.model_type == "mistral" and window:
        return [
            f"llama.cpp reads whole conversations where the original reads the last {window:,} "
            "tokens: beyond that, answers may differ."
        ]
    return []


def extra_tensors(config: Any) -> Iterator[tuple[str, Tensor]]:
    """What the files have not and llama.cpp needs: the factors by which Llama 3 slows rotations."""
    rope = _rope(config)
    if rope.get("rope_type") == "llama3":
        yield "rope_freqs.weight", _llama3_factors(config, rope)


def describe(writer: GGUFWriter, config: Any) -> None:
    """Write what all architectures have."""
    layout = LAYOUTS[config.model_type]
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    layout.describe(writer, config)


def _describe_llama(writer: GGUFWriter, config: Any) -> None:
    head = _head_size(config)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    rope = _rope(config)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _describe_gemma2(writer: GGUFWriter, config: Any) -> None:
    _describe_llama(writer, config)
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_sliding_window(config.sliding_window)


def _describe_gemma3(writer: GGUFWriter, config: Any) -> None:
    _describe_llama(writer, config)
    writer.add_sliding_window(config.sliding_window)
    local = config.rope_parameters["sliding_attention"]
    writer.add_rope_freq_base_swa(float(local["rope_theta"]))


def _describe_phi3(writer: GGUFWriter, config: Any) -> None:
    _describe_llama(writer, config)
    writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    # 0 says that it has none.
    writer.add_sliding_window(config.sliding_window or 0)


def _describe_gpt2(writer: GGUFWriter, config: Any) -> None:
    writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _as_it_is(name: str, tensor: Tensor, config: Any) -> Tensor:
    return tensor


def _interleaved(name: str, tensor: Tensor, config: Any) -> Tensor:
    """llama.cpp rotates neighbouring values of a head, transformers those half a head apart."""
    heads = {
        "q_proj": config.num_attention_heads,
        "k_proj": config.num_key_value_heads,
    }.get(name.split(".")[-2])
    if heads is None:
        return tensor
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _norms_from_one(name: str, tensor: Tensor, config: Any) -> Tensor:
    """Gemma's norms multiply with 1 + weight, llama.cpp's with the weight."""
    return tensor.float() + 1 if name.endswith("norm.weight") else tensor


def _conv1d_turned(name: str, tensor: Tensor, config: Any) -> Tensor:
    """GPT-2 keeps its matrices with the inputs first."""
    turned = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
    return tensor.transpose(0, 1).contiguous() if turned else tensor


def _rope(config: Any) -> dict[str, Any]:
    rope = getattr(config, "rope_parameters", None) or {}
    return rope.get("full_attention", rope)


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _refuse_rope(config: Any) -> None:
    rope = getattr(config, "rope_parameters", None) or {}
    for one in [rope[key] for key in ("full_attention", "sliding_attention") if key in rope] or [
        rope
    ]:
        kind = one.get("rope_type", "default")
        known = {
            "default": True,
            "linear": config.model_type in ("llama", "mistral", "qwen2", "qwen3"),
            "llama3": config.model_type == "llama",
        }
        if not known.get(kind):
            raise _not_followed(f"rope_type = {kind}")
        if one.get("partial_rotary_factor", 1.0) != 1.0:
            raise _not_followed(f"partial_rotary_factor = {one['partial_rotary_factor']}")


def _refuse_layers(config: Any) -> None:
    """Which layers read only what is near is fixed in llama.cpp for each architecture."""
    every = {"gemma2": 2, "gemma3_text": 6}.get(config.model_type)
    kinds = getattr(config, "layer_types", None)
    if kinds is None or config.model_type in ("mistral", "phi3"):
        return
    expected = [
        "full_attention" if every is None or (layer + 1) % every == 0 else "sliding_attention"
        for layer in range(config.num_hidden_layers)
    ]
    if list(kinds) != expected:
        raise _not_followed("the order of its attention layers")
    if every is not None and config.query_pre_attn_scalar != _head_size(config):
        raise _not_followed(f"query_pre_attn_scalar = {config.query_pre_attn_scalar}")


def _llama3_factors(config: Any, rope: Mapping[str, Any]) -> Tensor:
    head = _head_size(config)
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, head, 2).float() / head)
    factor, low, high = (
        float(rope[name]) for name in ("factor", "low_freq_factor", "high_freq_factor")
    )
    context = float(rope["original_max_position_embeddings"])
    factors: list[float] = []
    for length in (2 * math.pi / frequencies).tolist():
        if length < context / high:
            factors.append(1.0)
        elif length > context / low:
            factors.append(factor)
        else:
            smooth = (context / length - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(factors)


def _not_followed(what: str) -> RequestError:
    return RequestError(
        FIELD, f"llama.cpp would not follow this model's setting {what}.", "Use --to hf."
    )


_SILU = {"hidden_act": "silu"}
_GELU_TANH = {"hidden_activation": ("gelu_pytorch_tanh", None), "attention_bias": False}
_ONE_WINDOW = {**_SILU, "use_sliding_window": False}
LAYOUTS: dict[str, Layout] = {
    "llama": Layout(MODEL_ARCH.LLAMA, _SILU, _describe_llama, _interleaved),
    "mistral": Layout(MODEL_ARCH.LLAMA, _SILU, _describe_llama, _interleaved),
    "qwen2": Layout(MODEL_ARCH.QWEN2, _ONE_WINDOW, _describe_llama, _as_it_is),
    "qwen3": Layout(
        MODEL_ARCH.QWEN3, {**_ONE_WINDOW, "attention_bias": False}, _describe_llama, _as_it_is
    ),
    "gemma2": Layout(
        MODEL_ARCH.GEMMA2, _GELU_TANH, _describe_gemma2, _norms_from_one, drops_head=True
    ),
    "gemma3_text": Layout(
        MODEL_ARCH.GEMMA3,
        {
            **_GELU_TANH,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "use_bidirectional_attention": (False, None),
        },
        _describe_gemma3,
        _norms_from_one,
        drops_head=True,
    ),
    "phi3": Layout(MODEL_ARCH.PHI3, _SILU, _describe_phi3, _as_it_is),
    "gpt2": Layout(
        MODEL_ARCH.GPT2,
        {
            "activation_function": "gelu_new",
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        _describe_gpt2,
        _conv1d_turned,
    ),
}
