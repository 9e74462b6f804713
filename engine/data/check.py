"""What a dataset is and what is wrong with it, for one model: before it costs an hour."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from engine.contract.spec import DataSpec
from engine.data.content_marks import Mark
from engine.data.dataset import Dataset
from engine.data.tokenized import TokenizedData

BINS = 24
# Fewer held-out rows than this say little about a loss.
_FEW_HELD_OUT = 8

# What `check --json` says of data of which nothing can be learned, beside the error.
NOTHING_FOUND: dict[str, Any] = {
    "format": "auto",
    "rows": 0,
    "usable": 0,
    "refused": [],
    "refused_count": 0,
    "reasons": [],
    "tokens": {"p50": 0, "p95": 0, "max": 0, "total": 0, "trained": 0},
    "truncated_percent": 0.0,
    "duplicates": 0,
    "warnings": [],
    "num_examples": 0,
    "examples": [],
}


def report(spec: DataSpec, data: TokenizedData) -> dict[str, Any]:
    """What `check --json` tells, but for examples and errors.

    Args:
        spec: Which data.
        data: The same, in tokens.
    """
    dataset, store = data.dataset, data.store
    return {
        **rows_found(spec, dataset),
        "duplicates": data.duplicates,
        "tokens": _tokens(data),
        "histogram": histogram(store.lengths),
        "sequence_length": data.length,
        "truncated": data.counts.too_long,
        "truncated_percent": round(100 * data.counts.too_long / max(1, dataset.usable), 2),
        "training_rows": _num_rows(data, data.training.numbers),
        "held_out_rows": _num_rows(data, data.evaluation.numbers),
        "epoch_tokens": int(sum(data.training.lengths)),
        "epoch_trained_tokens": store.num_trained(data.training.numbers),
        "warnings": list(sentences_about(data)),
        "num_examples": len(store),
    }


def rows_found(spec: DataSpec, dataset: Dataset) -> dict[str, Any]:
    """What was found in the rows, before any of them is tokens."""
    return {
        "source": spec.source,
        "container": dataset.container,
        "encoding": dataset.encoding,
        "unit": dataset.unit,
        "format": dataset.format,
        "formats": dataset.formats,
        "columns": dataset.columns,
        "available_columns": list(dataset.available_columns),
        "rows": dataset.rows,
        "usable": dataset.usable,
        "refused": [
            {"row": one.number, "reason": one.reason, "snippet": one.snippet}
            for one in dataset.refused
        ],
        "refused_count": dataset.refused_count,
        "reasons": [
            {"reason": reason, "count": count, "first": first}
            for reason, count, first in dataset.reasons
        ],
    }


def _tokens(data: TokenizedData) -> dict[str, int]:
    """Of the examples before any cut; `total` and `trained` after it."""
    store = data.store
    every = np.arange(len(store))
    return {
        "p50": int(np.percentile(store.lengths, 50)),
        "p95": int(np.percentile(store.lengths, 95)),
        "max": int(store.lengths.max()),
        "total": int(store.starts[-1]),
        "trained": store.num_trained(every),
    }


def histogram(lengths: np.ndarray) -> dict[str, list[int]]:
    """How long examples are: whole numbers of tokens as edges, and how many lie between them.

    The last bin holds all that is longer than nearly all others, so that one giant does not press
    the rest into a single bar.
    """
    least, most = int(lengths.min()), int(lengths.max())
    usual = int(np.percentile(lengths, 99))
    width = max(1, math.ceil((usual + 1 - least) / BINS))
    first = least // width * width
    edges = [first + width * place for place in range(BINS + 1)]
    edges = [edge for edge in edges if edge < most + 1 + width]
    edges[-1] = max(edges[-1], most + 1)
    counts, _ = np.histogram(lengths, bins=edges)
    return {"edges": edges, "counts": counts.tolist()}


def sentences_about(data: TokenizedData) -> Iterator[str]:
    """What a person should know before training, the most serious first."""
    dataset, counts = data.dataset, data.counts
    if dataset.refused_count:
        reasons = "; ".join(
            f"{reason} ({_rows(count)}, the first is {dataset.unit} {first:,})"
            for reason, count, first in dataset.reasons[:3]
        )
        yield f"{_rows(dataset.refused_count)} {_are(dataset.refused_count)} left out: {reasons}."
    if counts.too_long:
        share = 100 * counts.too_long / max(1, dataset.usable)
        yield (
            f"{_rows(counts.too_long)} ({share:.1f} %) {_are(counts.too_long)} longer than "
            f"{data.length:,} tokens: what is beyond is cut, replies keep their end."
        )
    yield from _about_copies(data)
    if counts.folded:
        yield (
            f"The model's template takes no system message: {_rows(counts.folded)} "
            f"{'has' if counts.folded == 1 else 'have'} it in the first question."
        )
    if counts.in_words:
        yield (
            f"The model's template has no place for tools: {_rows(counts.in_words)} "
            f"{'has' if counts.in_words == 1 else 'have'} calls as JSON in the reply and results "
            "as the user's words."
        )
    if counts.unthought:
        yield (
            f"The model's template has no place for thoughts: those of {_rows(counts.unthought)} "
            "are not read."
        )
    if counts.control:
        yield (
            f"{_rows(counts.control)} {'holds' if counts.control == 1 else 'hold'} letters that "
            "are control tokens of this model: they are read as letters."
        )
    for name, count in sorted(counts.marks.items()):
        yield Mark[name].sentence(count)
    yield from dataset.notes


def _about_copies(data: TokenizedData) -> Iterator[str]:
    copies, usable = data.duplicates, data.dataset.usable
    if copies and usable - copies == 1:
        yield f"All {usable:,} rows are the same: there is nothing to hold out and little to learn."
    elif copies:
        verb = "repeats" if copies == 1 else "repeat"
        yield f"{_rows(copies)} {verb} another row; copies stay on one side of the held-out split."
    held_out = _num_rows(data, data.evaluation.numbers)
    if not held_out and data.eval_percent and usable - copies > 1:
        yield f"No row is held out: {_rows(usable)} are too few for {data.eval_percent:g} %."
    if 0 < held_out < _FEW_HELD_OUT:
        yield f"Only {_rows(held_out)} {_are(held_out)} held out: their loss says little."


def _num_rows(data: TokenizedData, numbers: np.ndarray) -> int:
    """Rows, of which a passage may be several examples."""
    return len(np.unique(data.store.numbers[numbers]))


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
