"""What the events say, put in order: a later attempt replaces the steps it does again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.contract.events import Event


@dataclass
class RunHistory:
    """A run's curves and facts. Feed it events in the order of the log.

    Attributes:
        forecast: Of the newest attempt; it may know what the first one measured.
        measured: What the first steps of the run needed.
        measured_against: The forecast of the attempt that measured them.
    """

    attempt: int = 0
    phase: str = ""
    num_steps: int | None = None
    steps: dict[int, Event] = field(default_factory=dict[int, Event])
    evals: dict[int, Event] = field(default_factory=dict[int, Event])
    samples: dict[int, Event] = field(default_factory=dict[int, Event])
    vram: list[Event] = field(default_factory=list[Event])
    checkpoints: list[int] = field(default_factory=list[int])
    notices: list[Event] = field(default_factory=list[Event])
    forecast: Event | None = None
    measured: Event | None = None
    measured_against: Event | None = None

    def add(self, events: Iterable[Event]) -> None:
        """Take in new events."""
        for event in events:
            if int(event.get("attempt", 1)) > self.attempt:
                self.attempt = int(event.get("attempt", 1))
            self._add(event)

    def _add(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "phase":
            self._enter_phase(event)
        elif kind == "step":
            self.steps[int(event["step"])] = event
        elif kind == "eval":
            self.evals[int(event["step"])] = event
        elif kind == "sample":
            self.samples[int(event["step"])] = event
        elif kind == "vram":
            self.vram.append(event)
        elif kind == "checkpoint":
            self.checkpoints.append(int(event["step"]))
        elif kind == "notice":
            self.notices.append(event)
        elif kind == "memory":
            if event.get("of") == "forecast":
                self.forecast = event
            else:
                self.measured, self.measured_against = event, self.forecast

    def _enter_phase(self, event: Event) -> None:
        self.phase = str(event["phase"])
        if event.get("steps") is not None:
            self.num_steps = int(event["steps"])
        done = event.get("resumed_at")
        if done is not None:
            self._forget_after(int(done))

    def _forget_after(self, step: int) -> None:
        """An attempt that goes on after `step` supersedes everything later."""
        for series in (self.steps, self.evals, self.samples):
            for later in [key for key in series if key > step]:
                del series[later]
        self.checkpoints = [kept for kept in self.checkpoints if kept <= step]

    @property
    def last_step(self) -> int:
        """The last optimizer step done, 0 before the first."""
        return max(self.steps, default=0)
