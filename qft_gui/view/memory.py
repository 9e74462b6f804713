"""Forecast and measured memory of a run, term by term, as text."""

from __future__ import annotations

from typing import Any

from engine.contract.events import Event
from engine.memory.estimate import Term
from engine.memory.units import gib
from qft_gui.snapshots import Snapshot
from qft_gui.view.numbers import MISSING, compared, off_by
from qft_gui.view.terms import TERM_NAMES

STATES: tuple[Term, ...] = ("weights", "outliers", "residual", "adapters", "moments")
PASS: tuple[Term, ...] = ("gradients", "activations", "logits", "transient")

# What the counters tell apart is what stays between steps from what comes and goes in one.
LUMP = (
    "Gradients, activations, logits and what is short-lived come and go within a step, so they are "
    "measured together. Python and PyTorch: what the process holds beside its tensors."
)

# Of the peak, from which on what no term counts is told.
SHOWN_SHARE = 0.001


def memory_terms(snapshot: Snapshot) -> dict[str, Any]:
    """The rows of the table, and what is to be said of them; no rows before the measurement."""
    history = snapshot.history
    forecast, measured = history.measured_against, history.measured
    if forecast is None or measured is None or "terms" not in measured:
        return {"rows": [], "total": "", "parted": "", "corrected": "", "lump": ""}
    rows = [*_states(forecast, measured), *_others(forecast, measured)]
    tensors = _row("Tensors at the peak", forecast.get("tensor_bytes"), measured.get("peak_bytes"))
    return {
        "rows": [*rows, tensors, *_process(forecast, measured, on_gpu=snapshot.curves.on_gpu)],
        "total": _total(forecast.get("tensor_bytes"), measured.get("peak_bytes")),
        "lump": LUMP,
        "parted": str(measured.get("parted") or ""),
        "corrected": _corrected(int(forecast.get("calibrated_by") or 0)),
    }


def _total(forecast: int | None, measured: int | None) -> str:
    return compared(forecast, measured) if forecast and measured else ""


Row = dict[str, str]


def _states(forecast: Event, measured: Event) -> list[Row]:
    predicted, found = forecast.get("terms", {}), measured["terms"]
    return [
        _row(TERM_NAMES[term], predicted.get(term, 0), found.get(term, 0))
        for term in STATES
        if predicted.get(term) or found.get(term)
    ]


def _others(forecast: Event, measured: Event) -> list[Row]:
    predicted = sum(int(forecast.get("terms", {}).get(term, 0)) for term in PASS)
    name = ", ".join(TERM_NAMES[term] for term in PASS).capitalize()
    rows = [_row(name, predicted, measured.get("pass_bytes"))]
    other = int(measured.get("other_bytes") or 0)
    if other > SHOWN_SHARE * int(measured["peak_bytes"]):
        rows.append(_row("Other tensors that stay", None, other))
    return rows


def _process(forecast: Event, measured: Event, *, on_gpu: bool) -> list[Row]:
    """The whole process: in main memory, or on the card."""
    total = forecast.get("total_bytes")
    programs = forecast.get("terms", {}).get("runtime")
    if not on_gpu:
        whole = measured["host_peak_bytes"]
        rest = max(0, whole - measured["peak_bytes"]) if whole else None
        return [_row(TERM_NAMES["runtime"], programs, rest), _row("Whole process", total, whole)]
    rows = [_row("Reserved by PyTorch", None, measured.get("reserved_bytes"))]
    if measured.get("process_bytes"):
        rest = max(0, measured["process_bytes"] - measured["peak_bytes"])
        rows.append(_row(TERM_NAMES["runtime"], programs, rest))
        rows.append(_row("Whole process on the card", total, measured["process_bytes"]))
    return rows


def _row(name: str, forecast: int | None, measured: int | None) -> Row:
    is_exact = forecast is not None and forecast == measured
    numbers = {
        "forecast": MISSING if forecast is None else gib(forecast),
        "measured": MISSING if measured is None else gib(measured),
        "error": "exact" if is_exact else off_by(forecast, measured),
    }
    # A number keeps its unit on its line.
    kept = {key: text.replace(" ", "\N{NO-BREAK SPACE}") for key, text in numbers.items()}
    return {"name": name, **kept}


def _corrected(runs: int) -> str:
    if not runs:
        return ""
    plural = "run" if runs == 1 else "runs"
    return f"The forecast was corrected by {runs} {plural} like this on this computer."
