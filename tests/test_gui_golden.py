"""A run folder as the engine would leave it, written by the contract's own writers; its curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from engine.contract.events import EventReader, EventWriter
from engine.contract.identity import current_identity
from engine.contract.run_dir import RunDir, create_run
from engine.contract.spec_file import validate_spec
from qft_gui.curves import MAX_POINTS, Curves, EvalPoint, StepPoint, thin

PROMPTS = ("Who are you?", "Good morning!")
FORECAST = {
    "of": "forecast",
    "terms": {"weights": 100, "runtime": 400},
    "total_bytes": 1000,
    "low_bytes": 900,
    "high_bytes": 1100,
    "tensor_bytes": 600,
    "free_bytes": 5000,
}


def golden_run(
    runs: Path,
    name: str = "golden",
    *,
    steps: int = 60,
    done: int | None = None,
    outcome: str | None = "finished",
    kind: str = "qft",
    moved: float = 6.0,
    error: dict[str, Any] | None = None,
    reply: str = "Arr!",
) -> RunDir:
    """A run that did `done` of `steps` steps; `outcome` None leaves it without a result."""
    train = {"steps": steps, "learning_rate": 4e-4, "warmup_steps": 5}
    document = {
        "model": {"source": "starter"},
        "data": {"source": "pirate"},
        "method": {"kind": kind},
        "train": {**train, "activation_checkpointing": False},
    }
    run = create_run(runs, validate_spec(document), name)
    run.write_owner({**current_identity().as_json(), "pid": 1 if outcome is None else 999_999_999})
    done = steps if done is None else done
    with EventWriter(run.events_path, 1) as log:
        log.emit("phase", phase="training", steps=steps, resumed_at=None)
        log.emit("memory", **FORECAST)
        log.emit("eval", step=0, loss_nats=2.8, num_target_tokens=90)
        log.emit("sample", step=0, items=[{"prompt": p, "reply": "I am small."} for p in PROMPTS])
        for step in range(1, done + 1):
            write_step(log, step, steps, moved if kind == "qft" else None)
        if done:
            items = [{"prompt": prompt, "reply": reply} for prompt in PROMPTS]
            log.emit("sample", step=done, items=items)
        if outcome in ("finished", "stopped"):
            log.emit("checkpoint", step=done)
    if outcome is not None:
        run.write_result(result(outcome, done, error))
    if outcome in ("finished", "stopped"):
        run.export.mkdir()
        (run.export / "config.json").write_text("{}")
    return run


def write_step(log: EventWriter, step: int, steps: int, moved: float | None) -> None:
    loss = 0.5 + 2.3 * math.exp(-4 * step / steps)
    speed = {"learning_rate": 4e-4, "grad_norm": None, "step_s": 0.5, "tokens_per_s": 1800.0}
    metrics = {} if moved is None else {"codes_changed_percent": moved}
    log.emit("step", step=step, loss_nats=loss, num_target_tokens=90, **speed, **metrics)
    sizes = {"allocated_bytes": None, "reserved_bytes": None, "device_used_bytes": None}
    log.emit("vram", **sizes, host_rss_bytes=950)
    if step % 20 == 0:
        log.emit("eval", step=step, loss_nats=loss + 0.1, num_target_tokens=90)


def result(outcome: str, done: int, error: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the engine writes last."""
    return {
        "outcome": outcome,
        "steps_done": done,
        "tokens_seen": 90 * done,
        "eval_loss_before": 2.8,
        "eval_loss_after": 0.7,
        "train_loss_last": 0.6,
        "forecast_bytes": 1000,
        "measured_peak_bytes": 970,
        "tokens_per_s": 1800.0,
        "wall_s": 31.0,
        "error": error,
    }


def curves_of(run: RunDir) -> Curves:
    curves = Curves()
    curves.add(EventReader(run.events_path).read())
    return curves


def test_the_whole_and_the_parts_are_the_same_points(tmp_path: Path) -> None:
    events = EventReader(golden_run(tmp_path).events_path).read()
    growing, parts = Curves(), []
    for at in range(0, len(events), 7):
        before = growing.seen
        growing.add(events[at : at + 7])
        parts.append(growing.since(before) if before else growing.since(0))
    whole = growing.since(0)
    for curve, key in (("loss", "raw"), ("loss", "smooth"), ("eval", "y"), ("memory", "used")):
        assert [value for part in parts for value in part[curve][key]] == whole[curve][key]


def test_nothing_is_new_after_the_last_event(tmp_path: Path) -> None:
    curves = curves_of(golden_run(tmp_path))
    assert curves.since(curves.seen)["loss"]["x"] == []


def test_a_spike_survives_the_thinning() -> None:
    points = [StepPoint(step, step, 1.0, 1.0) for step in range(50_000)]
    points[31_415] = StepPoint(31_415, 31_415, 99.0, 1.0)
    thinned = thin(points, lambda point: point.loss)
    assert len(thinned) <= MAX_POINTS
    assert points[31_415] in thinned
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])


def test_gaps_are_thinned_too() -> None:
    points = [EvalPoint(step, step, None) for step in range(5_000)]
    assert len(thin(points, lambda point: point.loss)) <= MAX_POINTS


def test_steps_that_are_done_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    run = golden_run(tmp_path, done=30, outcome="interrupted")
    with EventWriter(run.events_path, 2) as log:
        log.emit("phase", phase="training", steps=60, resumed_at=20)
        for step in (21, 22):
            write_step(log, step, 60, 6.0)
    curves = curves_of(run)
    assert [point.step for point in curves.steps] == list(range(1, 23))
    assert curves.attempt == 2


def test_running_time_leaves_the_pause_between_attempts_out() -> None:
    curves = Curves()
    sample = {"kind": "vram", "host_rss_bytes": 5, "device_used_bytes": None}
    times = ((1, 100.0), (1, 110.0), (2, 90_000.0), (2, 90_004.0))
    curves.add({**sample, "attempt": attempt, "time": time} for attempt, time in times)
    assert [point.seconds for point in curves.memory] == [0.0, 10.0, 10.0, 14.0]


def test_on_a_gpu_the_curve_counts_tensors() -> None:
    curves = Curves()
    curves.add(
        [
            {
                "kind": "vram",
                "time": 1.0,
                "allocated_bytes": 7,
                "device_used_bytes": 9,
                "host_rss_bytes": 3,
            }
        ]
    )
    assert curves.on_gpu
    assert (curves.memory[0].used, curves.memory[0].device) == (7, 9)


@pytest.mark.parametrize("value", [None, 1.5])
def test_a_loss_that_is_no_number_is_a_gap(value: float | None) -> None:
    curves = Curves()
    curves.add([{"kind": "step", "step": 1, "loss_nats": value}])
    assert curves.since(0)["loss"]["raw"] == [value]
