"""Frames of the Runs page: honesty as a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qft_gui.snapshots import Snapshot
from qft_gui.view.numbers import MISSING, gib, loss, off_by
from qft_gui.view.reading import held_out
from qft_gui.view.run import about
from qft_gui.view.status import STATUS_MARKS

SPARK_WIDTH, SPARK_HEIGHT, SPARK_POINTS = 120, 32, 60


def runs_table(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """All runs, newest first."""
    return {"runs": [_row(snapshot) for snapshot in snapshots]}


def _row(snapshot: Snapshot) -> dict[str, Any]:
    result = snapshot.result or {}
    forecast = result.get("forecast_bytes") or (snapshot.history.forecast or {}).get("tensor_bytes")
    measured = result.get("measured_peak_bytes")
    held = held_out(snapshot.history)
    losses = [point.smooth for point in snapshot.curves.steps if point.smooth is not None]
    was = loss(held[0].loss) if len(held) > 1 else ""
    now = loss(held[-1].loss) if held else MISSING
    return {
        "name": snapshot.name,
        "about": about(snapshot),
        "mark": STATUS_MARKS[snapshot.status.status],
        "spark": spark(losses),
        "spark_words": f"loss from {loss(losses[0])} to {loss(losses[-1])}"
        if losses
        else "no loss yet",
        "was": was,
        "now": now,
        "forecast": gib(forecast),
        "measured": gib(measured),
        "off": off_by(forecast, measured),
        "summary": _summary(was, now, forecast, measured),
    }


def _summary(was: str, now: str, forecast: float | None, measured: float | None) -> str:
    """The columns that a phone has no room for, on one line."""
    parts = [f"Held-out loss {f'{was} → ' if was else ''}{now}"]
    if forecast:
        parts.append(f"forecast {gib(forecast)} GiB")
    if measured:
        parts.append(f"measured {gib(measured)} ({off_by(forecast, measured)})")
    return " · ".join(parts)


def spark(losses: Sequence[float]) -> str:
    """A curve as the points of an SVG polyline."""
    if len(losses) < 2:
        return ""
    stride = max(1, len(losses) // SPARK_POINTS)
    shown = [*losses[:-1:stride], losses[-1]]
    low, high = min(shown), max(shown)
    rise = (high - low) or 1.0
    return " ".join(
        f"{SPARK_WIDTH * at / (len(shown) - 1):.1f},"
        f"{2 + (SPARK_HEIGHT - 4) * (high - value) / rise:.1f}"
        for at, value in enumerate(shown)
    )
