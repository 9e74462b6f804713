"""What runs of this computer needed corrects later forecasts, and never more than it may."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.contract.method_settings import METHOD_KINDS
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.calibration import (
    BAND_SAME,
    FORECAST_MODEL,
    Correction,
    case_of,
    corrected,
    narrowed,
    parting_sentence,
    pass_bytes,
    tensor_band,
)
from engine.memory.cases import KEPT_CASES, Case, calibration_path, read_cases, remember
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device
from engine.memory.estimate import RUNTIME_BAND, Forecast, estimate
from engine.memory.model_shape import ModelShape
from engine.memory.units import GIB

CPU = Device("cpu", "cpu", "2 CPU cores", 64 * GIB, 48 * GIB)
STARTER = bundled_shape("starter")
# Of the forecasts below, by the number of the estimator that made them.
CHECKSUMS = {1: "c2b94c5bc786fe59"}


def shape() -> ModelShape:
    assert STARTER is not None
    return STARTER


def spec(method: str | dict[str, Any] = "qft", data: str = "pirate", **train: Any) -> RunSpec:
    settings = {"kind": method} if isinstance(method, str) else method
    defaults: dict[str, Any] = {
        "steps": 9,
        "batch_size": 8,
        "sequence_length": 128,
        "learning_rate": 1e-4,
        "activation_checkpointing": False,
    }
    if settings["kind"] in ("lomo", "adalomo"):
        settings = {"precision": "fp32", **settings}
    return validate_spec(
        {
            "model": {"source": "starter"},
            "data": {"source": data},
            "method": settings,
            "train": {**defaults, **train},
        }
    )


def forecast(one: RunSpec, device: Device = CPU) -> Forecast:
    return estimate(one, shape(), device)


def case(one: RunSpec, ratio: float, device: Device = CPU) -> Case:
    """A run of that request whose pass needed `ratio` times what was estimated."""
    estimated = forecast(one, device)
    measured = round(ratio * pass_bytes(estimated))
    return case_of(
        estimated,
        one,
        shape(),
        device,
        measured_bytes=measured,
    )


def told(one: RunSpec, *cases: Case, device: Device = CPU) -> Forecast:
    return narrowed(forecast(one, device), one, shape(), device, cases)


def band(one: Forecast) -> float:
    """Share of the pass by which the tensors may differ."""
    low, high = tensor_band(one)
    return (high - low) / 2 / pass_bytes(one)


@pytest.mark.parametrize("kind", METHOD_KINDS)
def test_the_same_request_is_forecast_as_it_was_measured(kind: str) -> None:
    one = spec(kind)
    before, after = forecast(one), told(one, case(one, 1.08))
    assert pass_bytes(after) == round(1.08 * pass_bytes(before))
    assert after.total_bytes - before.total_bytes == pass_bytes(after) - pass_bytes(before)
    assert sum(after.terms.values()) == after.total_bytes
    exact = ("weights", "moments", "gradients", "runtime")
    assert [after.terms[term] for term in exact] == [before.terms[term] for term in exact]
    assert band(after) <= min(band(before), BAND_SAME) + 1e-6
    assert after.advice[-1] == "Corrected by 1 run like this on this computer."


def test_without_a_run_like_it_the_forecast_stays_as_it_is() -> None:
    one = spec()
    before = forecast(one)
    assert told(one) is not None
    assert told(one) == before
    others = [
        case(spec("full"), 1.2),
        case(spec(activation_checkpointing=True), 1.2),
        case(spec({"kind": "qft", "gradients": "stack"}), 1.2),
        case(spec(batch_size=64), 1.2),
        case(one, 1.2, Device("cuda:0", "cuda", "RTX", 8 * GIB, 8 * GIB)),
        case(one, 1.2).model_copy(update={"model_type": "mamba"}),
        case(one, 1.2, replace(CPU, name="64 CPU cores")),
    ]
    assert told(one, *others) == before


def test_a_case_of_another_computer_corrects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder may be shared: two computers of 2 cores are still two."""
    one = spec()
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "another")
        other = case(one, 1.2)
    assert told(one, other) == forecast(one)
    assert told(one, other, case(one, 1.1)).advice[-1].startswith("Corrected by 1 run ")


