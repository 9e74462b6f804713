"""Configs of models that cannot be: a sentence at once, and nothing is built."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.contract.model_source import read_config
from engine.shapes import find_shape
from qft_gui.forecasts import Forecasts
from qft_gui.form import Form

ABSURD: dict[str, Any] = {
    "vocab_size": 10**12,
    "num_hidden_layers": 10**6,
    "hidden_size": -1,
    "intermediate_size": 1e9,
    "num_attention_heads": 0,
    "num_key_value_heads": "many",
    "head_dim": True,
}


def folder_saying(folder: Path, source: Path, **said: Any) -> Path:
    """A model folder like another, with some of its config changed; its weights are linked."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, **said}))
    return folder


@pytest.mark.parametrize("name", ABSURD)
def test_an_absurd_size_is_refused_at_once(
    name: str, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folder_saying(tmp_path / "model", tiny_folder("llama"), **{name: ABSURD[name]})
    started = time.process_time()  # other processes may have the processor
    with pytest.raises(RequestError, match=name) as refusal:
        read_config(folder)
    assert time.process_time() - started < 1
    assert "whole number from 1 to" in refusal.value.advice
    report = Forecasts().report(Form(model="__other__", model_path=str(folder)).document())
    assert [error.message for error in report.errors] == [refusal.value.message]


def test_sizes_inside_a_text_config_are_looked_at(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    inner = {"text_config": {"vocab_size": 10**12}}
    folder = folder_saying(tmp_path / "model", tiny_folder("llama"), **inner)
    with pytest.raises(RequestError, match="1,000,000,000,000"):
        read_config(folder)


def test_sizes_that_models_have_pass(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    said = {"num_hidden_layers": 200, "vocab_size": 1_000_000, "head_dim": None}
    folder = folder_saying(tmp_path / "model", tiny_folder("llama"), **said)
    assert read_config(folder)["num_hidden_layers"] == 200


def test_a_config_that_fits_no_model_is_a_sentence(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    from engine.contract.model_source import resolve_model

    folder = folder_saying(tmp_path / "model", tiny_folder("llama"), num_attention_heads=7)
    with pytest.raises(RequestError, match=r"model\.source"):
        find_shape(resolve_model(str(folder)))
