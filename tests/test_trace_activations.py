"""Traces on tensors without data say what real tensors take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engine.inspect_model import inspect_folder
from engine.memory.activation_trace import Slope, counted_trace, trace_key
from engine.memory.model_shape import read_shape, shape_cache_path
from engine.model_switches import attention_of, recompute_activations
from engine.tensor_meter import LiveTensorMeter
from engine.trace_activations import trace_activations

LAYERS, ROWS, LENGTH = 6, 4, 64
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": LENGTH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OWN: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 160, "num_key_value_heads": 2},
    "gemma2": {"intermediate_size": 160, "num_key_value_heads": 2, "head_dim": 16},
    "gpt2": {},
    "opt": {"ffn_dim": 160, "word_embed_proj_dim": 64},
}


def config_of(architecture: str) -> Any:
    return AutoConfig.for_model(architecture, **SIZES, **OWN[architecture])


def really_kept(config: Any, *, recompute: bool) -> int:
    """Bytes alive after a forward pass of a real model, beyond its weights and its tokens."""
    model: Any = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=attention_of(config)
    )
    model.train()
    if recompute:
        recompute_activations(model)
    tokens = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    with LiveTensorMeter([*model.parameters(), *model.buffers(), tokens]) as meter:
        before = meter.live_bytes
        hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        kept = meter.live_bytes - before
    assert hidden.requires_grad
    return kept


@pytest.mark.parametrize("architecture", OWN)
def test_what_is_kept_is_what_a_real_model_keeps(architecture: str) -> None:
    config = config_of(architecture)
    trace = trace_activations(config, ("float32",), (False,))[
        trace_key("float32", adapter=False, packed=False)
    ]

    def nbytes(slope: Slope) -> int:
        return slope.nbytes(ROWS * LENGTH, LENGTH)

    kept = nbytes(trace.outside) + LAYERS * nbytes(trace.block)
    assert kept == pytest.approx(really_kept(config, recompute=False), rel=0.03)
    recomputed = nbytes(trace.outside_recomputed) + LAYERS * nbytes(trace.block_input)
    assert recomputed == pytest.approx(really_kept(config, recompute=True), rel=0.03)
    assert nbytes(trace.recomputed.most) > nbytes(trace.block)
    assert all(at.held.per_token <= trace.backward.most.per_token + 1
               for at in trace.backward.at_gradients)  # fmt: skip


def test_attention_that_keeps_its_weights_grows_with_the_square() -> None:
    key = trace_key("float32", adapter=False, packed=False)
    fused = trace_activations(config_of("llama"), ("float32",), (False,))[key]
    plain = trace_activations(config_of("gemma2"), ("float32",), (False,))[key]
    assert fused.block.per_pair == 0
    assert plain.block.per_pair >= 4 * SIZES["num_attention_heads"]


def test_packed_rows_cost_a_mask() -> None:
    traces = trace_activations(config_of("llama"), ("float32",), (False,))
    plain, packed = (traces[trace_key("float32", adapter=False, packed=p)] for p in (False, True))
    assert packed.block.per_pair >= 4  # one float32 for each pair of tokens
    assert packed.recomputed.most.per_pair > plain.recomputed.most.per_pair


def test_an_inspected_model_is_remembered_with_its_traces(
    tiny_folder: Callable[[str], Path],
) -> None:
    shape = inspect_folder(tiny_folder("llama"))
    assert len(shape.traces) == 8
    from engine.contract.model_source import read_config

    again = read_shape(shape_cache_path(read_config(tiny_folder("llama"))))
    assert again == shape


def test_a_guess_stands_in_for_a_model_that_cannot_be_traced(
    tiny_folder: Callable[[str], Path],
) -> None:
    shape = inspect_folder(tiny_folder("llama"))
    traced = shape.traces[trace_key("float32", adapter=False, packed=False)]
    guess = counted_trace(shape, 4, adapter=False)
    assert guess.block.per_token == pytest.approx(traced.block.per_token, rel=0.25)
    assert guess.block_input == traced.block_input