def test_a_case_of_another_estimator_corrects_nothing() -> None:
    one = spec()
    other = case(one, 1.2).model_copy(update={"forecast_model": FORECAST_MODEL + 1})
    assert told(one, other) == forecast(one)
    assert told(one, other, case(one, 1.1)).advice[-1].startswith("Corrected by 1 run ")


def test_alike_runs_move_the_forecast_and_narrow_it_once_they_are_three() -> None:
    wish = spec(batch_size=6)
    alike = [case(spec(batch_size=size), 1.05) for size in (4, 8, 12)]
    before, two, three = forecast(wish), told(wish, *alike[:2]), told(wish, *alike)
    assert (
        pass_bytes(two) == pass_bytes(three) == pytest.approx(1.05 * pass_bytes(before), rel=1e-6)
    )
    assert band(two) * pass_bytes(two) == pytest.approx(band(before) * pass_bytes(before), rel=1e-6)
    assert band(three) == pytest.approx(0.04, rel=1e-3)
    assert three.advice[-1] == "Corrected by 3 runs like this on this computer."


def test_cases_that_part_widen_the_band() -> None:
    one = spec()
    after = told(one, case(one, 0.7), case(one, 1.0), case(one, 1.3))
    assert pass_bytes(after) == pass_bytes(forecast(one))
    assert band(after) == pytest.approx(0.3, rel=1e-3)
    assert band(after) > band(forecast(one))


def test_the_request_itself_counts_before_alike_ones() -> None:
    one = spec()
    alike = [case(spec(batch_size=size), 1.4) for size in (4, 6, 12)]
    after = told(one, *alike, case(one, 1.02))
    assert pass_bytes(after) == round(1.02 * pass_bytes(forecast(one)))


@pytest.mark.parametrize(("ratio", "moves"), [(0.8, False), (1.2, True)])
def test_runs_on_other_data_can_only_raise_a_forecast(ratio: float, moves: bool) -> None:
    """Where fewer tokens are trained a step takes less: that says nothing about other data."""
    one = spec()
    after = told(one, *(case(spec(data="poet"), ratio) for _ in range(5)))
    expected = round(ratio * pass_bytes(forecast(one))) if moves else pass_bytes(forecast(one))
    assert pass_bytes(after) == expected
    assert band(after) * pass_bytes(after) == pytest.approx(
        band(forecast(one)) * pass_bytes(forecast(one)), rel=1e-6
    )


def test_a_correction_never_takes_off_what_is_exact() -> None:
    before = forecast(spec("full"))
    after = corrected(before, Correction(0.0, 0.0, 0.03, 1))
    assert pass_bytes(after) == after.terms["gradients"] == before.terms["gradients"]
    assert after.states_bytes == before.states_bytes
    assert after.low_bytes <= after.total_bytes <= after.high_bytes
    assert after.total_bytes - after.low_bytes >= round(RUNTIME_BAND * after.terms["runtime"])


