"""Frames of the Run page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from engine.memory.units import gib
from qft_gui.snapshots import Snapshot
from qft_gui.view.methods import method_name
from qft_gui.view.numbers import MISSING, compared, duration, loss, rate
from qft_gui.view.reading import held_out, held_out_lag, read_curve
from qft_gui.view.status import STATUS_MARKS

RECENT_STEPS = 20


def run_head(snapshot: Snapshot) -> dict[str, Any]:
    """Status, the sentence, progress and the facts."""
    status, history = snapshot.status, snapshot.history
    steps = status.steps
    reading = read_curve(snapshot)
    newest = str(history.notices[-1].get("message", "")) if history.notices else ""
    return {
        "mark": STATUS_MARKS[status.status],
        "about": about(snapshot),
        "fact": reading.fact,
        "advice": reading.advice,
        "percent": round(100 * status.step / steps) if steps else 0,
        "facts": [fact for fact in _facts(snapshot) if fact is not None],
        "notice": snapshot.notice or newest,
    }


def about(snapshot: Snapshot) -> str:
    """Model, data, method and start of a run on one line."""
    started = moment(snapshot.created)
    if snapshot.spec is None:
        return f"made by another version · {started}"
    spec = snapshot.spec
    named = (short(spec.model.source), short(spec.data.source), method_name(spec.method))
    return " · ".join([*named, started])


def short(source: str) -> str:
    """The last part of a path; names and hub ids stay whole."""
    return Path(source).name if Path(source).is_absolute() else source


def moment(seconds: float, now: float | None = None) -> str:
    """A past moment: the time today, the day before that."""
    then, today = time.localtime(seconds), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%d %b, %H:%M", then)


Fact = dict[str, str]


def _facts(snapshot: Snapshot) -> list[Fact | None]:
    status, history, result = snapshot.status, snapshot.history, snapshot.result or {}
    of_steps = f"of {status.steps:,}" if status.steps else ""
    over = snapshot.is_over
    recent = [history.steps[step] for step in sorted(history.steps)[-RECENT_STEPS:]]
    speed = _mean(recent, "tokens_per_s")
    facts: list[Fact | None] = [_fact("Step", f"{status.step:,}", of_steps)]
    if over:
        took = result.get("train_s") or result.get("wall_s")
        facts.append(_fact("Took", duration(took)) if took else None)
    elif not snapshot.is_resuming:
        facts.append(_fact("Time left", duration(status.eta_s)))
    facts.append(_fact("Speed", rate(speed), "tokens/s"))
    facts.append(_held_out_fact(snapshot))
    if over and result.get("measured_peak_bytes"):
        facts.append(_peak_fact(result))
    return facts


def _held_out_fact(snapshot: Snapshot) -> Fact:
    held = held_out(snapshot.history)
    if not held:
        return _fact("Held-out loss", MISSING)
    was = f"was {loss(held[0].loss)}" if len(held) > 1 else "before training"
    lag = held_out_lag(snapshot.history) if snapshot.is_over and len(held) > 1 else None
    if lag is not None:
        was = f"at step {lag}, {was}"
    return _fact("Held-out loss", loss(held[-1].loss), was)


def _peak_fact(result: dict[str, Any]) -> Fact:
    forecast, measured = result.get("forecast_bytes"), result["measured_peak_bytes"]
    value, _, unit = gib(measured).partition(" ")
    if forecast:
        unit = f"{unit}, forecast {gib(forecast)}, {compared(forecast, measured)}"
    return _fact("Tensors at peak (without Python and PyTorch)", value, unit)


def _fact(name: str, value: str, unit: str = "") -> Fact:
    return {"name": name, "value": value, "unit": unit}


def _mean(events: list[dict[str, Any]], key: str) -> float | None:
    values = [float(event[key]) for event in events if event.get(key) is not None]
    return sum(values) / len(values) if values else None


def replies(snapshot: Snapshot) -> dict[str, Any]:
    """Three fixed prompts: the reply before training above the newest one."""
    samples = snapshot.history.samples
    if not samples:
        return {"items": []}
    first, last = min(samples), max(samples)
    before = {item["prompt"]: item["reply"] for item in samples[first].get("items", [])}
    return {
        "items": [
            {
                "prompt": item["prompt"],
                "before": before.get(item["prompt"], "") if first == 0 else "",
                "now": item["reply"] if last > 0 else "",
            }
            for item in samples[last].get("items", [])
        ],
        "step": last,
    }


def failure(snapshot: Snapshot) -> dict[str, Any] | None:
    """What went wrong, what was kept, and the way out; None for a run that did not fail."""
    error = snapshot.status.error
    if error is None:
        return None
    kept = snapshot.history.checkpoints
    attempt = snapshot.curves.attempt or 1
    at_step = f" at step {snapshot.status.step}" if snapshot.status.step else ""
    return {
        "sentence": str(error.get("message") or "The run failed."),
        "kept": f"The checkpoint of step {kept[-1]} is kept."
        if kept
        else "No checkpoint was made.",
        "advice": str(error.get("advice") or ""),
        "detail": f"{error.get('class', 'unknown')}{at_step}, attempt {attempt}; "
        "engine.log in the run's folder has the rest.",
    }


def announcement(snapshot: Snapshot) -> str:
    """What a screen reader is told: phases and the end, never steps."""
    word = STATUS_MARKS[snapshot.status.status].word
    return f"{snapshot.name}: {word}." + (
        f" {read_curve(snapshot).fact}" if snapshot.is_over else ""
    )
