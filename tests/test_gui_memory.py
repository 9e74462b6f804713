"""The run page's memory: the forecast's table against the measurement, and the mark of the peak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.contract.events import Event, EventReader, EventWriter
from engine.contract.run_dir import RunDir
from qft_gui.curves import Curves
from qft_gui.fragments import render
from qft_gui.snapshots import Follower, Snapshot
from qft_gui.view.memory import memory_terms
from qft_gui.view.numbers import MISSING
from tests.test_gui_golden import golden_run

MIB = 1 << 20
FORECAST: dict[str, Any] = {
    "of": "forecast",
    "terms": {
        "weights": 100 * MIB,
        "residual": 10 * MIB,
        "moments": 50 * MIB,
        "gradients": 20 * MIB,
        "activations": 60 * MIB,
        "logits": 10 * MIB,
        "transient": 10 * MIB,
        "runtime": 400 * MIB,
    },
    "total_bytes": 660 * MIB,
    "low_bytes": 600 * MIB,
    "high_bytes": 720 * MIB,
    "tensor_bytes": 260 * MIB,
    "free_bytes": 5000 * MIB,
    "calibrated_by": 2,
}
MEASURED: dict[str, Any] = {
    "of": "measured",
    "peak_bytes": 290 * MIB,
    "terms": {"weights": 100 * MIB, "residual": 10 * MIB, "moments": 50 * MIB},
    "pass_bytes": 125 * MIB,
    "other_bytes": 5 * MIB,
    "reserved_bytes": None,
    "process_bytes": None,
    "host_peak_bytes": 680 * MIB,
    "parted": None,
}
ON_GPU: dict[str, Any] = {"reserved_bytes": 320 * MIB, "process_bytes": 900 * MIB}
VRAM = {"allocated_bytes": 9 * MIB, "reserved_bytes": 9 * MIB, "device_used_bytes": 99 * MIB}


def snapshot(run: RunDir, *events: dict[str, Any], gpu: bool = False) -> Snapshot:
    with EventWriter(run.events_path, 1) as log:
        for event in events:
            log.emit("memory", **event)
        if gpu:
            log.emit("vram", **VRAM, host_rss_bytes=500 * MIB)
    return Follower(run, EventReader(run.events_path)).snapshot()


def rows(frame: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    found = {row["name"]: (row["forecast"], row["measured"], row["error"]) for row in frame["rows"]}
    return {
        name: tuple(text.replace("\N{NO-BREAK SPACE}", " ") for text in row)
        for name, row in found.items()
    }


def test_every_term_has_its_signed_error(tmp_path: Path) -> None:
    frame = memory_terms(snapshot(golden_run(tmp_path), FORECAST, MEASURED))
    assert rows(frame) == {
        "Weights": ("100 MiB", "100 MiB", "exact"),
        "Residual": ("10 MiB", "10 MiB", "exact"),
        "Optimizer state": ("50 MiB", "50 MiB", "exact"),
        "Gradients, activations, logits, short-lived": ("100 MiB", "0.12 GiB", "−20.0 %"),
        "Other tensors that stay": (MISSING, "5.0 MiB", MISSING),
        "Tensors at the peak": ("0.25 GiB", "0.28 GiB", "−10.3 %"),
        "Python and PyTorch": ("0.39 GiB", "0.38 GiB", "+2.6 %"),
        "Whole process": ("0.64 GiB", "0.66 GiB", "−2.9 %"),
    }
    assert frame["corrected"] == "The forecast was corrected by 2 runs like this on this computer."
    text = render("memory_terms", **frame)
    assert '<details class="q-twin" open>' in text
    assert "Forecast against measured: 10.3 % too low</h2>" in text


def test_on_a_card_the_share_of_the_process_is_told(tmp_path: Path) -> None:
    now = snapshot(golden_run(tmp_path), FORECAST, {**MEASURED, **ON_GPU}, gpu=True)
    found = rows(memory_terms(now))
    assert found["Python and PyTorch"] == ("0.39 GiB", "0.60 GiB", "−34.4 %")
    assert found["Reserved by PyTorch"] == (MISSING, "0.31 GiB", MISSING)
    assert found["Whole process on the card"] == ("0.64 GiB", "0.88 GiB", "−26.7 %")
    assert "Whole process" not in found


def test_what_nvml_does_not_say_is_left_out(tmp_path: Path) -> None:
    now = snapshot(golden_run(tmp_path), FORECAST, MEASURED, gpu=True)
    assert not {"Whole process on the card", "Python and PyTorch"} & set(rows(memory_terms(now)))


def test_the_measurement_is_compared_with_its_own_forecast(tmp_path: Path) -> None:
    """The forecast of an attempt that goes on may know what the first one measured."""
    better = {**FORECAST, "tensor_bytes": 290 * MIB, "calibrated_by": 1}
    frame = memory_terms(snapshot(golden_run(tmp_path), {**FORECAST}, MEASURED, better))
    assert rows(frame)["Tensors at the peak"][2] == "−10.3 %"


def test_a_forecast_that_parted_is_said_and_only_text(tmp_path: Path) -> None:
    said = "This run's tensors needed <b>more</b> than forecast."
    frame = memory_terms(snapshot(golden_run(tmp_path), FORECAST, {**MEASURED, "parted": said}))
    text = render("memory_terms", **frame)
    assert "needed &lt;b&gt;more" in text
    assert "<b>more" not in text


@pytest.mark.parametrize(
    "events", [(), (FORECAST,), (FORECAST, {"of": "measured", "peak_bytes": 9})]
)
def test_without_measured_terms_there_is_no_table(
    tmp_path: Path, events: tuple[dict[str, Any], ...]
) -> None:
    """Before the first steps are done, or a run of an earlier version."""
    frame = memory_terms(snapshot(golden_run(tmp_path, done=0), *events))
    assert frame["rows"] == []
    assert render("memory_terms", **frame).strip() == ""


def event(kind: str, time: float, attempt: int = 1, **fields: Any) -> Event:
    return {"kind": kind, "time": time, "attempt": attempt, **fields}


def test_the_mark_of_the_peak_is_in_the_quantity_of_the_curve() -> None:
    curves = Curves()
    curves.add([event("phase", 100.0, phase="loading")])
    assert curves.since(0)["peak"] is None
    curves.add([event("memory", 107.5, **MEASURED)])
    assert curves.since(0)["peak"] == {"x": 7.5, "bytes": 680 * MIB}
    assert curves.since(curves.seen)["peak"] == {"x": 7.5, "bytes": 680 * MIB}
    curves.add([event("vram", 108.0, **VRAM, host_rss_bytes=500 * MIB)])
    assert curves.since(0)["peak"] == {"x": 7.5, "bytes": 290 * MIB}


def test_a_run_of_an_earlier_version_has_no_mark() -> None:
    curves = Curves()
    curves.add([event("memory", 1.0, of="measured", peak_bytes=5)])
    assert curves.since(0)["peak"] is None