def test_a_peak_outside_the_band_is_said_in_one_sentence() -> None:
    one = forecast(spec())
    low, high = tensor_band(one)
    assert low < one.tensor_bytes < high
    for inside in (low, one.tensor_bytes, high):
        assert parting_sentence(one, inside, is_kept=True) is None
    assert parting_sentence(one, low - 1, is_kept=True) is None, "not worth a sentence"
    assert parting_sentence(one, low - one.total_bytes // 99, is_kept=True) is not None
    sentence = parting_sentence(one, 2 * high, is_kept=True)
    assert sentence is not None
    assert f"{low / 2**20:.2f} to {high / 2**20:.2f}" in sentence
    assert sentence.endswith("takes that into account.")
    tried = parting_sentence(one, 2 * high, is_kept=False)
    assert tried is not None
    assert tried.endswith(f"where {low / 2**20:.2f} to {high / 2**20:.2f} were forecast.")


def test_a_torn_line_and_other_lines_are_left_out() -> None:
    first, second, third = (case(spec(batch_size=size), 1.1) for size in (4, 5, 6))
    remember(first)
    with calibration_path().open("ab") as file:
        file.write(b'\xff\xfe{"a": [\n[]\n7\n\n{"forecast_model": "1"}\n' + b"[" * 9999 + b"\n")
        file.write(second.model_dump_json().replace(":false", ":7").encode() + b"\n")
        file.write(first.model_dump_json().encode()[:90])
    remember(second)
    remember(third)
    assert read_cases() == (first, second, third)


def test_a_number_that_is_none_makes_no_case() -> None:
    line = case(spec(), 1.1).model_dump_json()
    calibration_path().parent.mkdir(parents=True, exist_ok=True)
    wrong = [
        line.replace('"measured_bytes":', '"measured_bytes":NaN,"was":'),
        line.replace('"measured_bytes":', '"measured_bytes":-'),
        line.replace('"predicted_bytes":', '"predicted_bytes":0,"was":'),
    ]
    assert line not in wrong
    calibration_path().write_text("\n".join([*wrong, line, ""]), encoding="utf-8")
    assert len(read_cases()) == 1


def test_no_file_and_a_folder_in_its_place_are_no_cases() -> None:
    assert read_cases() == ()
    calibration_path().mkdir(parents=True)
    assert read_cases() == ()
    with pytest.raises(IsADirectoryError):
        remember(case(spec(), 1.1))


def test_the_file_stays_small_and_keeps_the_newest() -> None:
    line = case(spec(), 1.1).model_dump_json() + "\n"
    calibration_path().parent.mkdir(parents=True, exist_ok=True)
    calibration_path().write_text(line * 2 * KEPT_CASES, encoding="utf-8")
    assert len(read_cases()) == KEPT_CASES
    newest = case(spec(batch_size=3), 1.2)
    remember(newest)
    assert len(calibration_path().read_bytes().splitlines()) == KEPT_CASES
    assert read_cases()[-1] == newest


def test_engines_that_end_at_once_lose_no_case() -> None:
    cases = [case(spec(batch_size=size), 1.1) for size in range(1, 33)]
    assert len({one.predicted_bytes for one in cases}) == len(cases)
    workers = [threading.Thread(target=remember, args=(one,)) for one in cases]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(read_cases(), key=lambda one: one.predicted_bytes) == cases


def test_reading_again_costs_next_to_nothing() -> None:
    for size in range(1, 101):
        remember(case(spec(batch_size=size), 1.1))
    assert len(read_cases()) == 100
    spent: list[float] = []
    for _ in range(20):
        started = time.perf_counter()
        read_cases()
        spent.append(time.perf_counter() - started)
    assert sorted(spent)[10] < 1e-3
    remember(case(spec(), 1.1))
    assert len(read_cases()) == 101


def requests() -> Iterator[tuple[RunSpec, Device]]:
    gpu = Device("cuda:0", "cuda", "RTX", 8 * GIB, 8 * GIB)
    for kind in METHOD_KINDS:
        for device in (CPU, gpu):
            for recompute in (False, True):
                yield spec(kind, activation_checkpointing=recompute), device
                yield spec(kind, batch_size=32, activation_checkpointing=recompute), device


def test_an_estimator_that_forecasts_otherwise_has_another_number() -> None:
    """Raise FORECAST_MODEL and note the checksum here: older cases then correct nothing."""
    models = ("starter", "gpt2", "qwen3-0.6b", "gemma-2-2b")
    shapes = [one for name in models if (one := bundled_shape(name)) is not None]
    numbers = [
        sorted(estimate(one, model, device).terms.items())
        for model in shapes
        for one, device in requests()
    ]
    checksum = hashlib.sha256(repr(numbers).encode()).hexdigest()[:16]
    assert (max(CHECKSUMS), CHECKSUMS[FORECAST_MODEL]) == (FORECAST_MODEL, checksum)


def test_the_file_is_in_the_folder_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert calibration_path() == Path("/somewhere/qft-workbench/calibration.jsonl")
