"""A run's spec is complete: nothing is left to be decided, or to be looked up, later."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from engine.contract.errors import RequestErrors
from engine.contract.method_settings import METHOD_KINDS
from engine.contract.model_source import check_model_folder, count_parameters, resolve_model
from engine.contract.presets import DEFAULT_STEPS, preset_of, resolve_presets
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.request import complete, create_checked_run
from tests.tiny import chat_rows, write_jsonl

ODD_NAMES = ("a b", "$(touch x)", "-r", "é😀", "new\nline", "quo\"te's", "x" * 200)


def spec_for(model: Path | str, data: Path | str, kind: str = "qft", **train: Any) -> RunSpec:
    return validate_spec(
        {
            "model": {"source": str(model)},
            "data": {"source": str(data)},
            "method": {"kind": kind},
            "train": {"device": "cpu", **train},
        }
    )


@pytest.fixture(scope="module")
def folder(tiny_folder: Any) -> Path:
    return tiny_folder("llama")


@pytest.mark.parametrize("kind", METHOD_KINDS)
def test_what_was_left_out_is_filled_in_and_what_was_said_stays(
    folder: Path, chats_file: Path, kind: Any
) -> None:
    spec = complete(spec_for(folder, chats_file, kind))
    preset = preset_of(spec.method)
    assert spec.train.steps == DEFAULT_STEPS
    assert spec.train.learning_rate == preset.learning_rate_small
    assert spec.train.warmup_steps == preset.warmup_steps
    assert spec.train.schedule == preset.schedule
    assert spec.train.max_grad_norm == preset.max_grad_norm
    assert spec.train.activation_checkpointing is False
    assert spec.data.sha256 == hashlib.sha256(chats_file.read_bytes()).hexdigest()
    assert complete(spec) == spec
    said = {"epochs": 1.5, "learning_rate": 0.5, "warmup_steps": 0}
    train = complete(spec_for(folder, chats_file, kind, **said)).train
    assert {name: getattr(train, name) for name in said} == said
    assert train.steps is None


def test_a_large_model_gets_the_small_learning_rate() -> None:
    reference = resolve_model("llama-2-7b")
    spec = spec_for("llama-2-7b", "pirate")
    train = resolve_presets(spec, reference).train
    assert train.learning_rate == preset_of(spec.method).learning_rate
    assert (reference.kind, reference.hub_id) == ("catalogue", "meta-llama/Llama-2-7b-hf")


def test_relative_paths_become_absolute_and_names_stay(
    folder: Path, chats_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    spec = complete(spec_for(folder.name, os.path.relpath(chats_file)))
    assert Path(spec.model.source) == folder.resolve()
    assert Path(spec.data.source) == chats_file.resolve()
    monkeypatch.setenv("HOME", str(folder.parent))
    assert complete(spec_for("~/llama", "pirate")).model.source == str(folder.resolve())
    assert complete(spec_for(folder, "pirate")).data.source == "pirate"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_files_and_folders_are_only_names(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).symlink_to(folder)
    data = write_jsonl(tmp_path / f"{name}.jsonl", chat_rows(3))
    run = create_checked_run(spec_for(name, data.name), tmp_path / f"{name} runs", None)
    assert run.spec().data.source == str(data)
    assert run.spec().model.source == str(folder.resolve())
    assert json.loads(run.spec_path.read_bytes())["data"]["source"] == str(data)
    made = [name, f"{name}.jsonl", f"{name} runs"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(made)


def test_nothing_is_created_for_a_request_that_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestErrors):
        create_checked_run(spec_for(folder, tmp_path / "absent"), tmp_path / "runs", "one")
    assert list(tmp_path.iterdir()) == []


def test_a_good_folder_is_counted_from_its_headers_alone(folder: Path) -> None:
    assert check_model_folder(folder)["model_type"] == "llama"
    stored = load_file(folder / "model.safetensors").values()
    assert count_parameters(folder) == sum(tensor.numel() for tensor in stored)
