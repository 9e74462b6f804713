"""A run writes down what its base and its result are known by, and changes nothing by it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.adapters import freeze
from engine.contract.events import EventWriter
from engine.contract.run_dir import RunDir
from engine.export import export_model
from engine.fingerprint import (
    MOST_TOKENS,
    NUM_TOP,
    PROBE,
    TOLERANCE,
    Fingerprint,
    fingerprint_of,
    probe_scores,
    recorded_base,
    recorded_result,
)
from engine.four_bit import FourBitFormat
from engine.model import load_model
from engine.preparation import prepare
from engine.result import load_result
from engine.weight_files import hash_of_files
from tests.talks import Talks, changed_weights
from tests.tiny import prepared, tiny_model_folder, tiny_spec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Talks:
    return Talks(tmp_path_factory.mktemp("talks"))


@pytest.mark.parametrize("method", ["qft", "full", "lomo", "lora", "qlora"])
def test_a_run_records_its_base_and_its_result(talks: Talks, method: str) -> None:
    talks.train(method, method, steps=4)
    run = talks.run(method)
    base = recorded_base(run, as_trained=False)
    assert base is not None
    loaded = load_model(talks.base)
    assert base == fingerprint_of(loaded, talks.base)
    result = recorded_result(run.export)
    assert result is not None
    tuned = load_result(run.export, CPU)
    # It computes with the values that were stored; the run, with those that they were rounded from.
    assert result.difference(probe_scores(tuned)) < TOLERANCE / 3
    assert result.files == hash_of_files(run.export)
    assert base.difference(probe_scores(tuned)) > 2 * result.difference(probe_scores(tuned))
    as_trained = recorded_base(run, as_trained=True)
    assert (as_trained is not None) == (method in ("lora", "qlora"))
    if as_trained is not None:
        form = FourBitFormat("nf4", double_quant=True) if method == "qlora" else None
        freeze(loaded.model, form, CPU)
        assert as_trained.difference(probe_scores(loaded)) < 1e-3


def test_it_is_written_once(talks: Talks, tmp_path: Path) -> None:
    base = shutil.copytree(talks.base, tmp_path / "base")
    one = prepared(tiny_spec(base, talks.folder / "chats.jsonl", "lora"), tmp_path / "runs")
    (run,) = (RunDir(path) for path in (tmp_path / "runs").iterdir())
    before = (run.path / "fingerprint.json").read_bytes()
    one.method.step(one.batches(1), 1e-2, 1)
    changed_weights(base / "model.safetensors", 0.3)
    with EventWriter(run.events_path, attempt=2) as events:
        prepare(run, events)
    assert (run.path / "fingerprint.json").read_bytes() == before
    document = json.loads(before)
    assert document["base"]["probe"] == PROBE
    assert all(len(row) == NUM_TOP for row in document["base"]["tokens"])
    assert 8 < len(document["base"]["tokens"]) <= MOST_TOKENS


def test_probing_changes_neither_model_nor_chance(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    loaded = load_model(tiny_folder("llama"))
    loaded.model.train()
    weights = {name: one.clone() for name, one in loaded.model.state_dict().items()}
    before = torch.get_rng_state()
    scores = probe_scores(loaded)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.model.training
    assert all(torch.equal(weights[name], one) for name, one in loaded.model.state_dict().items())
    assert torch.equal(probe_scores(loaded), scores)
    assert torch.allclose(scores.exp().sum(1), torch.ones(len(scores)), atol=1e-4)


def test_a_model_with_dropout_is_known_again(tmp_path: Path) -> None:
    loaded = load_model(tiny_model_folder(tmp_path / "model", "gpt2", resid_pdrop=0.5))
    loaded.model.train()
    assert torch.equal(probe_scores(loaded), probe_scores(loaded))


def test_files_are_known_however_they_are_split(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tiny_folder("llama")
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    for part, some in (("a", names[:5]), ("b", names[5:])):
        save_file({name: weights[name] for name in some}, tmp_path / f"{part}.safetensors")
    assert hash_of_files(tmp_path) == hash_of_files(folder)
    (tmp_path / "b.safetensors").unlink()
    assert hash_of_files(tmp_path) != hash_of_files(folder)


@pytest.mark.parametrize("name", ["small", "large"])
def test_other_numbers_of_the_same_shapes_are_other_files(tmp_path: Path, name: str) -> None:
    weights = {"small": torch.zeros(1024), "large": torch.zeros(1 << 20, dtype=torch.bfloat16)}
    save_file(weights, tmp_path / "model.safetensors")
    before = hash_of_files(tmp_path)
    save_file(dict(reversed(weights.items())), tmp_path / "model.safetensors")
    assert hash_of_files(tmp_path) == before
    for at in (0, -1):
        changed = {key: one.clone() for key, one in weights.items()}
        changed[name][at] = 2**-7
        save_file(changed, tmp_path / "model.safetensors")
        assert hash_of_files(tmp_path) != before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what was read")
def test_a_large_model_is_not_read_whole(tmp_path: Path) -> None:
    for number in range(4):
        save_file({f"{number}": torch.zeros(1 << 22)}, tmp_path / f"{number}.safetensors")
    process = psutil.Process()
    before = process.io_counters().read_chars
    hash_of_files(tmp_path)
    assert process.io_counters().read_chars - before < 200_000  # of 64 MiB


def test_another_vocabulary_is_infinitely_far() -> None:
    record = Fingerprint(((7, 900),), ((-1.0, -2.0),), "")
    assert record.difference(torch.zeros(1, 10)) == float("inf")
    assert record.distance(torch.zeros(1, 10)) == float("inf")
    record = Fingerprint(((7,),), ((-1.0,),), "")
    assert record.difference(torch.zeros(1, 10)) == 1.0
    assert record.difference(torch.zeros(2, 10)) == float("inf")


def test_distances_are_over_all_words_and_of_two_records_over_those_that_both_name() -> None:
    one = Fingerprint(((1, 2), (1, 2)), ((-1.0, -2.0), (-1.0, -2.0)), "")
    scores = torch.full((2, 10), -2.0)
    assert one.distance(scores) == pytest.approx(0.5**0.5)
    other = Fingerprint(((2, 3), (4, 5)), ((-2.5, -2.0), (-1.0, -2.0)), "")
    assert one.apart(other) == other.apart(one) == 0.5
    assert one.apart(one) == 0
    assert one.apart(Fingerprint(((8,), (8,)), ((-1.0,), (-1.0,)), "")) == float("inf")


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        # As earlier versions wrote it: with another probe.
        {"probe": "Who are you?", "tokens": [1], "log_probabilities": [0.0], "tensors": ""},
        {"probe": PROBE, "tokens": [1], "log_probabilities": [0.0], "files": ""},
        {"probe": PROBE, "tokens": [], "log_probabilities": [], "files": ""},
        {"probe": PROBE, "tokens": [[]], "log_probabilities": [[]], "files": ""},
        {"probe": PROBE, "tokens": [[1, 2]], "log_probabilities": [[0.0]], "files": ""},
        {"probe": PROBE, "tokens": [["x"]], "log_probabilities": [[0.0]], "files": ""},
        {"probe": PROBE, "tokens": [[1]], "log_probabilities": [[0.0]]},
    ],
)
def test_what_is_no_record_is_none(document: object) -> None:
    assert Fingerprint.from_json(document) is None


def test_a_record_survives_its_file(tiny_folder: Callable[[str], Path]) -> None:
    folder = tiny_folder("llama")
    record = fingerprint_of(load_model(folder), folder)
    assert Fingerprint.from_json(json.loads(json.dumps(record.as_json()))) == record


def test_an_export_that_is_replaced_has_its_own_record(talks: Talks) -> None:
    one = talks.train("twice", "full", steps=2)
    run = talks.run("twice")
    first = recorded_result(run.export)
    one.method.step(one.batches(1), 3e-2, 3)
    export_model(run, one.loaded, one.method)
    assert recorded_result(run.export) != first
