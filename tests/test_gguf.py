"""A GGUF holds the model: read back, every weight is ours, and every text has the same tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, TokenType, get_tensor_name_map, quants
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from engine.commands.parser import main
from engine.contract.errors import ExitCode, RequestError
from engine.contract.run_dir import RunDir
from engine.exports.gguf_file import place_tensors
from engine.exports.gguf_layouts import LAYOUTS, extra_tensors, layout_of
from tests.exported import exported_run
from tests.tiny import CONTEXT, TEMPLATE, VOCABULARY, tiny_model_folder

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SQUARE = {"query_pre_attn_scalar": 16}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama3": ("llama", {"rope_parameters": LLAMA3, "attention_bias": True}),
    "linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}},
    ),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", SQUARE),
    "gemma3": ("gemma3_text", {**SQUARE, "layer_types": None}),
    "phi3": ("phi3", {"num_key_value_heads": 2}),
    "gpt2": ("gpt2", {}),
}
Export = Callable[..., tuple[GGUFReader, Path]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, chats_file: Path) -> Callable[..., RunDir]:
    """A run by the name of its model; made once."""
    root, made = tmp_path_factory.mktemp("gguf"), dict[str, RunDir]()

    def run(name: str) -> RunDir:
        if name not in made:
            architecture, settings = MODELS[name]
            dtype = torch.float32 if name == "gpt2" else torch.bfloat16
            folder = tiny_model_folder(root / name, architecture, dtype=dtype, **settings)
            made[name], _ = exported_run(
                root / "runs", f"run-{name}", folder, chats_file, "lomo", steps=1
            )
        return made[name]

    return run


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Export:
    def command(run: RunDir, kind: str) -> tuple[GGUFReader, Path]:
        out = tmp_path / kind
        arguments = ["export", str(run.path), "--to", "gguf", "--out", str(out), "--type", kind]
        assert main([*arguments, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        file = out / f"{run.name}-{kind}.gguf"
        assert report["files"].keys() == {file.name, "Modelfile", "README.md"}
        assert report["type"] == kind
        return GGUFReader(file), file

    return command


def field(reader: GGUFReader, name: str) -> Any:
    found = reader.get_field(name)
    return None if found is None else found.contents()


def original_order(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    """Undo what llama.cpp wants otherwise than transformers has it."""
    if config.model_type in ("llama", "mistral") and ("attn_q." in name or "attn_k." in name):
        heads = config.num_attention_heads if "attn_q." in name else config.num_key_value_heads
        pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)
    if config.model_type.startswith("gemma") and name.endswith("norm.weight"):
        return values - 1
    if config.model_type == "gpt2" and name.startswith("blk.") and values.ndim == 2:
        return values.T
    return values


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
@pytest.mark.parametrize("name", MODELS)
def test_every_weight_read_back_is_ours(
    trained: Callable[..., RunDir], export: Export, name: str, kind: str
) -> None:
    run = trained(name)
    reader, _ = export(run, kind)
    config = AutoConfig.from_pretrained(run.export)
    ours = load_file(run.export / "model.safetensors")
    names = get_tensor_name_map(LAYOUTS[config.model_type].architecture, config.num_hidden_layers)
    by_name = {names.get_name(key, (".weight", ".bias")): key for key in ours}
    extra = dict(extra_tensors(config))
    assert {one.name for one in reader.tensors} == by_name.keys() | extra.keys()
    kinds = set()
    for one in reader.tensors:
        exact = one.name in extra
        expected = (extra[one.name] if exact else ours[by_name[one.name]]).float().numpy()
        found = original_order(one.name, quants.dequantize(one.data, one.tensor_type), config)
        assert found.shape == expected.shape
        kinds.add(one.tensor_type)
        if one.tensor_type == GGMLQuantizationType.F32:
            assert one.data.ndim == 1 or one.name == "position_embd.weight"
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)
        elif one.tensor_type == GGMLQuantizationType.F16:
            assert np.array_equal(found, expected.astype(np.float16).astype(np.float32))
        else:
            steps = original_order(one.name, steps_of(one.data, one.data.shape), config)
            # Half a step, and up to 127 times what the scale itself lost in half precision.
            lost = np.maximum(steps * 2.0**-11, 2.0**-25)
            assert (np.abs(found - expected) <= (steps + lost) / 2 + 127 * lost).all()
    assert kinds == {GGMLQuantizationType.F32, GGMLQuantizationType[kind.upper()]}


def steps_of(blocks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The scale of each value: two bytes before every 32 codes."""
    scales = blocks.reshape(-1, 34)[:, :2].copy().view(np.float16).astype(np.float32)
    return np.repeat(scales, 32, axis=1).reshape(*shape[:-1], shape[-1] // 34 * 32)


def test_the_factors_of_llama_3_are_those_of_transformers() -> None:
    config = AutoConfig.for_model("llama", **{"head_dim": 16, "rope_parameters": LLAMA3})
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / 5000.0 ** (torch.arange(0, 16, 2).float() / 16)
    ((name, factors),) = extra_tensors(config)
    assert name == "rope_freqs.weight"
    assert torch.allclose(plain / factors, slowed, rtol=1e-6)
    assert len(set(factors.tolist())) > 2


def test_everything_that_is_said_of_the_model(
    trained: Callable[..., RunDir], export: Export
) -> None:
    run = trained("llama")
    reader, file = export(run, "q8_0")
    tokenizer = AutoTokenizer.from_pretrained(run.export)
    expected = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "run-llama",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "llama.block_count": 2,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 8,
        "llama.attention.value_length": 8,
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 10_000.0,
        "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    assert {name: field(reader, name) for name in expected} == expected
    assert field(reader, "llama.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)
    tokens = field(reader, "tokenizer.ggml.tokens")
    assert tokens == tokenizer.convert_ids_to_tokens(range(VOCABULARY))
    kinds = field(reader, "tokenizer.ggml.token_type")
    control = {n for n, kind in enumerate(kinds) if kind == TokenType.CONTROL}
    assert control == set(tokenizer.added_tokens_decoder)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert field(reader, "tokenizer.ggml.merges") == [" ".join(pair) for pair in merges]
    card = (file.parent / "README.md").read_text(encoding="utf-8")
    assert f"llama-cli -m {file.name}" in card
    assert "q8_0: matrices in 8 bits" in card
    assert (file.parent / "Modelfile").read_text(encoding="utf-8").startswith("FROM ./run-llama")


def test_an_adapter_is_merged_first(tmp_path: Path, chats_file: Path, export: Export) -> None:
    base = tiny_model_folder(tmp_path / "base")
    run, _ = exported_run(tmp_path / "runs", "lo", base, chats_file, {"kind": "lora", "rank": 4})
    reader, file = export(run, "f16")
    assert main(["export", str(run.path), "--to", "hf", "--out", str(tmp_path / "hf")]) == 0
    merged = load_file(tmp_path / "hf" / "model.safetensors")
    ours = {one.name: one for one in reader.tensors}["blk.1.ffn_down.weight"]
    theirs = merged["model.layers.1.mlp.down_proj.weight"]
    assert np.array_equal(ours.data, theirs.half().numpy())
    assert len(reader.tensors) == len(merged)
    card = (file.parent / "README.md").read_text(encoding="utf-8")
    assert "On 4 prompts the logits of this merged model" in card


def test_a_name_by_which_llama_cpp_would_change_the_tokenizer_is_not_given(
    tmp_path: Path, chats_file: Path, export: Export
) -> None:
    base = tiny_model_folder(tmp_path / "base")
    run, _ = exported_run(tmp_path / "runs", "my-Phi-3-run", base, chats_file, "lomo")
    assert field(export(run, "f16")[0], "general.name") == "my-Phi 3-run"


def test_rows_that_are_no_multiple_of_32_stay_in_f16(
    tmp_path: Path, chats_file: Path, export: Export
) -> None:
    base = tiny_model_folder(tmp_path / "base", intermediate_size=80)
    run, _ = exported_run(tmp_path / "runs", "odd", base, chats_file, "lomo")
    reader, file = export(run, "q8_0")
    half = {one.name for one in reader.tensors if one.tensor_type == GGMLQuantizationType.F16}
    assert half == {"blk.0.ffn_down.weight", "blk.1.ffn_down.weight"}
    assert "2 matrices have rows that are no multiple of 32" in (
        file.parent / "README.md"
    ).read_text(encoding="utf-8")


def test_what_half_precision_cannot_hold_is_refused(
    tmp_path: Path, chats_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_model_folder(tmp_path / "base")
    run, _ = exported_run(tmp_path / "runs", "big", base, chats_file, "lomo")
    weights = load_file(run.export / "model.safetensors")
    weights["lm_head.weight"][3, 3] = 1e6
    save_file(weights, run.export / "model.safetensors", metadata={"format": "pt"})
    arguments = ["export", str(run.path), "--to", "gguf", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--type", "f16"]) == ExitCode.BAD_REQUEST
    assert "--type: lm_head.weight holds values that f16 cannot." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--type", "q8_0"]) == 0


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gpt_neox", {}, "a GGUF of the architecture gpt_neox is not written here."),
    ("mixtral", {}, "a GGUF of the architecture mixtral is not written here."),
    ("llama", {"hidden_act": "gelu"}, "setting hidden_act = gelu."),
    ("gemma2", {"query_pre_attn_scalar": 144}, "query_pre_attn_scalar = 144."),
    ("gemma2", {**SQUARE, "layer_types": ["full_attention"] * 2}, "order of its attention layers."),
    ("gemma3_text", SQUARE, "the order of its attention layers."),
    ("qwen3", {"attention_bias": True}, "attention_bias = True."),
    ("gpt2", {"activation_function": "relu"}, "activation_function = relu."),
    (
        "qwen2",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "rope_type = dynamic.",
    ),
]


@pytest.mark.parametrize(("architecture", "settings", "words"), REFUSED)
def test_what_llama_cpp_would_not_follow_is_refused(
    tmp_path: Path, architecture: str, settings: dict[str, Any], words: str
) -> None:
    folder = tiny_model_folder(tmp_path / "model", architecture, **settings)
    with pytest.raises(RequestError) as found:
        layout_of(AutoConfig.from_pretrained(folder))
    assert words in str(found.value)
    assert found.value.advice.startswith("Use --to hf")


def test_a_weight_without_a_place_is_refused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.extra.weight"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestError, match=r"no place for the weight model.layers.0.extra.weight"):
        place_tensors(folder, AutoConfig.from_pretrained(folder), "f16")
