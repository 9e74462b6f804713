"""The card that says whether it will fit: the number, its parts, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.memory.estimate import MODELLED
from engine.memory.model_shape import ModelShape
from qft_gui.forecasts import Report
from qft_gui.surroundings import NOTHING_KNOWN, Situation
from qft_gui.view.fitting import card_rows, needed_card, offer, room
from qft_gui.view.method_table import axis, percent_of
from qft_gui.view.numbers import MISSING, gib, learning_rate, span
from qft_gui.view.status import VERDICT_MARKS, verdict_mark
from qft_gui.view.terms import TERM_MEANINGS, TERM_NAMES, shown_terms, term_source
from qft_gui.view.times import time_card


def fit_card(
    report: Report, situation: Situation = NOTHING_KNOWN, applied: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The verdict: the one number, its band and its parts, and what can be done about it.

    Args:
        report: What can be said of the request.
        situation: What goes on around it.
        applied: What the page changed to make it fit, as `change_lines`.
    """
    row, forecast, device = report.chosen_row, report.chosen, report.device
    if row is None or forecast is None or device is None:
        return {
            "known": False,
            "unknown": _why_unknown(report),
        }
    end, has_limit = axis([forecast.high_bytes], forecast.free_bytes, device.total_bytes)
    end = max(end, forecast.high_bytes * 1.02)
    return {
        "known": True,
        "total": gib(forecast.total_bytes),
        "band": span(forecast.low_bytes, forecast.high_bytes),
        "mark": verdict_mark(forecast),
        "short_word": VERDICT_MARKS[forecast.verdict].word,
        "has_limit": has_limit,
        "free": percent_of(forecast.free_bytes or 0, end),
        "free_gib": gib(forecast.free_bytes),
        "low": percent_of(forecast.low_bytes, end),
        "high": percent_of(forecast.high_bytes, end),
        "terms": _terms(report, end),
        "room": room(device, situation.holders),
        "advice": list(report.advice),
        "warning": report.warning,
        "facts": _facts(report),
        "offer": offer(report),
        "applied": applied,
        "notice": "",
        "needed": needed_card(report.cards),
        "cards": card_rows(report.cards),
        "time": time_card(report, situation),
    }


def _terms(report: Report, end: float) -> list[dict[str, Any]]:
    """The parts, each with what it is and how it is known."""
    row, shape = report.chosen_row, report.shape
    if row is None or row.prospect is None or shape is None:
        return []
    is_corrected, band = row.prospect.is_corrected, row.prospect.forecast.modelled_band
    return [
        {
            "key": term,
            "name": TERM_NAMES[term],
            "gib": gib(size),
            "width": percent_of(size, end),
            "is_modelled": term in MODELLED,
            "meaning": TERM_MEANINGS[term],
            "source": term_source(term, shape, band, is_corrected=is_corrected),
        }
        for term, size in shown_terms(row.prospect.forecast).items()
    ]


def _why_unknown(report: Report) -> str:
    if report.model is None or report.model.kind != "hub":
        return ""
    return "This model's size is known once it is downloaded, so there is no forecast for it yet."


def _facts(report: Report) -> list[tuple[str, str]]:
    if report.spec is None:
        return []
    train = report.spec.train
    length = f"{train.epochs:g} passes" if train.epochs else f"{train.steps:,}"
    rate = learning_rate(train.learning_rate) if train.learning_rate else MISSING
    rate = f"{rate}, {train.schedule}" if train.schedule else rate
    return [
        ("Batch", f"{train.batch_size}"),
        ("Length", _length(train.sequence_length, report.shape)),
        ("Steps", length),
        ("Learning rate", rate),
    ]


def _length(wished: int, shape: ModelShape | None) -> str:
    """Tokens of the longest row: no more than the model reads."""
    longest = shape.max_position if shape else None
    if longest is None or wished <= longest:
        return f"{wished:,}"
    return f"{longest:,}, all that the model reads"
