"""Frames of the Setup page: the method table, the memory bar, and the facts beside them."""

from __future__ import annotations

import re
from typing import Any

import yaml

from engine.contract.bundled import catalogue, sample_datasets
from engine.contract.errors import RequestError
from engine.contract.presets import MethodChoice
from engine.memory.devices import Device
from engine.memory.estimate import MODELLED, Forecast, Term
from engine.memory.model_shape import ModelShape
from qft_gui.forecasts import DataFacts, MethodRow, Report
from qft_gui.view.methods import FAMILIES, choice_gives, choice_name
from qft_gui.view.numbers import MISSING, duration, gib, learning_rate, parameters, span
from qft_gui.view.status import VERDICT_MARKS, WAITING, Mark, verdict_mark

CANNOT = Mark("no", "warn", "Cannot")
TERM_NAMES: dict[Term, str] = {
    "weights": "Weights",
    "outliers": "Outliers",
    "residual": "Residual",
    "adapters": "Adapters",
    "moments": "Optimizer state",
    "gradients": "Gradients",
    "activations": "Activations",
    "logits": "Logits",
    "transient": "Short-lived",
    "runtime": "Python and PyTorch",
}
_PLAIN_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?[,:]?(?:\s|$)")
AXIS_ROOM = 1.45
FAR_SHARE = 0.2
MOSTLY = 0.75


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
        "free": _percent(free or 0, end),
        "here": "This GPU" if report.device and report.device.kind == "cuda" else "This computer",
        "caption": _caption(needs, free, has_limit),
        "is_mostly_runtime": _is_mostly_runtime(forecasts),
        "has_time": any(forecast.seconds_per_step for forecast in forecasts),
    }


def preset_note(choice: MethodChoice, changed: list[str]) -> dict[str, Any]:
    """Whether a method's settings are its own, or its preset's, and which are not."""
    return {"name": choice_name(choice), "changed": ", ".join(changed)}


def _method_row(row: MethodRow, end: float) -> dict[str, Any]:
    name = choice_name(row.choice)
    shown: dict[str, Any] = {
        "key": row.choice.key,
        "name": f"{name}, changed" if row.is_changed else name,
        "gives": choice_gives(row.choice, row.method),
        "picked": row.is_chosen,
        "why_not": "",
    }
    forecast = row.forecast
    if row.refusal is not None:
        why = sentence(RequestError("", row.refusal.message))
        return {**shown, "known": False, "why_not": why, "mark": CANNOT}
    if forecast is None:
        return {**shown, "known": False, "mark": WAITING}
    return {
        **shown,
        "known": True,
        "low": _percent(forecast.low_bytes, end),
        "high": min(100.0, _percent(forecast.high_bytes, end)),
        "over": forecast.low_bytes > end,
        "total": gib(forecast.total_bytes),
        "band": span(forecast.low_bytes, forecast.high_bytes),
        "time": duration(forecast.seconds_per_step),
        "mark": VERDICT_MARKS[forecast.verdict],
    }


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


def fit_card(report: Report) -> dict[str, Any]:
    """The verdict: the one number, its band and its parts."""
    forecast, device = report.chosen, report.device
    if forecast is None or device is None:
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
        "free": _percent(forecast.free_bytes or 0, end),
        "free_gib": gib(forecast.free_bytes),
        "low": _percent(forecast.low_bytes, end),
        "high": _percent(forecast.high_bytes, end),
        "terms": [_term(term, size, end) for term, size in shown_terms(forecast).items()],
        "honesty": _honesty(device, has_limit, forecast),
        "advice": list(forecast.advice),
        "warning": report.warning,
        "facts": _facts(report),
    }


def sentence(error: RequestError) -> str:
    """A mistake as a person reads it: capital first, cause, way out.

    A name, a path or a hub id at the start keeps its spelling.

    >>> sentence(RequestError("steps", "must be at least 1.", "Try 60."))
    'Must be at least 1. Try 60.'
    >>> sentence(RequestError("model.source", "meta-llama/Llama-2-7b-hf is not on this computer."))
    'meta-llama/Llama-2-7b-hf is not on this computer.'
    """
    text = f"{error.message} {error.advice}".strip()
    return text[:1].upper() + text[1:] if _PLAIN_WORD.match(text) else text


def shown_terms(forecast: Forecast) -> dict[Term, int]:
    """The forecast in parts that add up, in the order of the bar.

    A negative short-lived part means that gradients come as activations go: at the peak that much
    of the activations is gone already.
    """
    terms: dict[Term, int] = {term: forecast.terms.get(term, 0) for term in TERM_NAMES}
    gone = -min(0, terms["transient"])
    terms["transient"] = max(0, terms["transient"])
    giving: tuple[Term, ...] = ("activations", "logits", "gradients")
    for term in giving:
        taken = min(gone, terms[term])
        terms[term] -= taken
        gone -= taken
    shown: dict[Term, int] = {term: size for term, size in terms.items() if size}
    return shown


def _term(term: Term, size: int, end: float) -> dict[str, Any]:
    return {
        "key": term,
        "name": TERM_NAMES[term],
        "gib": gib(size),
        "width": _percent(size, end),
        "is_modelled": term in MODELLED,
    }


def _honesty(device: Device, has_limit: bool, forecast: Forecast) -> str:
    where = (
        f"{gib(forecast.free_bytes)} of {gib(device.total_bytes)} GiB are free on {device.name}."
    )
    band = "Weights and optimizer state are counted exactly; the hatched band is the rest's error."
    return f"{band} {where}" if not has_limit else band


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


def model_facts(report: Report) -> dict[str, Any]:
    """Size and origin of the chosen model."""
    model, shape = report.model, report.shape
    if model is None:
        return {"known": False}
    known = catalogue().get(model.name) if model.kind == "catalogue" else None
    notes = {
        "starter": "Comes with the app. Small, but it learns a new style in a minute.",
        "catalogue": "Its weights are downloaded from the hub when training starts.",
        "hub": "It is downloaded from the hub when training starts.",
        "folder": "On this computer. No download needed.",
    }
    size = shape.num_parameters if shape else known.num_parameters if known else None
    return {
        "known": True,
        "size": parameters(size) if size else MISSING,
        "vocabulary": f"{shape.vocab_size:,}" if shape else MISSING,
        "note": notes[model.kind],
        "is_reading": report.is_reading,
    }


def data_facts(source: str, report: Report) -> dict[str, Any]:
    """What a bundled sample holds, or what the engine found in a file of one's own."""
    sample = sample_datasets().get(source)
    if sample is None:
        return _file_facts(report.data) | {"is_reading": report.is_reading_data}
    return {
        "known": True,
        "rows": f"{sample.rows:,}",
        "heldout": f"{sample.heldout_rows:,}",
        "format": "",
        "note": sample.description,
    }


def _file_facts(data: DataFacts | None) -> dict[str, Any]:
    if data is None:
        return {"known": False}
    left = f"{data.refused:,} rows are left out: they hold no chat." if data.refused != 1 else ""
    return {
        "known": True,
        "rows": f"{data.rows:,}",
        "heldout": "",
        "format": data.format,
        "note": (left or "1 row is left out: it holds no chat.") if data.refused else "",
    }


def command(document: dict[str, Any], name: str | None) -> dict[str, str]:
    """The same run from a terminal."""
    named = f" --name {name}" if name else ""
    return {
        "spec": yaml.safe_dump(document, sort_keys=False, allow_unicode=True).strip(),
        "line": f"python -m engine run spec.yaml{named}",
    }


def _percent(size: float, end: float) -> float:
    return round(100 * size / end, 2) if end else 0.0
