"""A run's curves as plain arrays: what is new since a cursor, or all of it, thinned."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

from engine.contract.events import Event

MAX_POINTS = 600
SMOOTHING = 0.9


@dataclass(frozen=True)
class StepPoint:
    """One training step. `seen` numbers the event in the log: it is the cursor."""

    seen: int
    step: int
    loss: float | None
    smooth: float | None


@dataclass(frozen=True)
class EvalPoint:
    """One measurement on held-out rows."""

    seen: int
    step: int
    loss: float | None


@dataclass(frozen=True)
class MemoryPoint:
    """One memory sample, by seconds of running time; pauses between attempts are left out."""

    seen: int
    seconds: float
    used: int | None
    device: int | None


@dataclass(frozen=True)
class Peak:
    """What the engine's own counters say of the first steps, between two samples of the curve.

    Attributes:
        tensors: The most bytes of tensors.
        host: The most main memory that the process held.
    """

    seconds: float
    tensors: int | None
    host: int | None


Point = TypeVar("Point", StepPoint, EvalPoint, MemoryPoint)


class Curves:
    """Takes in events in the order of the log and hands out points."""

    def __init__(self) -> None:
        self.seen = 0
        self.attempt = 0
        self.on_gpu = False
        self.steps: list[StepPoint] = []
        self.evals: list[EvalPoint] = []
        self.memory: list[MemoryPoint] = []
        self.peak: Peak | None = None
        self._attempt_began = 0.0
        self._ran_before = 0.0

    def add(self, events: Iterable[Event]) -> None:
        """Take in new events; a step that is done again replaces the earlier one."""
        for event in events:
            self.seen += 1
            self._enter_attempt(event)
            kind = event["kind"]
            if kind == "step":
                self._add_step(int(event["step"]), event.get("loss_nats"))
            elif kind == "eval":
                _drop_from(self.evals, int(event["step"]))
                self.evals.append(EvalPoint(self.seen, int(event["step"]), event.get("loss_nats")))
            elif kind == "vram":
                self._add_memory(event)
            elif kind == "memory" and event.get("of") == "measured":
                host = event.get("host_peak_bytes")
                self.peak = Peak(self._seconds(event), event.get("peak_bytes"), host)
            elif kind == "phase" and event.get("resumed_at") is not None:
                _drop_from(self.steps, int(event["resumed_at"]) + 1)
                _drop_from(self.evals, int(event["resumed_at"]) + 1)

    def since(self, seen: int) -> dict[str, Any]:
        """Points of the events after number `seen`; all of them, thinned, for 0."""
        steps = _after(self.steps, seen)
        evals = _after(self.evals, seen)
        memory = _after(self.memory, seen)
        if seen == 0:
            steps = thin(steps, attrgetter("loss"))
            evals = thin(evals, attrgetter("loss"))
            memory = thin(memory, attrgetter("used"))
        return {
            "loss": {
                "x": [point.step for point in steps],
                "raw": [point.loss for point in steps],
                "smooth": [point.smooth for point in steps],
            },
            "eval": {"x": [point.step for point in evals], "y": [point.loss for point in evals]},
            "memory": {
                "x": [point.seconds for point in memory],
                "used": [point.used for point in memory],
                "device": [point.device for point in memory],
            },
            "peak": self._peak(),
        }

    def _peak(self) -> dict[str, float] | None:
        """The mark on the memory curve, in the curve's own quantity."""
        if self.peak is None:
            return None
        size = self.peak.tensors if self.on_gpu else self.peak.host
        return None if size is None else {"x": self.peak.seconds, "bytes": size}

    def _seconds(self, event: Event) -> float:
        """Running time at an event."""
        return round(self._ran_before + float(event.get("time", 0.0)) - self._attempt_began, 2)

    def _enter_attempt(self, event: Event) -> None:
        attempt, time = int(event.get("attempt", 1)), float(event.get("time", 0.0))
        if attempt > self.attempt:
            self._ran_before = self.memory[-1].seconds if self.memory else 0.0
            self._attempt_began = time
            self.attempt = attempt

    def _add_step(self, step: int, loss: float | None) -> None:
        _drop_from(self.steps, step)
        before = self.steps[-1].smooth if self.steps else None
        smooth = before
        if loss is not None:
            # A short run is smoothed less, or the line would still show its first value.
            weight = min(SMOOTHING, len(self.steps) / (len(self.steps) + 15))
            smooth = loss if before is None else weight * before + (1 - weight) * loss
        self.steps.append(StepPoint(self.seen, step, loss, smooth))

    def _add_memory(self, event: Event) -> None:
        allocated = event.get("allocated_bytes")
        self.on_gpu = self.on_gpu or event.get("device_used_bytes") is not None
        used = allocated if self.on_gpu else event.get("host_rss_bytes")
        device = event.get("device_used_bytes")
        self.memory.append(MemoryPoint(self.seen, self._seconds(event), used, device))


def thin(points: Sequence[Point], value: Callable[[Point], float | None]) -> list[Point]:
    """At most `MAX_POINTS` points: the lowest and highest of each bucket, so spikes survive."""
    if len(points) <= MAX_POINTS:
        return list(points)
    num_buckets = MAX_POINTS // 2 - 1
    kept: set[int] = {0, len(points) - 1}
    for bucket in range(num_buckets):
        first = bucket * len(points) // num_buckets
        last = (bucket + 1) * len(points) // num_buckets
        known = [(value(points[at]), at) for at in range(first, last)]
        numbers = [(number, at) for number, at in known if number is not None]
        if numbers:
            kept.update((min(numbers)[1], max(numbers)[1]))
    return [points[at] for at in sorted(kept)]


def _after(points: list[Point], seen: int) -> list[Point]:
    return points[bisect_right(points, seen, key=attrgetter("seen")) :]


def _drop_from(points: list[StepPoint] | list[EvalPoint], step: int) -> None:
    while points and points[-1].step >= step:
        points.pop()
