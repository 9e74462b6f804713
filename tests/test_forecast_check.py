"""What a run measures beside its forecast: terms to the byte, a notice, and a case for later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine import attempt
from engine.contract.errors import ExitCode
from engine.contract.events import Event, EventReader
from engine.contract.history import RunHistory
from engine.contract.run_dir import RunDir, create_run
from engine.memory.calibration import pass_bytes, tensor_band
from engine.memory.cases import calibration_path, read_cases
from engine.memory.devices import choose_device
from engine.memory.estimate import estimate
from engine.meter import peak_resident_bytes
from engine.preparation import Prepared
from tests.test_resume import work
from tests.tiny import prepared, tiny_spec

STATES = ("weights", "outliers", "residual", "moments", "adapters")
METHODS: dict[str, dict[str, Any]] = {
    "qft": {"kind": "qft"},
    "qft_outliers": {"kind": "qft", "outlier_percent": 1.0, "gradients": "stack"},
    "full": {"kind": "full"},
    "full_bf16": {"kind": "full", "precision": "bf16", "optimizer": "adamw_8bit"},
    "lomo": {"kind": "lomo"},
    "adalomo": {"kind": "adalomo"},
    "adalomo_frozen": {"kind": "adalomo", "embedding_rate": 0.0},
    "lora": {"kind": "lora"},
    "qlora": {"kind": "qlora"},
}

Make = Callable[..., RunDir]


@pytest.fixture
def make(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Make:
    def make(method: str = "full", **train: Any) -> RunDir:
        settings = METHODS[method]
        spec = tiny_spec(tiny_folder("llama"), chats_file, settings, **{"steps": 4, **train})
        return create_run(tmp_path / "runs", spec)

    return make


def done(run: RunDir) -> RunHistory:
    """The history of a run that is finished now."""
    assert attempt.main(str(run.path)) == ExitCode.DONE
    return history_of(run)


def history_of(run: RunDir) -> RunHistory:
    history = RunHistory()
    history.add(EventReader(run.events_path).read())
    return history


def pair(history: RunHistory) -> tuple[Event, Event]:
    assert history.forecast is not None
    assert history.measured is not None
    return history.forecast, history.measured


def messages(history: RunHistory) -> list[str]:
    """But for the one about the data, which is small in every run here."""
    told = [str(notice["message"]) for notice in history.notices]
    assert told.pop(0) == "Only 2 rows are held out: their loss says little."
    return told


@pytest.mark.parametrize("method", METHODS)
def test_measured_states_are_the_forecast_ones_and_the_pass_is_kept(
    make: Make, method: str
) -> None:
    run = make(method)
    forecast, measured = pair(done(run))
    predicted = {term: forecast["terms"][term] for term in STATES if forecast["terms"].get(term)}
    assert measured["terms"] == predicted
    states = sum(predicted.values())
    assert measured["peak_bytes"] == states + measured["other_bytes"] + measured["pass_bytes"]
    assert 0 <= measured["other_bytes"] < 1000, "buffers, and scalars in place of weights"
    assert measured["host_peak_bytes"] > measured["peak_bytes"]
    assert (measured["reserved_bytes"], measured["process_bytes"]) == (None, None)
    result = run.result or {}
    assert result["measured_peak_bytes"] == measured["peak_bytes"]
    # Linux adds up a process's pages without waiting for each processor: a few may be missing.
    assert result["measured_host_peak_bytes"] >= measured["host_peak_bytes"] - (1 << 20)
    (case,) = read_cases()
    assert (case.method, case.model_type) == (METHODS[method]["kind"], "llama")
    assert case.measured_bytes == measured["pass_bytes"]
    assert case.predicted_bytes == sum(forecast["terms"][term] for term in PASS)


PASS = ("gradients", "activations", "logits", "transient")


def test_the_next_run_is_forecast_by_the_last_and_corrections_do_not_add_up(make: Make) -> None:
    first, _ = pair(done(make()))
    assert first["calibrated_by"] == 0
    assert first["estimated_bytes"] == first["tensor_bytes"]
    for runs in (1, 2):
        history = done(make())
        forecast, measured = pair(history)
        assert (measured["parted"], messages(history)) == (None, [])
        assert forecast["calibrated_by"] == runs
        assert forecast["estimated_bytes"] == first["tensor_bytes"]
        assert forecast["tensor_bytes"] + measured["other_bytes"] == measured["peak_bytes"]
        assert forecast["high_bytes"] - forecast["low_bytes"] <= (
            first["high_bytes"] - first["low_bytes"]
        )
    assert {case.predicted_bytes for case in read_cases()} == {
        sum(first["terms"][term] for term in PASS)
    }
    assert len({case.measured_bytes for case in read_cases()}) == 1


def test_a_forecast_that_parts_is_told_and_the_next_one_does_not(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forecast is honestly wrong: the data's longest conversation is far longer than told."""
    with monkeypatch.context() as patch:
        patch.setattr("engine.expectation.estimate", _of_short_conversations)
        history = done(make(batch_size=20))
        again = done(make(batch_size=20))
    forecast, measured = pair(history)
    (notice,) = messages(history)
    assert notice == measured["parted"]
    assert notice.startswith("This run's tensors needed ")
    assert measured["peak_bytes"] > forecast["tensor_bytes"]
    assert len(read_cases()) == 2
    assert messages(again) == []
    assert pair(again)[1]["parted"] is None


