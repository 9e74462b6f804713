"""What a step did: the numbers of the newest step, each with what it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from engine.contract.spec import RunSpec
from qft_gui.snapshots import Snapshot
from qft_gui.view.numbers import learning_rate, percent, ratio

Shown = tuple[str, str]
FOLLOWS_RATE = frozenset({"codes_changed_percent", "update_in_steps"})
FAR_BELOW = 0.5


class Metric(NamedTuple):
    """One number of a step event.

    Attributes:
        key: Its name in the event.
        show: The number and its unit, as a person reads them.
        meaning: What it is and what is good, in one or two plain sentences.
    """

    key: str
    name: str
    show: Callable[[float], Shown]
    meaning: str


def _codes(share: float) -> Shown:
    return percent(share), "of all codes in this step"


def _update(share: float) -> Shown:
    return ratio(share), "of a quantization step"


def _step(size: float) -> Shown:
    return learning_rate(float(f"{size:.2g}")), "in units of the weights"


def _length(norm: float) -> Shown:
    return ratio(norm), "over all that is trained"


def _clipped(factor: float) -> Shown:
    return ("not clipped", "") if factor >= 1 else (f"clipped to {ratio(factor)}", "of its length")


def _outliers(share: float) -> Shown:
    return percent(share), "of the weights, in float32"


def _grown(count: float) -> Shown:
    return f"{count:,.0f}", "group in this step" if count == 1 else "groups in this step"


METRICS = (
    Metric(
        "codes_changed_percent",
        "Codes changed",
        _codes,
        "A weight is stored as one of 255 codes. It moves when its code changes; near 0 % where "
        "the learning rate is highest means that next to nothing is learned.",
    ),
    Metric(
        "update_in_steps",
        "Update against step",
        _update,
        "The learning rate over the distance between two codes. Below a half, rounding to nearest "
        "drops the update; stochastic rounding keeps it on average.",
    ),
    Metric(
        "median_step",
        "Quantization step",
        _step,
        "The distance between two neighbouring values that a weight can have: half of the weights "
        "have a finer one.",
    ),
    Metric(
        "grad_norm",
        "Gradient length",
        _length,
        "How steeply the loss falls from here, before any clipping. A sudden jump is a sign of "
        "trouble.",
    ),
    Metric(
        "clip_factor",
        "Gradient",
        _clipped,
        "A gradient that is longer than the limit is shortened to it. Now and then is fine; at "
        "every step the limit is low.",
    ),
    Metric(
        "outlier_percent",
        "Outliers",
        _outliers,
        "The largest weights are kept apart and exact, so that the codes of the others are finer.",
    ),
    Metric(
        "groups_grown",
        "Scales grown",
        _grown,
        "Groups of weights in which one outgrew its codes, so that all of them got a wider step. "
        "A few are normal.",
    ),
)


def step_metrics(snapshot: Snapshot) -> dict[str, Any]:
    """The numbers that the newest step's event holds.

    What goes with the learning rate is told of the step with the highest rate too: at the end of a
    schedule it says little.
    """
    history = snapshot.history
    newest = _with_clip_factor(history.steps.get(history.last_step, {}), snapshot.spec)
    highest = max(history.steps, key=lambda step: _rate(history.steps[step]), default=0)
    falls = _rate(newest) < FAR_BELOW * _rate(history.steps.get(highest, {}))
    items: list[dict[str, str]] = []
    for metric in METRICS:
        value = newest.get(metric.key)
        if value is None:
            continue
        number, unit = metric.show(float(value))
        before = history.steps[highest].get(metric.key)
        if falls and metric.key in FOLLOWS_RATE and before is not None:
            unit += f"; {metric.show(float(before))[0]} at step {highest:,}, of the highest rate"
        items.append(
            {"name": metric.name, "value": number, "unit": unit, "meaning": metric.meaning}
        )
    title = "The 8-bit weights" if "codes_changed_percent" in newest else "Inside a step"
    return {"title": title, "items": items, "step": f"{history.last_step:,}"}


def _with_clip_factor(step: dict[str, Any], spec: RunSpec | None) -> dict[str, Any]:
    """The step with what clipping did to its gradient, which not every method tells by itself."""
    limit, norm = spec.train.max_grad_norm if spec else None, step.get("grad_norm")
    if limit is None or not norm:
        return step
    return {"clip_factor": min(1.0, limit / norm), **step}


def _rate(event: dict[str, Any]) -> float:
    return float(event.get("learning_rate") or 0.0)
