"""One sentence that reads the curve, and advice only where the numbers support it."""

from __future__ import annotations

import heapq
import statistics
from typing import NamedTuple

from engine.contract.events import Event
from engine.contract.history import RunHistory
from engine.contract.status import Status
from qft_gui.snapshots import Snapshot
from qft_gui.view.numbers import loss, percent, ratio

FLAT_NATS = 0.02
RISE_SHARE = 0.02
LITTLE_SHARE = 0.04
STUCK_PERCENT = 0.01
# Nearest rounding of an update under half a step: lost, unless codes change all the same.
HALF_A_STEP = 0.5
LOST_SHARE = 0.1
JUDGED_STEPS, FEWEST_STEPS = 20, 5
PRAISE = "Learning well:"
_WAITING: dict[str, str] = {
    "": "Starting the engine.",
    "loading": "Loading the model.",
    "preparing": "Preparing the data.",
    "training": "Training begins.",
}


class Reading(NamedTuple):
    """The fact in ink, the advice in grey."""

    fact: str
    advice: str


class Held(NamedTuple):
    """One held-out measurement."""

    step: int
    loss: float


_NOTHING_MOVES = Reading(
    "Almost no weight moves: its updates are smaller than half a step of the 8-bit grid.",
    "Stochastic rounding keeps them on average; nearest rounding drops them.",
)


def read_curve(snapshot: Snapshot) -> Reading:
    """What a person comes back to read."""
    history, status = snapshot.history, snapshot.status.status
    if not history.steps:
        return Reading(_before_the_first_step(status, history.phase), "")
    if snapshot.is_resuming and status != "stopping":
        # What is after the last checkpoint is done again; the log may not have said so yet.
        kept = max(history.checkpoints, default=history.last_step)
        return Reading(f"Resuming after step {kept}.", "")
    stuck = _stuck(snapshot)
    if stuck and status in ("running", "finished"):
        return stuck
    fact, advice = _learned(history)
    if status == "running":
        return Reading(fact, advice)
    plain = fact.replace(f"{PRAISE} h", "H")
    done = f"step {history.last_step}" + (f" of {history.num_steps}" if history.num_steps else "")
    return {
        "finished": Reading(f"Finished. {plain}", "" if advice.startswith("The last") else advice),
        "stopped": Reading(f"Stopped at {done}. {plain}", _measured_at(history)),
        "saving": Reading(f"Saving. {plain}", ""),
        "stopping": Reading(f"Stopping after {done}.", "What it learned so far is being kept."),
    }.get(status, Reading(f"It ended at {done}.", ""))


def held_out(history: RunHistory) -> list[Held]:
    """The held-out measurements that are numbers, in order."""
    return [
        Held(step, float(event["loss_nats"]))
        for step, event in sorted(history.evals.items())
        if event.get("loss_nats") is not None
    ]


def held_out_lag(history: RunHistory) -> int | None:
    """The step of the last held-out measurement, where training went on after it."""
    held = held_out(history)
    return held[-1].step if held and held[-1].step < history.last_step else None


def _measured_at(history: RunHistory) -> str:
    step = held_out_lag(history)
    return f"Its held-out loss was last measured at step {step}." if step else ""


def _before_the_first_step(status: Status, phase: str) -> str:
    if status in ("queued", "starting", "running", "saving"):
        return _WAITING.get(phase, "Starting the engine.")
    if status == "stopping":
        return "Stopping before the first step."
    return "It ended before the first step."


def _stuck(snapshot: Snapshot) -> Reading | None:
    """Published rounding can train nothing while the loss looks calm: say it."""
    # The newest of the steps with the largest updates: a schedule's end moves little on purpose.
    largest = heapq.nlargest(JUDGED_STEPS, snapshot.history.steps.values(), key=_size_of_update)
    moved = _median(largest, "codes_changed_percent")
    if moved is None:
        return None
    share = _median(largest, "update_in_steps")
    if share is None:
        return _NOTHING_MOVES if moved < STUCK_PERCENT else None
    size = f"an update is {ratio(share)} of a quantization step"
    if _rounds_to_nearest(snapshot):
        # With stochastic rounding, a code moves with the probability of that share.
        if share >= HALF_A_STEP or moved >= LOST_SHARE * 100 * share:
            return None
        fact = f"Almost no weight moves: {size}, and only {percent(moved)} of the codes change."
        return Reading(
            fact, "Nearest rounding drops what is under half a step; stochastic rounding keeps it."
        )
    if moved >= STUCK_PERCENT:
        return None
    return Reading(f"Almost no weight moves: {size}.", "A larger learning rate teaches more.")


def _size_of_update(event: Event) -> tuple[float, int]:
    return event.get("learning_rate") or 0.0, event["step"]


def _rounds_to_nearest(snapshot: Snapshot) -> bool:
    method = snapshot.spec.method if snapshot.spec else None
    return method is not None and method.kind == "qft" and method.rounding == "nearest"


def _median(events: list[Event], key: str) -> float | None:
    """The usual value of a metric; None where too few events hold it."""
    values = [float(event[key]) for event in events if event.get(key) is not None]
    return statistics.median(values) if len(values) >= FEWEST_STEPS else None


def _learned(history: RunHistory) -> Reading:
    held = held_out(history)
    if len(held) < 2:
        return _from_training(history)
    first, last = held[0], held[-1]
    best = min(held, key=lambda point: point.loss)
    if last.loss - best.loss > RISE_SHARE * best.loss and best.step < last.step:
        kept = " Its checkpoint is kept." if best.step in history.checkpoints else ""
        return Reading(
            f"Held-out loss rises since step {best.step}: it is learning by heart.",
            f"Step {best.step} was the best, at {loss(best.loss)}.{kept}",
        )
    fell = first.loss - last.loss
    if fell <= FLAT_NATS:
        return Reading(
            f"Held-out loss has not moved: {loss(last.loss)}, was {loss(first.loss)}.",
            "A larger learning rate or more steps may help." if len(held) > 2 else "",
        )
    return Reading(
        f"{PRAISE} held-out loss fell from {loss(first.loss)} to {loss(last.loss)}.",
        _little_left(held, fell, history.num_steps),
    )


def _little_left(held: list[Held], fell: float, num_steps: int | None) -> str:
    if len(held) < 4 or num_steps is None or held[-1].step >= num_steps:
        return ""
    before = held[-3]
    if before.loss - held[-1].loss > LITTLE_SHARE * fell:
        return ""
    steps = held[-1].step - before.step
    return f"The last {steps} steps brought little: if you stop now you lose almost nothing."


def _from_training(history: RunHistory) -> Reading:
    losses = [
        float(history.steps[step]["loss_nats"])
        for step in sorted(history.steps)
        if history.steps[step].get("loss_nats") is not None
    ]
    if len(losses) < 4:
        return Reading("The first steps are in.", "")
    width = max(1, min(10, len(losses) // 4))
    first, last = statistics.fmean(losses[:width]), statistics.fmean(losses[-width:])
    if first - last > FLAT_NATS:
        return Reading(f"Training loss fell from {loss(first)} to {loss(last)}.", "")
    return Reading(f"Training loss is {loss(last)}, about where it began.", "")
