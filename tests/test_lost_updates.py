"""A run whose updates would be lost is warned of before it starts, and starts all the same."""

from __future__ import annotations

import doctest
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from engine.commands.parser import main
from engine.contract.bundled import STARTER
from engine.contract.method_settings import QftSettings
from engine.contract.model_source import resolve_model
from engine.contract.presets import resolve_presets
from engine.contract.run_dir import RunDir
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory import lost_updates as module
from engine.memory.catalogue import bundled_shape
from engine.memory.lost_updates import lost_updates, warning_of
from qft_gui.forecasts import Forecasts
from qft_gui.form import Form
from qft_gui.fragments import render
from qft_gui.view.fit_card import fit_card

NEAREST = QftSettings(rounding="nearest")
STOCHASTIC = QftSettings()


def document(method: dict[str, Any], **train: Any) -> dict[str, Any]:
    return {
        "model": {"source": "starter"},
        "data": {"source": "pirate"},
        "method": {"kind": "qft"} | method,
        "train": {"device": "cpu", "learning_rate": 4e-4, **train},
    }


def complete(method: dict[str, Any], **train: Any) -> RunSpec:
    return resolve_presets(validate_spec(document(method, **train)), resolve_model("starter"))


def test_numbers_read_well() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("settings", "share", "words"),
    [
        (NEAREST, 0.09, "loses nearly every update"),
        (NEAREST, 0.11, "loses most updates"),
        (NEAREST, 0.49, "loses most updates"),
        (NEAREST, 0.51, None),
        (STOCHASTIC, 0.09, None),
        (STOCHASTIC, 1.1e-4, None),
        (STOCHASTIC, 0.9e-4, "moves about once in 11,000 steps"),
    ],
)
def test_what_is_warned_of(settings: QftSettings, share: float, words: str | None) -> None:
    warning = warning_of(settings, share * 1e-3, 1e-3)
    assert (warning is None) == (words is None)
    if words is not None and warning is not None:
        assert words in warning
        assert "(1e-3)" in warning


@pytest.mark.parametrize(
    ("settings", "rate", "words"),
    [
        ({}, 5e-4, None),
        ({}, 9e-5, "teaches next to nothing"),
        ({"rounding": "nearest", "precision": "bf16"}, 1.9e-3, "nearest loses most updates"),
        ({"rounding": "nearest", "precision": "bf16"}, 2e-3, None),
        ({"rounding": "nearest", "precision": "fp32"}, 1.9e-3, None),
    ],
)
def test_adalomo_is_warned_of_by_the_size_of_a_weight(
    settings: dict[str, Any], rate: float, words: str | None
) -> None:
    warning = lost_updates(complete({"kind": "adalomo", **settings}, learning_rate=rate))
    assert (warning is None) == (words is None)
    assert words is None or words in (warning or "")


def test_the_way_out_is_named() -> None:
    assert "rounding stochastic" in (warning_of(NEAREST, 1e-5, 1e-3) or "")
    assert "residual bits" in (warning_of(STOCHASTIC, 1e-9, 1e-3) or "")
    fine = QftSettings(residual_bits=8)
    assert "residual bits" not in (warning_of(fine, 1e-9, 1e-3) or "")


def test_the_starter_with_the_published_rounding() -> None:
    assert lost_updates(complete({})) is None
    assert "loses most updates" in (lost_updates(complete({"preset": "paper"})) or "")
    # A residual makes the step that an update is rounded to sixteen times finer.
    assert lost_updates(complete({"rounding": "nearest", "residual_bits": 4})) is None
    assert lost_updates(complete({"kind": "full"})) is None


def test_a_model_that_is_not_here_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    spec = complete({"rounding": "nearest"})
    for source in ("llama-2-7b", "nobody/nothing", "gone/away/for/ever", "bad--name/.."):
        model = spec.model.model_copy(update={"source": source})
        assert lost_updates(spec.model_copy(update={"model": model})) is None


def test_a_downloaded_model_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "a" * 40
    snapshot = tmp_path / "models--someone--starter" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(STARTER, snapshot)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    spec = complete({"rounding": "nearest"})
    model = spec.model.model_copy(update={"source": "someone/starter", "revision": commit})
    there = spec.model_copy(update={"model": model})
    assert lost_updates(there) is None  # nobody has inspected its shapes yet
    assert "loses most updates" in (lost_updates(there, bundled_shape("starter")) or "")


def write(folder: Path, spec: dict[str, Any]) -> str:
    path = folder / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("as_json", [False, True])
def test_estimate_advises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    path = write(tmp_path, document({"rounding": "nearest"}))
    assert main(["estimate", path, *(["--json"] if as_json else [])]) == 0
    out = capsys.readouterr().out
    said = json.loads(out)["advice"][-1] if as_json else out
    assert "rounding to nearest loses most updates" in said


@pytest.mark.parametrize("command", ["run", "launch"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_command_warns_and_starts(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    rounding: str,
) -> None:
    launched: list[RunDir] = []
    start: Callable[[RunDir], int] = lambda run: launched.append(run) or 0  # noqa: E731
    monkeypatch.setattr("engine.commands.runs.launch", start)
    monkeypatch.setattr("engine.commands.runs.launch_and_follow", start)
    path = write(tmp_path, document({"rounding": rounding}))
    assert main([command, path, "--runs", str(tmp_path / "runs"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"run": str(launched[0].path)}
    assert said.err.startswith("warning: The learning rate 4e-4 is") == (rounding == "nearest")
    assert (said.err == "") == (rounding == "stochastic")


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_setup_page_says_it_above_the_start_button(rounding: str) -> None:
    report = Forecasts().report(
        Form(device="cpu", learning_rate="4e-4").with_values({"qft.rounding": rounding}).document()
    )
    frame = {**fit_card(report), "waits": (), "waits_word": ""}
    for name in ("fit_card", "dock"):
        page = render(name, **frame)
        assert ("Updates too small" in page) == (rounding == "nearest")
    assert ("loses most updates" in render("fit_card", **frame)) == (rounding == "nearest")


def test_the_setup_page_without_a_shape_has_nothing_to_say() -> None:
    report = Forecasts().report(Form(model="other", model_path="nobody/nothing").document())
    frame = {**fit_card(report), "waits": (), "waits_word": ""}
    assert "Updates too small" not in render("fit_card", **frame) + render("dock", **frame)
