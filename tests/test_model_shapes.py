"""Shapes of models: the same from a config, from a loaded model, and as shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.recipes.model_shapes import PUBLISHED, Published, build_model, build_shape
from engine.contract.bundled import catalogue
from engine.contract.errors import RequestError
from engine.contract.model_source import read_config, resolve_model
from engine.inspect_model import inspect_folder, shape_of
from engine.memory import model_shape
from engine.memory.catalogue import bundled_shape
from engine.memory.model_shape import config_key, read_shape, shape_cache_path
from engine.model import empty_model, load_model
from engine.shapes import find_shape
from tests.tiny import ARCHITECTURES

PARAMETERS = {
    "gpt2": 124_439_808,
    "opt-125m": 125_239_296,
    "pythia-160m": 162_322_944,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "qwen2.5-0.5b": 494_032_768,
    "tinyllama-1.1b": 1_100_048_384,
    "llama-3.2-1b": 1_235_814_400,
    "gemma-2-2b": 2_614_341_888,
    "llama-3.2-3b": 3_212_749_824,
    "phi-3.5-mini": 3_821_079_552,
    "llama-2-7b": 6_738_415_616,
    "mistral-7b": 7_248_023_552,
    "qwen2.5-7b": 7_615_616_512,
    "llama-3.1-8b": 8_030_261_248,
    "qwen3-8b": 8_190_735_360,
    "llama-2-13b": 13_015_864_320,
}


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.name)
def test_a_shipped_shape_is_what_transformers_builds(published: Published) -> None:
    shape = bundled_shape(published.name)
    assert shape is not None
    built = shape_of(build_model(published), published.name, published.hub_id)
    assert shape.model_copy(update={"traces": {}}) == built
    assert len(shape.traces) == 8
    entry = catalogue()[published.name]
    assert entry.num_parameters == shape.num_parameters
    assert (entry.hub_id, entry.title) == (published.hub_id, published.title)


@pytest.mark.parametrize("name", ["opt-125m", "gemma-3-1b"])
def test_a_shipped_trace_is_what_tracing_gives(name: str) -> None:
    published = next(one for one in PUBLISHED if one.name == name)
    assert bundled_shape(name) == build_shape(published)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_a_shipped_shape_has_the_published_size(name: str, count: int) -> None:
    shape = bundled_shape(name)
    assert shape is not None
    assert shape.num_parameters == count


def test_a_shape_names_what_each_weight_is_for() -> None:
    shape = bundled_shape("llama-2-7b")
    assert shape is not None
    roles = {tensor.name: (tensor.role, tensor.repeat) for tensor in shape.tensors}
    assert roles["model.embed_tokens.weight"] == ("embedding", 1)
    assert roles["lm_head.weight"] == ("embedding", 1)
    assert roles["model.layers.{}.mlp.up_proj.weight"] == ("linear", 32)
    assert roles["model.layers.{}.input_layernorm.weight"] == ("small", 32)
    assert shape.linear_parameters == 6_476_005_376
    assert not shape.tied
    tied = bundled_shape("llama-3.2-1b")
    assert tied is not None
    assert tied.tied
    assert "lm_head.weight" not in {tensor.name for tensor in tied.tensors}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_config_alone_gives_the_shape_of_the_loaded_model(
    tiny_folder: Callable[[str], Path], architecture: str
) -> None:
    folder = tiny_folder(architecture)
    model: Any = load_model(folder).model
    shape = shape_of(model, architecture)
    assert shape == shape_of(empty_model(folder), architecture)
    assert shape.num_parameters == sum(p.numel() for p in model.parameters())
    assert shape.num_layers == 2
    assert shape.hidden_size == 32
    assert shape.num_heads == 4
    assert shape.vocab_size == 320
    assert shape.max_position == 160
    assert shape.tied == (model.get_input_embeddings().weight is model.lm_head.weight)


def test_an_inspected_shape_is_remembered(
    tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_shape, "user_cache_dir", lambda _: str(tmp_path / "cache"))
    folder = tiny_folder("llama")
    path = shape_cache_path(read_config(folder))
    assert read_shape(path) is None
    shape = inspect_folder(folder)
    assert read_shape(path) == shape
    remembered = shape.model_copy(update={"name": "from the cache"})
    path.write_text(remembered.model_dump_json(), encoding="utf-8")
    assert find_shape(resolve_model(str(folder))) == remembered
    path.write_text('{"schema_version": 1', encoding="utf-8")
    assert find_shape(resolve_model(str(folder))) == shape


def test_only_geometry_decides_where_a_shape_is_kept() -> None:
    config = {"model_type": "llama", "hidden_size": 32}
    same = {"transformers_version": "9.0", "torch_dtype": "float16", **config}
    assert config_key(config) == config_key(same)
    assert config_key(config) != config_key({**config, "hidden_size": 33})


def test_a_model_that_does_not_write_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}', encoding="utf-8")
    with pytest.raises(RequestError, match="vit is no causal language model"):
        empty_model(tmp_path)
