"""The learning rate of every step."""

from __future__ import annotations

import pytest

from engine.contract.spec import Schedule, TrainSpec
from engine.schedule import learning_rate


def rates(schedule: Schedule, num_steps: int, warmup: int, peak: float = 1.0) -> list[float]:
    train = TrainSpec(schedule=schedule, warmup_steps=warmup, learning_rate=peak)
    return [learning_rate(step, num_steps, train) for step in range(1, num_steps + 1)]


@pytest.mark.parametrize(
    ("schedule", "fall"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 3 / 4, 2 / 4, 1 / 4]),
        ("cosine", [1, (2 + 2**0.5) / 4, 1 / 2, (2 - 2**0.5) / 4]),
    ],
)
def test_it_rises_evenly_and_falls_as_named(schedule: Schedule, fall: list[float]) -> None:
    assert rates(schedule, 6, 2) == pytest.approx([1 / 3, 2 / 3, *fall])
    assert rates(schedule, 4, 0) == pytest.approx(fall)
    assert rates(schedule, 4, 0, peak=2e-5) == pytest.approx([2e-5 * share for share in fall])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("warmup", [0, 1, 5, 2000])
def test_no_step_is_wasted_or_too_fast(schedule: Schedule, num_steps: int, warmup: int) -> None:
    found = rates(schedule, num_steps, warmup)
    assert all(0 < rate <= 1 for rate in found)
    top = found.index(max(found))
    assert found[top] == 1
    assert top == min(warmup, num_steps - 1)
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    if schedule != "constant" and num_steps - top > 100:
        assert found[-1] < 0.01


def test_a_step_has_its_rate_whichever_were_asked_before() -> None:
    train = TrainSpec(schedule="cosine", warmup_steps=3, learning_rate=1e-3)
    forward = [learning_rate(step, 50, train) for step in range(1, 51)]
    backward = [learning_rate(step, 50, train) for step in range(50, 0, -1)]
    assert forward == backward[::-1]