def _of_short_conversations(spec: Any, shape: Any, device: Any, longest_tokens: int) -> Any:
    return estimate(spec, shape, device, longest_tokens // 8)


def test_an_attempt_that_goes_on_leaves_no_second_case(make: Make) -> None:
    run = make(steps=6)
    work(run, stop_after=3)
    (first,) = read_cases()
    forecast, measured = pair(history_of(run))
    work(run)
    assert read_cases() == (first,)
    history = history_of(run)
    assert history.last_step == 6
    assert history.measured == measured
    assert history.measured_against == forecast
    assert (history.forecast or {})["calibrated_by"] == 1


def test_a_run_that_is_stopped_before_it_was_measured_leaves_nothing(make: Make) -> None:
    work(make(), stop_after=1)
    assert read_cases() == ()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_of_few_steps_leaves_a_case_once_it_was_measured(make: Make, steps: int) -> None:
    history = done(make(steps=steps))
    measured = [history.measured["pass_bytes"]] if history.measured else []
    assert [case.measured_bytes for case in read_cases()] == measured
    assert measured or steps < 2


def test_a_folder_that_cannot_be_written_is_told_and_training_goes_on(make: Make) -> None:
    calibration_path().parent.parent.mkdir(parents=True, exist_ok=True)
    calibration_path().parent.write_text("a file where a folder should be", encoding="utf-8")
    try:
        history = done(make())
    finally:
        calibration_path().parent.unlink()
    assert [message for message in messages(history) if "could not be kept" in message]
    assert read_cases() == ()


def test_what_is_told_is_what_estimate_and_cases_say(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path
) -> None:
    one: Prepared = prepared(tiny_spec(tiny_folder("llama"), chats_file, "qft"), tmp_path)
    expected = one.expected
    assert expected.correction is None
    assert one.forecast == expected.estimated
    alone = estimate(one.spec, expected.shape, choose_device("cpu"), one.order.widest)
    assert alone.terms == expected.estimated.terms
    low, high = tensor_band(one.forecast)
    assert low < one.forecast.tensor_bytes < high
    assert pass_bytes(one.forecast) == sum(one.forecast.terms[term] for term in PASS)


def test_the_peak_of_main_memory_only_grows() -> None:
    before = peak_resident_bytes()
    assert before is not None
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    resident = psutil.Process().memory_info().rss
    del held
    # Threads hand in what they counted a few pages late.
    assert (peak_resident_bytes() or 0) >= max(before, resident) - (4 << 20)
