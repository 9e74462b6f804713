"""Frames of the X-ray page."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

from qft_gui.view.numbers import MISSING, parameters
from qft_gui.xrays import KindSeen, LayerSeen, Seen, TensorSeen, XrayAnswer

ALL = "__all__"
BELL = "normal bell"
# Percent of a normal distribution beyond four times its rms.
BELL_OUTLIER_PERCENT = 200 * NormalDist().cdf(-4)
LEAST_LOG_PERCENT = -4.0
# From here on the hybrid of the paper is worth its memory: it takes off a third of the error.
WORTH_IT = 0.67
_KIND_NAMES = {
    "weights": "Weights",
    "gradients": "Gradients",
    "momentum": "Momentum",
    "exp_avg": "Momentum",
    "exp_avg_sq": "Squared gradients",
    "variance": "Squared gradients",
}
_OUTSIDE = {
    "embed_tokens": "embedding",
    "embed_in": "embedding",
    "wte": "embedding",
    "wpe": "positions",
    "embed_positions": "positions",
    "lm_head": "head",
    "embed_out": "head",
}


def kind_choices(answer: XrayAnswer) -> list[tuple[str, str]]:
    """Names and values of what was seen."""
    return [(kind_name(one.kind), one.kind) for one in answer.kinds]


def kind_name(kind: str) -> str:
    """A kind as a person reads it.

    >>> kind_name("weights"), kind_name("second_moment")
    ('Weights', 'Second moment')
    """
    return _KIND_NAMES.get(kind) or kind.replace("_", " ").capitalize()


def part_choices(answer: XrayAnswer) -> list[tuple[str, str]]:
    """All matrices of a layer together, or one of them."""
    parts: dict[str, None] = {}
    for kind in answer.kinds[:1]:
        for tensor in kind.tensors:
            if tensor.layer is not None and len(tensor.shape) > 1:
                parts[tensor.part] = None
    return [("All matrices of a layer", ALL), *((part, part) for part in parts)]


def head(answer: XrayAnswer) -> dict[str, Any]:
    """What was looked at, on one line, and what has to be said about it."""
    about = [answer.name, f"{parameters(answer.num_parameters)} parameters"]
    if answer.step is not None:
        about.append(f"after step {answer.step:,}")
    if answer.data:
        about.append(f"gradients from {_last(answer.data)}")
    return {"about": " · ".join(about), "notes": answer.notes}


def _last(source: str) -> str:
    return source.replace("\\", "/").rstrip("/").rpartition("/")[2]


Row = tuple[str, Seen]


def rows(answer: XrayAnswer, kind: str, part: str) -> list[Row]:
    """What each row of the plots shows, from the model's input to its output."""
    seen = answer.of(kind)
    if seen is None:
        return []
    if part == ALL:
        return [(_label(layer), layer) for layer in seen.layers]
    return [(f"layer {one.layer}", one) for one in _of_part(seen, part)]


def _of_part(seen: KindSeen, part: str) -> list[TensorSeen]:
    return [one for one in seen.tensors if one.part == part and one.layer is not None]


def _label(layer: LayerSeen) -> str:
    """Tied embeddings are the head too, and are shown once."""
    return _OUTSIDE.get(layer.label.rpartition(".")[2], layer.label)


def figure(answer: XrayAnswer, kind: str, part: str) -> dict[str, Any]:
    """Plain arrays for the three plots."""
    shown = rows(answer, kind, part)
    bell = _bell(answer.bin_centres)
    shares = [*(seen.histogram_percent for _, seen in shown), bell]
    errors = [seen.error_percent for _, seen in shown]
    return {
        "title": f"{answer.name} {kind} {part}",
        "centres": answer.bin_centres,
        "rows": [*(label for label, _ in shown), BELL],
        "layers": [label for label, _ in shown],
        "percent": shares,
        "log": [[_log(share) for share in row] for row in shares],
        "outliers": [seen.outlier_percent for _, seen in shown],
        "bell": BELL_OUTLIER_PERCENT,
        "errors": {
            "row": [error and error.row for error in errors],
            "group": [error and error.group for error in errors],
            "hybrid": [error and error.hybrid for error in errors],
        },
    }


def _log(percent: float) -> float | None:
    """What the shade shows; nothing where no value is."""
    return round(max(LEAST_LOG_PERCENT, math.log10(percent)), 3) if percent > 0 else None


def _bell(centres: list[float]) -> list[float]:
    """A normal distribution in the same bins, to compare with."""
    half = (centres[1] - centres[0]) / 2
    normal = NormalDist()
    shares = (100 * (normal.cdf(at + half) - normal.cdf(at - half)) for at in centres)
    return [share if math.log10(share) > LEAST_LOG_PERCENT else 0.0 for share in shares]


def readings(answer: XrayAnswer, kind: str, part: str) -> dict[str, str]:
    """What each plot says, in one sentence with its numbers."""
    shown = rows(answer, kind, part)
    if not any(seen.rms for _, seen in shown):
        return dict.fromkeys(("spread", "outliers", "errors"), "All of these values are zero.")
    far = max(shown, key=lambda row: row[1].largest / row[1].rms if row[1].rms else 0)
    most = max(shown, key=lambda row: row[1].outlier_percent)
    return {
        "spread": f"The farthest value stands in {far[0]}, at "
        f"{far[1].largest / far[1].rms:,.0f} times the rms.",
        "outliers": _outlier_reading(*most),
        "errors": _error_reading(shown),
    }


def _outlier_reading(label: str, most: Seen) -> str:
    if most.outlier_percent == 0:
        return "No layer has a value beyond 4 times its rms."
    return f"Most in {label}: {_percent(most.outlier_percent)}, {_compared(most)}."


def _compared(seen: Seen) -> str:
    """With a normal bell, as far as so many values can tell the two apart."""
    expected = seen.num_sampled * BELL_OUTLIER_PERCENT / 100
    found = seen.num_sampled * seen.outlier_percent / 100
    times = found / expected
    if times < 2 or found < expected + 4 * math.sqrt(expected):
        return "as a normal bell may have"
    return f"{times:,.0f} times a normal bell's"


def _error_reading(shown: list[Row]) -> str:
    known = [seen.error_percent for _, seen in shown if seen.error_percent]
    row, group, hybrid = (
        sum(getattr(error, scheme) for error in known) / len(known)
        for scheme in ("row", "group", "hybrid")
    )
    advice = (
        "keeping the largest apart pays here."
        if hybrid < WORTH_IT * group
        else "keeping the largest apart brings little here."
    )
    return (
        f"On average {_percent(row)} per row, {_percent(group)} per 32, "
        f"{_percent(hybrid)} hybrid: {advice}"
    )


def table(answer: XrayAnswer, kind: str, part: str) -> dict[str, Any]:
    """The same numbers as text."""
    return {
        "kind": kind_name(kind),
        "rows": [
            {
                "label": label,
                "cells": [
                    _number(seen.rms),
                    _number(seen.largest),
                    _number(seen.kurtosis),
                    _number(seen.outlier_percent),
                    _number(seen.top_percent),
                    *_error_cells(seen),
                ],
            }
            for label, seen in rows(answer, kind, part)
        ],
    }


def _error_cells(seen: Seen) -> list[str]:
    error = seen.error_percent
    if error is None:
        return [MISSING] * 3
    return [_number(error.row), _number(error.group), _number(error.hybrid)]


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}"


def _percent(value: float) -> str:
    """Two digits, as fine as such a number is known.

    >>> _percent(0.4783), _percent(0.00628), _percent(0)
    ('0.48 %', '0.0063 %', '0 %')
    """
    return f"{value:.2g} %"
