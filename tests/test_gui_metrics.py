"""What the Run page says about the 8-bit weights: only what the events hold, each explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.contract.events import EventWriter
from engine.contract.run_dir import RunDir, create_run
from engine.contract.spec_file import validate_spec
from qft_gui.fragments import render
from qft_gui.service import Service
from qft_gui.snapshots import Snapshot
from qft_gui.view.metrics import METRICS, step_metrics
from qft_gui.view.reading import read_curve
from tests.test_gui_golden import golden_run, result

PAPER = {"kind": "qft", "preset": "paper"}


def run_with(
    runs: Path, method: dict[str, Any], *steps: dict[str, Any], limit: float | None = None
) -> Snapshot:
    """A finished run with one event for each of `steps`; `limit` clips its gradients."""
    document = {
        "model": {"source": "starter"},
        "data": {"source": "pirate"},
        "method": method,
        "train": {"learning_rate": 4e-4, "max_grad_norm": limit},
    }
    run: RunDir = create_run(runs, validate_spec(document), "told")
    with EventWriter(run.events_path, 1) as log:
        log.emit("phase", phase="training", steps=len(steps), resumed_at=None)
        for number, metrics in enumerate(steps, 1):
            rate = {"learning_rate": 4e-4} | metrics
            log.emit("step", step=number, loss_nats=2.0, num_target_tokens=9, **rate)
    run.write_result(result("finished", len(steps)))
    return Service(runs).snapshot("told")


def shown(now: Snapshot) -> dict[str, str]:
    return {item["name"]: f"{item['value']} {item['unit']}" for item in step_metrics(now)["items"]}


def test_every_number_of_the_newest_step_is_shown_and_explained(tmp_path: Path) -> None:
    last = {
        "codes_changed_percent": 3.14,
        "update_in_steps": 0.0912,
        "median_step": 0.00194,
        "grad_norm": 2.5,
        "clip_factor": 0.4,
        "outlier_percent": 1.0,
        "groups_grown": 12,
    }
    now = run_with(tmp_path, {"kind": "qft"}, {"codes_changed_percent": 50.0}, last)
    assert shown(now) == {
        "Codes changed": "3.1 % of all codes in this step",
        "Update against step": "0.091 of a quantization step",
        "Quantization step": "0.0019 in units of the weights",
        "Gradient length": "2.5 over all that is trained",
        "Gradient": "clipped to 0.4 of its length",
        "Outliers": "1.0 % of the weights, in float32",
        "Scales grown": "12 groups in this step",
    }
    page = render("metrics", **step_metrics(now))
    assert all(metric.meaning in page for metric in METRICS)
    assert "step 2" in page


def test_what_goes_with_the_rate_is_told_of_the_highest_rate_too(tmp_path: Path) -> None:
    """At the end of a cosine nothing moves, and that is no bad sign."""
    steps = [
        {"learning_rate": rate, "codes_changed_percent": share, "groups_grown": 1}
        for rate, share in ((1e-4, 6.0), (4e-4, 21.0), (1e-6, 0.02))
    ]
    found = shown(run_with(tmp_path, {"kind": "qft"}, *steps))
    assert found["Codes changed"].endswith("in this step; 21 % at step 2, of the highest rate")
    assert found["Scales grown"] == "1 group in this step"


def test_a_gradient_within_the_limit_is_not_clipped(tmp_path: Path) -> None:
    now = run_with(tmp_path, {"kind": "qft"}, {"clip_factor": 1.0})
    assert {name: text.strip() for name, text in shown(now).items()} == {"Gradient": "not clipped"}


@pytest.mark.parametrize(
    ("kind", "norm", "limit", "said"),
    [
        ("qlora", 1.5, 0.3, "clipped to 0.2 of its length"),
        ("lora", 0.2, 0.3, "not clipped"),
        ("full", 2.0, None, None),
        ("adalomo", 2.0, None, None),
    ],
)
def test_a_method_without_codes_tells_its_gradient(
    tmp_path: Path, kind: str, norm: float, limit: float | None, said: str | None
) -> None:
    now = run_with(tmp_path, {"kind": kind}, {"grad_norm": norm}, limit=limit)
    found = {name: text.strip() for name, text in shown(now).items()}
    assert found.pop("Gradient length").startswith(f"{norm:g} ")
    assert found == ({} if said is None else {"Gradient": said})
    page = render("metrics", **step_metrics(now))
    assert "Inside a step" in page
    assert "8-bit" not in page


def test_what_a_method_says_of_its_clipping_wins(tmp_path: Path) -> None:
    event = {"grad_norm": 2.0, "clip_factor": 0.25}
    assert "0.25" in shown(run_with(tmp_path, {"kind": "lomo"}, event, limit=1.0))["Gradient"]


@pytest.mark.parametrize("done", [0, 60])
def test_a_run_that_tells_nothing_shows_nothing(tmp_path: Path, done: int) -> None:
    golden_run(tmp_path, kind="full", done=done)
    now = Service(tmp_path).snapshot("golden")
    assert render("metrics", **step_metrics(now)) == ""


def test_updates_that_nearest_rounding_loses_are_named_with_their_numbers(tmp_path: Path) -> None:
    steps = [{"codes_changed_percent": 0.02, "update_in_steps": 0.09}] * 20
    fact, advice = read_curve(run_with(tmp_path, PAPER, *steps))
    assert fact == (
        "Almost no weight moves: an update is 0.09 of a quantization step, "
        "and only 0.02 % of the codes change."
    )
    assert "stochastic rounding keeps it" in advice


@pytest.mark.parametrize(
    ("method", "moved", "share"),
    [
        (PAPER, 0.02, 0.6),
        (PAPER, 5.0, 0.09),
        ({"kind": "qft"}, 0.9, 0.009),
    ],
    ids=["larger than half a step", "codes change all the same", "stochastic"],
)
def test_updates_that_are_kept_are_not_called_lost(
    tmp_path: Path, method: dict[str, Any], moved: float, share: float
) -> None:
    steps = [{"codes_changed_percent": moved, "update_in_steps": share}] * 20
    assert "Almost no weight" not in read_curve(run_with(tmp_path, method, *steps)).fact


def test_a_rate_that_moves_nothing_is_named_where_rounding_is_stochastic(tmp_path: Path) -> None:
    steps = [{"codes_changed_percent": 0.002, "update_in_steps": 2e-5}] * 20
    fact, advice = read_curve(run_with(tmp_path, {"kind": "qft"}, *steps))
    assert fact == "Almost no weight moves: an update is 2e-5 of a quantization step."
    assert advice.startswith("A larger learning rate")


def test_the_end_of_a_schedule_is_not_taken_for_standing_still(tmp_path: Path) -> None:
    high = {"learning_rate": 4e-4, "codes_changed_percent": 9.0, "update_in_steps": 0.09}
    low = {"learning_rate": 1e-9, "codes_changed_percent": 0.0, "update_in_steps": 2e-7}
    now = run_with(tmp_path, {"kind": "qft"}, *[high] * 30, *[low] * 30)
    assert "Almost no weight" not in read_curve(now).fact
