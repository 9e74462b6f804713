"""Weights in bfloat16, activations in float32: what embeddings of every kind do with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engine.casting import compute_in
from engine.tensor_meter import LiveTensorMeter

WORDS = 50_000
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": WORDS,
    "tie_word_embeddings": False,
}
OWN: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 32},
    "gemma3_text": {"intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 16},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 32, "dropout": 0.0},
}
TOKENS = torch.tensor([[3, 5, 5, 9, 49_999, 3]])


def twins(architecture: str) -> tuple[Any, Any]:
    """One model in bfloat16 that computes in float32, and the same weights in float32."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **SIZES, **OWN[architecture])
    narrow = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    wide = copy.deepcopy(narrow).float()
    compute_in(narrow, torch.float32)
    return narrow, wide


@pytest.mark.parametrize("architecture", OWN)
def test_it_computes_what_the_same_weights_in_float32_do(architecture: str) -> None:
    narrow, wide = twins(architecture)
    found, expected = (one(input_ids=TOKENS).logits for one in (narrow, wide))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    gradients = [one.get_input_embeddings().weight.grad for one in (narrow, wide)]
    torch.testing.assert_close(gradients[0].float(), gradients[1], rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_table_is_never_cast_as_a_whole(architecture: str) -> None:
    narrow, _ = twins(architecture)
    embed = narrow.get_input_embeddings()
    with LiveTensorMeter([*narrow.parameters(), *narrow.buffers(), TOKENS]) as meter:
        before = meter.live_bytes
        rows = embed(TOKENS)
        assert rows.dtype == torch.float32
    assert meter.peak_bytes - before < WORDS * SIZES["hidden_size"]
