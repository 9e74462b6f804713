"""What loading refuses: a model that transformers would fill up, misread or not know."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from engine.contract.errors import RequestError, RequestErrors
from engine.contract.spec_file import validate_spec
from engine.model import load_model
from engine.request import create_checked_run


@pytest.fixture
def llama(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "llama"))


def _config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_weight_is_named_and_never_made_up(llama: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, llama / "model.safetensors", {"format": "pt"})
    with pytest.raises(RequestError, match=r"lacks 1 weights.*layers\.1\.mlp\.up_proj\.weight"):
        load_model(llama)


def test_a_model_that_reads_both_ways_is_refused(llama: Path) -> None:
    BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(llama)
    with pytest.raises(RequestError, match="bert is no causal language model"):
        load_model(llama)


def test_an_unknown_architecture_creates_no_run(llama: Path, tmp_path: Path) -> None:
    _config(llama, model_type="frob")
    spec = validate_spec(
        {
            "model": {"source": str(llama)},
            "data": {"source": "pirate"},
            "method": {"kind": "qft"},
        }
    )
    with pytest.raises((RequestError, RequestErrors), match=r"model\.source"):
        create_checked_run(spec, tmp_path / "runs", None)
    assert not (tmp_path / "runs").exists()
