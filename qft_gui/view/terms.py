"""The parts of a forecast: what each is called, what it is for, and how far it may be off."""

from __future__ import annotations

from functools import cache
from typing import Any

from engine.contract.durable import read_json
from engine.contract.launch import PROJECT
from engine.memory.estimate import (
    BAND_MEASURED,
    BAND_UNKNOWN,
    MODELLED,
    RUNTIME_BAND,
    Forecast,
    Term,
)
from engine.memory.model_shape import ModelShape

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
TERM_MEANINGS: dict[Term, str] = {
    "weights": "The numbers that the model is made of.",
    "outliers": "The largest weights, kept apart in full precision.",
    "residual": "What 8-bit weights cannot hold of an update, kept for the next one.",
    "adapters": "The small matrices beside the model that learn in its place.",
    "moments": "What the optimizer remembers of earlier gradients.",
    "gradients": "How each weight should change, as long as it is kept.",
    "activations": "What the layers computed on the way forward and need on the way back.",
    "logits": "A score for every word of the vocabulary at every token.",
    "transient": "Buffers that live for one operation, at the moment that needs most.",
    "runtime": "What the programs themselves take; on a GPU also what its allocator rounds up.",
}
COMPARED = PROJECT / "benchmarks" / "results" / "forecast_cpu.json"


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


def term_source(term: Term, shape: ModelShape, band: float, *, is_corrected: bool) -> str:
    """How a part is known, and how far it may be off, in one sentence.

    Args:
        term: The part.
        shape: The model's.
        band: Share of the modelled terms by which they may differ.
        is_corrected: Whether runs like it on this computer corrected what is modelled.
    """
    if term == "runtime":
        return f"Measured once, ± {_percent(RUNTIME_BAND)}: it differs between computers."
    if term not in MODELLED:
        return "An exact sum over what the engine allocates."
    if is_corrected:
        return "Corrected by what runs like this one needed on this computer."
    if band == BAND_UNKNOWN:
        return f"A guess, ± {_percent(band)}: this model could not be traced."
    compared = "not compared with runs of its kind yet"
    if band == BAND_MEASURED:
        number = compared_runs(shape.model_type)
        compared = f"compared with {number or 'several'} measured runs of its kind"
    return f"Traced on this model, ± {_percent(band)}: {compared}."


@cache
def compared_runs(architecture: str) -> int:
    """Measured runs of an architecture in the comparison that ships with the app."""
    cases: list[dict[str, Any]] = (read_json(COMPARED) or {}).get("cases", [])
    return sum(case.get("architecture") == architecture for case in cases)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
