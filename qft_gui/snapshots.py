"""A run as the pages see it: its folder read once, then only what was appended."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from typing import Any

from engine.contract.errors import RequestError, RequestErrors
from engine.contract.events import EventReader
from engine.contract.history import RunHistory
from engine.contract.run_dir import RunDir
from engine.contract.spec import RunSpec
from engine.contract.status import RESUMABLE, TERMINAL, RunStatus, Status, derive_status, summarize
from qft_gui.curves import Curves


@dataclass(frozen=True)
class Snapshot:
    """One run at one moment, from its folder alone."""

    name: str
    spec: RunSpec | None
    status: RunStatus
    history: RunHistory
    curves: Curves
    result: dict[str, Any] | None
    created: float
    has_export: bool
    attempt: int = 1
    notice: str = ""

    @property
    def is_over(self) -> bool:
        """Whether no engine works on it any more."""
        return self.status.status in TERMINAL

    @property
    def is_resuming(self) -> bool:
        """Whether this attempt goes on after an earlier one and has done no step yet."""
        last = self.history.steps.get(self.history.last_step)
        return not self.is_over and last is not None and last.get("attempt", 1) < self.attempt

    @property
    def is_resumable(self) -> bool:
        """Whether it ended early and has a checkpoint to go on from."""
        return self.status.status in RESUMABLE and bool(self.history.checkpoints)


@dataclass
class Follower:
    """Reads one run's log as it grows."""

    run: RunDir
    reader: EventReader
    history: RunHistory = field(default_factory=RunHistory)
    curves: Curves = field(default_factory=Curves)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _phase(self) -> str:
        """What this attempt does; an earlier one's last phase says nothing of it."""
        return self.history.phase if self.history.attempt == self.run.attempt() else ""

    def snapshot(self) -> Snapshot:
        """The run now, with everything that was appended since the last call."""
        run = self.run
        with self.lock:
            # Status first: a terminal one then means that all events are in.
            status = derive_status(run, self._phase())
            self._catch_up()
            if status not in TERMINAL:
                status = _with_phase(run, self._phase(), status)
            history, curves = _copy_of_history(self.history), _copy_of_curves(self.curves)
        return Snapshot(
            name=run.name,
            spec=_spec_of(run),
            status=summarize(run, history, status),
            history=history,
            curves=curves,
            result=run.result,
            created=run.spec_path.stat().st_mtime,
            has_export=run.export.is_dir() and any(run.export.iterdir()),
            attempt=run.attempt(),
        )

    def _catch_up(self) -> None:
        before = self.reader.offset
        events = self.reader.read()
        if self.reader.offset < before:  # the log was replaced
            self.history, self.curves = RunHistory(), Curves()
        self.history.add(events)
        self.curves.add(events)


def memory_limits(snapshot: Snapshot) -> dict[str, int] | None:
    """The forecast that the memory curve is drawn against, in the curve's own quantity.

    On a GPU the curve counts tensors, so the runtime's share is taken off the forecast.
    """
    forecast = snapshot.history.forecast
    if forecast is None:
        return None
    runtime = int(forecast.get("terms", {}).get("runtime", 0)) if snapshot.curves.on_gpu else 0
    return {
        name: int(forecast[f"{name}_bytes"]) - runtime
        for name in ("total", "low", "high", "free")
        if forecast.get(f"{name}_bytes") is not None
    }


def _with_phase(run: RunDir, phase: str, status: Status) -> Status:
    """The status with a phase that the events told of only now; never a later terminal one."""
    now = derive_status(run, phase)
    return status if now in TERMINAL else now


def _copy_of_history(history: RunHistory) -> RunHistory:
    twin = copy.copy(history)
    twin.steps, twin.evals = dict(history.steps), dict(history.evals)
    twin.samples, twin.vram = dict(history.samples), list(history.vram)
    twin.checkpoints, twin.notices = list(history.checkpoints), list(history.notices)
    return twin


def _copy_of_curves(curves: Curves) -> Curves:
    twin = copy.copy(curves)
    twin.steps, twin.evals, twin.memory = (
        list(curves.steps),
        list(curves.evals),
        list(curves.memory),
    )
    return twin


def _spec_of(run: RunDir) -> RunSpec | None:
    try:
        return run.spec()
    except (RequestError, RequestErrors):
        return None
