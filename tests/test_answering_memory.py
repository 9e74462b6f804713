"""What models need in memory to answer is what they take: by real models and real replies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.adapter_parts import read_adapter
from engine.adapters import freeze
from engine.chat_side import Side
from engine.four_bit import FourBitFormat, is_four_bit, scale_tensors
from engine.generate import Sampling, reply_to
from engine.memory import answering
from engine.memory.answering import AnsweringModel, needed_bytes, needed_bytes_shared
from engine.memory.devices import this_computer
from engine.memory.estimate import RUNTIME_BYTES
from engine.memory.load_speed import ASSUMED_BYTES_PER_S, expected_load_s, keep_load_speed
from engine.model import load_model
from engine.result import load_target
from engine.target import find_target
from engine.tensor_meter import LiveTensorMeter
from tests.exported import exported_run
from tests.tiny import ARCHITECTURES, tiny_model_folder

CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_weights_are_counted_as_they_are_kept(
    tiny_folder: Callable[[str], Path], architecture: str
) -> None:
    folder = tiny_folder(architecture)
    weights = {id(one): one.nbytes for one in load_model(folder).model.parameters()}
    assert AnsweringModel(folder).weights_bytes == sum(weights.values())


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_adapter_counts_with_its_base(tmp_path: Path, chats_file: Path, method: str) -> None:
    base = tiny_model_folder(tmp_path / "base", hidden_size=64, intermediate_size=128)
    run, _ = exported_run(tmp_path / "runs", "one", base, chats_file, method)
    side = Side.of(find_target("one", tmp_path / "runs"))
    loaded = load_target(side.target, CPU)
    tensors = [*loaded.model.parameters(), *loaded.model.buffers()]
    # The linear layers of a base in 4 bits are codes and the scales of their blocks.
    states = [getattr(one, "quant_state", None) for one in tensors]
    scales = [part for state in states if state is not None for part in _scales(state)]
    held = sum(one.nbytes for one in (*tensors, *scales))
    assert side.num_bytes == pytest.approx(held, rel=0.1)
    assert side.memory.adapter_bytes == read_adapter(run.export).num_bytes


def _scales(state: Any) -> list[torch.Tensor]:
    nested = getattr(state, "state2", None)
    return [state.absmax, *([nested.absmax] if nested is not None else [])]


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt_neox", "mixtral", "gpt_bigcode"])
def test_what_stays_in_16_bits_beside_4_is_counted_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """Tables, whatever they are called, and experts that are kept in one tensor."""
    monkeypatch.setitem(ARCHITECTURES, "gpt_bigcode", {**ARCHITECTURES["gpt2"], "n_embd": 64})
    sizes: dict[str, Any] = {"hidden_size": 64}
    if architecture == "opt":
        sizes |= {"ffn_dim": 128, "word_embed_proj_dim": 64}
    folder = tiny_model_folder(tmp_path / "model", architecture, **sizes)
    model = load_model(folder).model
    freeze(model, FourBitFormat("nf4", double_quant=False), CPU)
    tables = sum(16 * 4 for module in model.modules() if is_four_bit(module))  # of values
    held = sum({one.data_ptr(): one.nbytes for one in model.parameters()}.values())
    held += sum(one.nbytes for one in scale_tensors(model)) - tables
    assert AnsweringModel(folder, "4-bit").weights_bytes == pytest.approx(held, rel=0.02)


@pytest.mark.parametrize("heads", [4, 16])
@pytest.mark.parametrize(
    "architecture", ["llama", "gemma2", "gpt2", "opt", "gpt_neox", "phi3", "qwen3", "gemma3_text"]
)
def test_a_conversation_takes_its_keys_and_values_and_little_more(
    tmp_path: Path, architecture: str, heads: int
) -> None:
    sizes: dict[str, Any] = {"n_head" if architecture == "gpt2" else "num_attention_heads": heads}
    if "num_key_value_heads" in ARCHITECTURES[architecture]:
        share = 1 if architecture in ("phi3", "gpt_neox") else 2
        sizes["num_key_value_heads"] = heads // share
    folder = tiny_model_folder(
        tmp_path / "model",
        architecture,
        dtype=torch.float32,
        max_position_embeddings=1024,
        **sizes,
    )
    loaded = load_model(folder)
    loaded.model.eval()
    reckoned = AnsweringModel(folder)
    with torch.inference_mode():
        cache = loaded.model(torch.ones(1, 7, dtype=torch.long)).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kept == 7 * reckoned.token_bytes("cpu")

    meter = LiveTensorMeter([*loaded.model.parameters(), *loaded.model.buffers()])
    before = meter.live_bytes
    question = [{"role": "user", "content": "What is Mara at? " * 140}]
    with meter:
        reply = reply_to(loaded.model, loaded.tokenizer, question, Sampling(max_new_tokens=8))
    assert reply.prompt_tokens > 900
    taken = meter.peak_bytes - before
    assert reply.prompt_tokens * reckoned.token_bytes("cpu") < taken
    assert taken < reckoned.conversation_bytes("cpu") < 2.5 * taken


def test_attention_that_nobody_looked_at_is_reckoned_with_all_scores(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    known = tiny_folder("llama")
    other = shutil.copytree(known, tmp_path / "other")
    config = json.loads((other / "config.json").read_bytes())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "bloom"}))
    sizes = [AnsweringModel(folder).conversation_bytes("cpu") for folder in (known, other)]
    tokens = config["max_position_embeddings"]
    scores = 4 * config["num_attention_heads"] * min(tokens, answering.PROMPT_PART) * tokens
    assert sizes[1] - sizes[0] > scores


def test_two_that_answer_in_turn_need_one_conversation(tiny_folder: Callable[[str], Path]) -> None:
    one, other = AnsweringModel(tiny_folder("llama")), AnsweringModel(tiny_folder("gemma2"))
    talk = max(model.conversation_bytes("cpu") for model in (one, other))
    together = one.weights_bytes + other.weights_bytes + talk
    assert needed_bytes([one, other], "cpu") == together + RUNTIME_BYTES["cpu"]
    adapted = [AnsweringModel(one.folder, "bfloat16", size) for size in (100, 10)]
    shared = needed_bytes_shared([AnsweringModel(one.folder), *adapted], "cpu")
    assert shared == needed_bytes([AnsweringModel(one.folder, "bfloat16", 110)], "cpu")


def test_a_longer_context_is_reckoned_up_to_a_limit(tmp_path: Path) -> None:
    sizes = [
        AnsweringModel(
            tiny_model_folder(tmp_path / str(context), max_position_embeddings=context)
        ).conversation_bytes("cpu")
        for context in (512, 2048, answering.CONVERSATION_TOKENS, 131_072)
    ]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


def test_the_wait_goes_by_the_last_load_that_told_something() -> None:
    device, size = this_computer(), 4 * 10**9
    assumed = expected_load_s(size, device)
    assert assumed == pytest.approx(1 + size / ASSUMED_BYTES_PER_S)
    keep_load_speed(1000, 5.0, device)
    assert expected_load_s(size, device) == assumed
    keep_load_speed(size, 3.0, device)
    assert expected_load_s(size, device) == pytest.approx(3.0)
    assert expected_load_s(2 * size, device) == pytest.approx(5.0)
