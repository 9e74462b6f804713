"""The identity proof claims what was proven and no more, and finds every side that is another."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import engine.adapters
import engine.chat_models
from engine.chat_side import Hashes
from engine.checkpoint import verify
from engine.contract.errors import RequestError
from engine.fingerprint import FILE, FORMAT, TOLERANCE, Fingerprint, recorded_result
from engine.identity_proof import Probed, Verdict, prove
from engine.result import load_target
from engine.target import Target, find_target
from engine.weight_files import hash_of_files
from tests.talks import Caller, Talks

BOTH = ("a", "b")


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Talks:
    """Of each kind a run that learned a good deal, one that learned little, and one nothing."""
    found = Talks(tmp_path_factory.mktemp("talks"))
    for method in ("lora", "qlora", "full"):
        found.train(method, method)
    for method in ("lora", "qlora"):
        found.train(f"{method}-little", method, steps=4, rate=2e-4)
    found.train("full-little", "full", steps=4, rate=1e-4)
    found.train("nothing", "lora", steps=2, rate=0.0)
    return found


@pytest.fixture
def caller(talks: Talks) -> Caller:
    return Caller(talks.runs)


def copied(talks: Talks, name: str, folder: Path) -> Path:
    """A run whose files, its base's among them, may be spoilt."""
    base = shutil.copytree(talks.base, folder / "base")
    run = shutil.copytree(talks.run(name).path, folder / name)
    spec = json.loads((run / "spec.json").read_text(encoding="utf-8"))
    spec["model"]["source"] = str(base)
    (run / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return run


def changed_a_little(file: Path, by: float = 2**-7) -> None:
    """Within what rounding does to scores; the same names, formats and shapes."""
    weights = {name: (one * (1 + by)).to(one.dtype) for name, one in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "name", ["lora", "qlora", "full", "lora-little", "qlora-little", "full-little"]
)
def test_each_side_is_its_own_record_and_the_two_are_told_apart(caller: Caller, name: str) -> None:
    loaded = caller.load(a=None, b=name)
    proof = loaded["proof"]
    assert (proof["verdict"], proof["same_as_recorded"]) == ("different", True)
    assert proof["sides"]["a"]["record"] == f"the model that {name} began with"
    assert proof["sides"]["b"]["record"] == "the result that its run wrote"
    assert all(proof["sides"][side]["told_apart"] for side in BOTH)
    assert not any("record" in note for note in loaded["notes"])
    if name.endswith("little"):
        # The tolerance alone would take one for the other.
        assert proof["largest_difference"] < TOLERANCE


@pytest.mark.parametrize("always", ["on", "off"])
@pytest.mark.parametrize("name", ["lora", "qlora", "lora-little", "qlora-little"])
def test_an_adapter_that_does_not_switch_is_an_error(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, name: str, always: str
) -> None:
    switch = engine.adapters.switch_to

    def stuck(model: Any, adapter: str | None) -> None:
        switch(model, engine.adapters.ADAPTER if always == "on" else None)

    with monkeypatch.context() as patch:
        patch.setattr(engine.adapters, "switch_to", stuck)
        error = caller.load(a=None, b=name)
    assert error["event"] == "error", error
    assert error["field"] == ("a" if always == "on" else "b")
    assert caller.ask("a")[-1]["message"] == "no a model is loaded."
    assert caller.load(a=None, b=name)["event"] == "loaded"


def test_two_adapters_that_were_mixed_up_are_an_error(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, names = engine.adapters.switch_to, {"default": "other", "other": "default"}
    with monkeypatch.context() as patch:
        patch.setattr(
            engine.adapters, "switch_to", lambda model, name: switch(model, names.get(name))
        )
        assert caller.load(a="lora-little", b="nothing")["event"] == "error"
    assert caller.load(a="lora-little", b="nothing")["proof"]["verdict"] == "different"


@pytest.mark.parametrize(("name", "wrong"), [("full", "a"), ("full-little", "a"), ("full", "b")])
def test_a_whole_model_on_both_sides_is_an_error(
    caller: Caller, talks: Talks, monkeypatch: pytest.MonkeyPatch, name: str, wrong: str
) -> None:
    served = find_target(name if wrong == "a" else f"{name}@base", talks.runs)
    with monkeypatch.context() as patch:
        patch.setattr(
            engine.chat_models, "load_target", lambda target, device: load_target(served, device)
        )
        error = caller.load(a=None, b=name)
    assert error["event"] == "error", error
    assert caller.load(a=None, b=name)["event"] == "loaded"


def test_what_storing_rounded_away_is_no_error_but_no_tick(
    caller: Caller, talks: Talks, tmp_path: Path
) -> None:
    """A whole model that learned so little that its stored weights are those of its base."""
    copied(talks, "full-little", tmp_path)
    export = tmp_path / "full-little" / "export"
    shutil.copyfile(talks.base / "model.safetensors", export / "model.safetensors")
    recorded = json.loads((export / FILE).read_bytes())
    recorded["result"]["files"] = hash_of_files(export)
    (export / FILE).write_text(json.dumps(recorded), encoding="utf-8")
    loaded = Caller(tmp_path).load(a=None, b="full-little")
    assert loaded["event"] == "loaded", loaded
    assert loaded["proof"]["verdict"] == "unclear"
    assert "Storing full-little may have rounded away what little it learned." in loaded["notes"]


def test_one_that_is_not_nearer_to_its_own_record_earns_no_tick(tmp_path: Path) -> None:
    """Two models that are apart by less than another device's rounding."""
    noise = torch.randn(3, 10, generator=torch.Generator().manual_seed(0)) / 50
    sides = recorded_sides(tmp_path, by=2e-3, noise=noise)
    found = prove(sides)
    assert found.largest_difference == pytest.approx(2e-3, rel=0.01)
    assert [side.told_apart for side in found.sides.values()] == [False, False]
    assert found.verdict == "unclear"


def test_a_right_side_whose_scores_lean_to_the_other_s_record_is_no_error(tmp_path: Path) -> None:
    """Noise that is shared by all numbers of a row can make the other record the nearer one."""
    sides = recorded_sides(tmp_path, by=0.04, noise=torch.full((3, 10), 0.025))
    assert prove(sides).sides["a"].told_apart is False
    # Only one that plainly is the other is refused.
    other = replace(sides["a"], scores=sides["b"].scores - 0.025)
    with pytest.raises(RequestError, match="answers as"):
        prove({"a": other, "b": sides["b"]})


def test_a_single_word_s_rounding_is_no_other_model(tmp_path: Path) -> None:
    noise = torch.zeros(3, 10)
    noise[1, 9] = 0.4  # of 24 words that are recorded
    sides = recorded_sides(tmp_path, by=2.0, noise=noise)
    proof = prove(sides).sides["a"]
    assert proof.difference == pytest.approx(0.4 / 24**0.5)
    everywhere = replace(sides["a"], scores=sides["a"].scores + 0.3)
    with pytest.raises(RequestError, match=r"its scores are 0\.3\d nats away"):
        prove({"a": everywhere})


@pytest.mark.parametrize(
    ("files", "apart", "verdict"),
    [("same", 0.0, "unchanged"), ("other", 0.0, "unclear"), ("same", 0.01, "unclear")],
)
def test_on_record_the_same_are_those_of_the_same_files_and_scores(
    tmp_path: Path, files: str, apart: float, verdict: Verdict
) -> None:
    """Files are only sampled, and scores are of one text."""
    sides = recorded_sides(tmp_path, by=apart, noise=torch.zeros(3, 10))
    same = replace(sides["b"], scores=sides["a"].scores)
    if files == "same":
        same = replace(same, files=sides["a"].files)
        file = tmp_path / "b" / FILE
        document = json.loads(file.read_bytes())
        document["result"]["files"] = sides["a"].files.own
        file.write_text(json.dumps(document), encoding="utf-8")
    assert prove({"a": sides["a"], "b": same}).verdict == verdict


def recorded_sides(folder: Path, by: float, noise: torch.Tensor) -> dict[str, Probed]:
    """Two adapters with records `by` nats apart, as another device's rounding has them now."""
    ramp = torch.arange(10.0).expand(3, 10)
    found: dict[str, Probed] = {}
    for name, scores in (("a", ramp), ("b", ramp + by)):
        values, tokens = scores.topk(8)
        record = Fingerprint(
            tuple(tuple(row) for row in tokens.tolist()),
            tuple(tuple(row) for row in values.tolist()),
            f"files of {name}",
        )
        (folder / name).mkdir()
        (folder / name / "adapter_config.json").touch()
        document = {"format": FORMAT, "result": record.as_json()}
        (folder / name / FILE).write_text(json.dumps(document), encoding="utf-8")
        target = Target(name, folder / name, "adapter")
        files = Hashes(record.files, None)
        found[name] = Probed(target, False, "bfloat16", files, scores + noise)
    return found


def test_training_that_changed_nothing_is_no_error_and_is_said(caller: Caller) -> None:
    loaded = caller.load(a=None, b="nothing")
    proof = loaded["proof"]
    assert (proof["verdict"], proof["different"]) == ("unchanged", False)
    assert proof["same_as_recorded"] is True
    assert loaded["notes"] == []  # what the verdict says is not said twice
    same = caller.load(a="lora", b="lora")
    assert same["proof"]["verdict"] == "unchanged"
    assert same["notes"] == []


@pytest.mark.parametrize(
    ("name", "file", "words"),
    [
        ("full", "full/export/model.safetensors", "full is not the result that its run wrote"),
        (
            "lora",
            "lora/export/adapter_model.safetensors",
            "lora is not the result that its run wrote",
        ),
        ("full", "base/model.safetensors", "base is not the model that full began with"),
        ("qlora", "base/model.safetensors", "base is not the model that qlora began with"),
    ],
)
def test_other_files_of_the_same_shapes_are_an_error(
    talks: Talks, tmp_path: Path, name: str, file: str, words: str
) -> None:
    """However little they change what a model says."""
    copied(talks, name, tmp_path)
    caller = Caller(tmp_path)
    assert caller.load(a=None, b=name)["event"] == "loaded"
    changed_a_little(tmp_path / file)
    error = caller.load(a=None, b=name)
    assert (error["event"], error["message"]) == (
        "error",
        f"{words}: its weight files are others.",
    )


def test_the_model_under_an_adapter_that_is_asked_alone_is_looked_at(
    talks: Talks, tmp_path: Path
) -> None:
    copied(talks, "lora", tmp_path)
    caller = Caller(tmp_path)
    assert caller.load(b="lora")["proof"]["sides"]["b"]["told_apart"] is True
    changed_a_little(tmp_path / "base" / "model.safetensors")
    assert caller.load(b="lora")["message"] == (
        "the model under lora is not the model that lora began with: its weight files are others."
    )


def test_the_original_of_a_run_is_proven_by_that_run(talks: Talks, tmp_path: Path) -> None:
    copied(talks, "full", tmp_path)
    caller = Caller(tmp_path)
    loaded = caller.load(b="full@base")
    assert loaded["proof"]["sides"]["b"]["record"] == "the model that full began with"
    assert loaded["sides"]["b"]["name"] == "base"
    # By its folder alone, nothing says which run's it is.
    assert caller.load(b=str(tmp_path / "base"))["proof"]["sides"]["b"]["record"] is None
    changed_a_little(tmp_path / "base" / "model.safetensors")
    assert "is not the model that full began with" in caller.load(b="full@base")["message"]


@pytest.mark.parametrize("name", ["lora", "qlora", "full"])
def test_a_checkpoint_has_a_record_of_its_own(
    talks: Talks, caller: Caller, tmp_path: Path, name: str
) -> None:
    run = talks.run(name)
    folder = run.checkpoints / "step-000003"
    record = recorded_result(folder)
    assert record is not None
    assert record != recorded_result(run.export)
    assert verify(run, folder) is None
    sides = caller.load(a=f"{name}@3", b=name)["proof"]["sides"]
    assert sides["a"]["record"] == "what its run held at step 3"
    assert all(sides[side]["told_apart"] for side in BOTH)
    copy = copied(talks, name, tmp_path)
    recorded = copy / "checkpoints" / "step-000003" / FILE
    recorded.write_text(recorded.read_text(encoding="utf-8").replace("-", "-1"), encoding="utf-8")
    error = Caller(tmp_path).load(b=f"{name}@3")
    assert "no whole checkpoint of step 3" in error["message"]


def test_a_checkpoint_of_an_older_version_answers_without_a_record(
    talks: Talks, tmp_path: Path
) -> None:
    checkpoint = copied(talks, "lora", tmp_path) / "checkpoints" / "step-000003"
    (checkpoint / FILE).unlink()
    manifest = json.loads((checkpoint / "manifest.json").read_bytes())
    del manifest["files"][FILE]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    loaded = Caller(tmp_path).load(a=None, b="lora@3")
    proof = loaded["proof"]
    assert (proof["verdict"], proof["same_as_recorded"]) == ("different", None)
    assert proof["sides"]["a"]["same_as_recorded"] is True
    assert proof["sides"]["b"] == {
        "record": None,
        "difference": None,
        "told_apart": None,
        "same_as_recorded": None,
    }
    assert "Of lora@3 there is no record to compare it with." in loaded["notes"]


def probed(folder: Path, form: str, by: float) -> Probed:
    scores = torch.full((3, 10), by)
    return Probed(Target(folder.name, folder, "model"), False, form, Hashes("", None), scores)


@pytest.mark.parametrize(
    ("forms", "by", "verdict"),
    [
        (("float32", "float32"), 0.0, "alike"),
        (("float32", "float32"), 1e-3, "different"),
        # The same model in another format would differ so.
        (("float32", "bfloat16"), 0.2, "unclear"),
        (("float32", "bfloat16"), 0.3, "different"),
        (("bfloat16", "4-bit"), 1.5, "unclear"),
        (("bfloat16", "4-bit"), 5.0, "different"),
        (("float32", "4-bit"), 0.0, "alike"),
    ],
)
def test_without_records_only_more_than_rounding_tells_two_models_apart(
    tmp_path: Path, forms: tuple[str, str], by: float, verdict: Verdict
) -> None:
    sides = {"a": probed(tmp_path / "one", forms[0], 0.0)}
    sides["b"] = probed(tmp_path / "two", forms[1], by)
    found = prove(sides)
    assert (found.verdict, found.same_as_recorded) == (verdict, None)


def test_two_vocabularies_are_two_models(tmp_path: Path) -> None:
    one, other = probed(tmp_path / "one", "float32", 0.0), probed(tmp_path / "two", "float32", 0.0)
    wider = Probed(other.target, False, "float32", other.files, torch.zeros(3, 11))
    assert (prove({"a": one, "b": wider}).verdict, prove({"a": one}).verdict) == (
        "different",
        "alone",
    )
