"""The method table: every method for this model, these settings, this device, side by side."""

from __future__ import annotations

from typing import Any

from engine.contract.errors import RequestError
from engine.memory.estimate import Forecast
from engine.memory.quality import Quality, measured_parameters, quality_of
from qft_gui.forecasts import MethodRow, Report
from qft_gui.prospects import Prospect
from qft_gui.view.fitting import hint
from qft_gui.view.methods import FAMILIES, choice_gives, choice_name
from qft_gui.view.numbers import gib, parameters, span
from qft_gui.view.sentences import sentence
from qft_gui.view.status import VERDICT_MARKS, WAITING, Mark
from qft_gui.view.times import row_time

CANNOT = Mark("no", "warn", "Cannot")
AXIS_ROOM = 1.45
FAR_SHARE = 0.2
MOSTLY = 0.75
# What an optimizer keeps of its gain at low rates differs by a few percent between seeds.
LOW_PERCENT = 97


def axis(needs: list[int], free: int | None, total: int | None = None) -> tuple[float, bool]:
    """The end of a memory axis, and whether the limit is on it.

    Where all that is needed is a small share of what is free, the limit is left out, or the bars
    would be slivers.
    """
    largest = max(needs, default=1)
    if free is None or largest < FAR_SHARE * free:
        return largest * 1.2, False
    return float(total or free * AXIS_ROOM), True


def method_table(report: Report) -> dict[str, Any]:
    """The signature screen: every method for this model, these settings, this device."""
    forecasts = [row.forecast for row in report.methods if row.forecast]
    free = report.device.free_bytes if report.device else None
    needs = [forecast.high_bytes for forecast in forecasts]
    end, has_limit = axis(needs, free)
    return {
        "families": [
            {
                "name": family,
                "rows": [_method_row(row, end) for row in report.methods if row.choice.kind in of],
            }
            for family, of in FAMILIES.items()
        ],
        "has_limit": has_limit,
        "free": percent_of(free or 0, end),
        "here": "This GPU" if report.device and report.device.kind == "cuda" else "This computer",
        "caption": _caption(needs, free, has_limit),
        "is_mostly_runtime": _is_mostly_runtime(forecasts),
        "quality_note": _quality_note(report.methods),
        "has_time": any(row.prospect and row.prospect.step for row in report.methods),
    }


def _method_row(row: MethodRow, end: float) -> dict[str, Any]:
    name = choice_name(row.choice)
    shown: dict[str, Any] = {
        "key": row.choice.key,
        "name": f"{name}, changed" if row.is_changed else name,
        "gives": choice_gives(row.choice, row.method),
        "learns": _learns(row),
        "picked": row.is_chosen,
        "why_not": "",
        "hint": "",
    }
    if row.refusal is not None:
        why = sentence(RequestError("", row.refusal.message))
        return {**shown, "known": False, "why_not": why, "mark": CANNOT}
    if row.prospect is None:
        return {**shown, "known": False, "mark": WAITING}
    return {**shown, **_known(row.prospect, end)}


def _known(found: Prospect, end: float) -> dict[str, Any]:
    """The numbers of a row."""
    forecast = found.forecast
    return {
        "known": True,
        "low": percent_of(forecast.low_bytes, end),
        "high": min(100.0, percent_of(forecast.high_bytes, end)),
        "over": forecast.low_bytes > end,
        "total": gib(forecast.total_bytes),
        "band": span(forecast.low_bytes, forecast.high_bytes),
        "time": row_time(found.step, found.total),
        "hint": hint(found.changes, found.spec.method.kind),
        "mark": VERDICT_MARKS[forecast.verdict],
    }


def _learns(row: MethodRow) -> str:
    """What was measured of a method with its own settings; full tuning is what it is beside."""
    quality = quality_of(row.choice)
    if quality is None or row.is_changed or row.choice.kind == "full":
        return ""
    return f"{quality.share_percent:.0f} % of full tuning's gain{_at_low_rates(quality)}"


def _at_low_rates(quality: Quality) -> str:
    low = quality.low_rate_share_percent
    return f", {low:.0f} % at low rates" if low is not None and low < LOW_PERCENT else ""


def _quality_note(rows: tuple[MethodRow, ...]) -> str:
    """What the gains were measured on."""
    found = [quality for quality in (quality_of(row.choice) for row in rows) if quality]
    if not found:
        return ""
    fewest, most = min(one.steps for one in found), max(one.steps for one in found)
    return (
        f"Gain: how far held-out loss fell beside full AdamW, in {fewest} to {most} steps of the "
        f"starter ({parameters(measured_parameters())} weights). A large model may differ."
    )


def _caption(needs: list[int], free: int | None, has_limit: bool) -> str:
    words = "Solid: needed for certain. Hatched: the error of the forecast."
    if free is None or not needs:
        return words
    if has_limit:
        return f"{words} Dashed line: {gib(free)} GiB free now."
    return f"{words} {gib(free)} GiB are free now, far more than any of these."


def _is_mostly_runtime(forecasts: list[Forecast]) -> bool:
    """Whether no method's own needs show beside what Python and PyTorch take."""
    shares = [forecast.terms.get("runtime", 0) / forecast.total_bytes for forecast in forecasts]
    return min(shares, default=0.0) >= MOSTLY


def percent_of(size: float, end: float) -> float:
    """A size on an axis that ends there."""
    return round(100 * size / end, 2) if end else 0.0
