"""A run's status, derived from its folder and never stored, so that death cannot make it stale."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Literal

from engine.contract.errors import ExitCode, RequestError, RequestErrors
from engine.contract.events import EventReader
from engine.contract.history import RunHistory
from engine.contract.identity import Identity, is_alive
from engine.contract.run_dir import RunDir

Status = Literal[
    "queued",
    "starting",
    "running",
    "saving",
    "stopping",
    "finished",
    "stopped",
    "failed",
    "out_of_memory",
    "diverged",
    "interrupted",
]
TERMINAL: frozenset[Status] = frozenset(
    {"finished", "stopped", "failed", "out_of_memory", "diverged", "interrupted"}
)
RESUMABLE: frozenset[Status] = frozenset(
    {"stopped", "failed", "out_of_memory", "diverged", "interrupted"}
)
EXIT_CODES: dict[Status, ExitCode] = {
    "finished": ExitCode.DONE,
    "stopped": ExitCode.STOPPED,
    "out_of_memory": ExitCode.OUT_OF_MEMORY,
    "diverged": ExitCode.DIVERGED,
    "failed": ExitCode.FAILED,
    "interrupted": ExitCode.FAILED,
}
_PHASE_STATUS: dict[str, Status] = {
    "training": "running",
    "evaluating": "running",
    "saving": "saving",
    "exporting": "saving",
    "done": "saving",
}
_RECENT_STEPS = 20


def derive_status(run: RunDir, phase: str = "") -> Status:
    """The status now. Read it before the events: a terminal one then means all are in.

    Args:
        run: The run folder.
        phase: The last phase that the events told of, to tell starting, running and saving apart.
    """
    result = run.result
    if result is not None:
        outcome = result.get("outcome")
        return outcome if isinstance(outcome, str) and outcome in TERMINAL else "failed"
    owner = run.owner
    if owner is None:
        return _before_the_claim(run)
    identity = Identity.from_json(owner)
    if identity is None or not is_alive(identity):
        # The engine may have written its result between the two reads.
        return "interrupted" if run.result is None else derive_status(run, phase)
    if run.stop_request() is not None:
        return "stopping"
    return _PHASE_STATUS.get(phase, "starting")


def _before_the_claim(run: RunDir) -> Status:
    launch = run.launch
    if launch is None:
        return "queued" if _is_readable(run) else "failed"
    child = Identity.from_json(launch)
    if child is not None and is_alive(child):
        return "starting"
    return "failed" if run.owner is None else derive_status(run)


def _is_readable(run: RunDir) -> bool:
    try:
        run.spec()
    except (RequestError, RequestErrors):
        return False
    return True


@dataclass(frozen=True)
class RunStatus:
    """What `status` prints; the keys are frozen."""

    run: str
    status: Status
    step: int
    steps: int | None
    loss_nats: float | None
    eta_s: float | None
    error: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """The document that `status --json` prints."""
        return self.__dict__.copy()


def read_status(run: RunDir) -> RunStatus:
    """Status and progress of one run, from its files alone."""
    first = derive_status(run)
    history = RunHistory()
    history.add(EventReader(run.events_path).read())
    return summarize(run, history, first)


def summarize(run: RunDir, history: RunHistory, status: Status) -> RunStatus:
    """Put a status that was read before `history` into words and numbers."""
    if status == "starting":
        # The phase of an attempt before says nothing about this one.
        phase = history.phase if history.attempt == run.attempt() else ""
        refined = derive_status(run, phase)
        # If it ended just now, the history lacks the last events: that is for the next look.
        status = "starting" if refined in TERMINAL else refined
    last = history.steps.get(history.last_step)
    return RunStatus(
        run=run.name,
        status=status,
        step=history.last_step,
        steps=history.num_steps,
        loss_nats=last["loss_nats"] if last else None,
        eta_s=None if status in TERMINAL else seconds_left(history),
        error=error_of(run, status),
    )


def seconds_left(history: RunHistory) -> float | None:
    """Remaining steps times the median recent step; None before the first."""
    recent = [history.steps[step]["step_s"] for step in sorted(history.steps)[-_RECENT_STEPS:]]
    if not recent or history.num_steps is None:
        return None
    return round(statistics.median(recent) * max(0, history.num_steps - history.last_step), 1)


def error_of(run: RunDir, status: Status) -> dict[str, Any] | None:
    """The typed error of a run that ended badly; the result's own, or what can be derived."""
    if status not in TERMINAL or status == "finished":
        return None
    result = run.result
    if result is not None:
        return _told_error(result, status)
    if status == "interrupted":
        return {
            "class": "interrupted",
            "message": "The run ended without a word: it was killed or the computer went down.",
            "advice": "Resume continues from the last checkpoint.",
        }
    if status == "failed" and run.launch is None:
        return {
            "class": "bad_request",
            "message": "spec.json cannot be read by this version.",
            "advice": "Start a new run, or open this one with the version that made it.",
        }
    if status == "failed":
        return {
            "class": "start_failed",
            "message": "The engine ended before it could start. " + _last_line(run),
            "advice": "engine.log in the run folder has the details.",
        }
    return None


def _told_error(result: dict[str, Any], status: Status) -> dict[str, Any] | None:
    error = result.get("error")
    if isinstance(error, dict):
        return {"class": "unknown", "message": "", "advice": "", **error}
    if status == "stopped":
        return None
    return {
        "class": "unknown",
        "message": f"The run ended as {str(result.get('outcome'))[:40]!r}, without a reason.",
        "advice": "engine.log in the run folder may have it.",
    }


def _last_line(run: RunDir) -> str:
    try:
        tail = run.log_path.read_bytes()[-4000:].decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f"Its last words: {tail.splitlines()[-1][:300]}" if tail else ""
