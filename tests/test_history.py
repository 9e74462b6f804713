"""A run's history over several attempts: every step once, the latest."""

from __future__ import annotations

from typing import Any

from engine.contract.events import Event
from engine.contract.history import RunHistory


def event(kind: str, attempt: int = 1, **fields: Any) -> Event:
    return {"kind": kind, "attempt": attempt, **fields}


def test_an_attempt_that_goes_on_replaces_what_came_after_its_start() -> None:
    history = RunHistory()
    history.add([event("phase", phase="preparing", resumed_at=0, steps=10)])
    history.add(event("step", step=step, loss_nats=step / 10) for step in range(1, 8))
    history.add(event(kind, step=step) for kind in ("eval", "sample") for step in (0, 4, 6))
    history.add(event("checkpoint", step=step) for step in (2, 4, 6))
    history.add([event("phase", 2, phase="preparing", resumed_at=4)])
    assert (sorted(history.steps), history.last_step) == ([1, 2, 3, 4], 4)
    assert sorted(history.evals) == sorted(history.samples) == [0, 4]
    assert history.checkpoints == [2, 4]
    history.add(event("step", 2, step=step, loss_nats=9.0) for step in range(5, 11))
    assert sorted(history.steps) == list(range(1, 11))
    assert [history.steps[step]["loss_nats"] for step in (4, 5)] == [0.4, 9.0]
    assert (history.attempt, history.num_steps, history.phase) == (2, 10, "preparing")


def test_a_step_that_is_done_again_counts_once_and_unknown_kinds_pass() -> None:
    history = RunHistory()
    history.add([event("step", step=3, loss_nats=1.0), event("hologram", step=9), event("gap")])
    history.add([event("step", step=3, loss_nats=2.0), event("notice", message="hot")])
    assert list(history.steps) == [3]
    assert history.steps[3]["loss_nats"] == 2.0
    assert [notice["message"] for notice in history.notices] == ["hot"]
    history.add([event("memory", of="forecast", total_bytes=1), event("memory", of="measured")])
    assert history.forecast
    assert history.forecast["total_bytes"] == 1
    assert history.measured == event("memory", of="measured")
