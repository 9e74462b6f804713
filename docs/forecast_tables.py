"""The tables of docs/forecast.md: from the estimator's own words, and from benchmarks/results/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from docs.tables import measured_on, result, table
from engine.contract.bundled import catalogue
from engine.contract.presets import METHOD_CHOICES
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.estimate import (
    ALLOCATOR_SHARE,
    BAND_MEASURED,
    BAND_TRACED,
    BAND_UNKNOWN,
    MEASURED,
    RUNTIME_BAND,
    RUNTIME_BYTES,
    Term,
)
from engine.memory.gpus import known_gpus, smallest_gpu
from engine.memory.step_time import BAND_CPU, BAND_TRIED, BAND_UNMEASURED
from engine.memory.units import GIB, gib
from engine.memory.ways import (
    MICRO_BATCH_SHARE,
    RECOMPUTING_FROZEN,
    RECOMPUTING_TRAINED,
    SHORTEST_TOKENS,
)
from qft_gui.view.terms import TERM_MEANINGS

_ERRORS = ("median", "p95", "lowest", "highest", "mean")
_ERROR_HEADINGS = ("cases", "median", "95 of 100", "lowest", "highest", "bias")
_SUMMED = "exact: a sum over the layouts that the engine allocates"
_MODELLED = "a model of the moment that needs most, `engine/memory/peak.py`"
_KNOWN: dict[Term, str] = {
    "gradients": "exact: the same sum, over all of them or the largest that is alive at once",
    "activations": "traced: one and two blocks of this very model run on tensors without data, "
    "`engine/trace_activations.py`",
    "logits": "a model: tokens times the words that the loss handles at once, "
    "`engine/memory/peak.py`",
    "transient": _MODELLED,
    "runtime": f"measured once on a CPU, {gib(RUNTIME_BYTES['cpu'])}; assumed for CUDA, "
    f"{gib(RUNTIME_BYTES['cuda'])} and {ALLOCATOR_SHARE['cuda']:.0%} of all tensors for "
    "what the allocator rounds up",
}
_MODELS = ("llama-3.2-1b", "qwen3-4b", "llama-3.1-8b", "llama-2-13b")
_TOKENS = 1024


def term_table() -> str:
    """Each term: what it is, how it is known, how far it may be off."""
    every: tuple[Term, ...] = get_args(Term)
    cells = [
        (f"`{term}`", TERM_MEANINGS[term], _KNOWN.get(term, _SUMMED), _band(term)) for term in every
    ]
    return table(("term", "what it is", "how it is known", "band"), cells)


def _band(term: Term) -> str:
    if term == "runtime":
        return f"± {_percent(RUNTIME_BAND)}"
    return "see below" if term in ("activations", "logits", "transient") else "none"


def band_table() -> str:
    """How far activations, logits and short-lived buffers together may be off."""
    cells = [
        ("traced, and compared with measured runs, on a CPU", f"± {_percent(BAND_MEASURED)}"),
        (
            "traced, and compared with nothing: any other model, any GPU",
            f"± {_percent(BAND_TRACED)}",
        ),
        ("could not be traced", f"± {_percent(BAND_UNKNOWN)}"),
    ]
    compared = ", ".join(f"`{name}`" for name in sorted(MEASURED))
    return f"{table(('the model', 'band'), cells)}\n\nCompared: {compared}."


def error_table(part: str) -> str:
    """How far the forecast was from the meter.

    Args:
        part: `methods` or `architectures`.
    """
    found = result("forecast_cpu")
    cells = [(f"`{name}`", *_errors(one)) for name, one in found[part].items()]
    cells.append(("all", *_errors(found["all"])))
    kinds = f"{len(found['methods'])} methods and settings, {len(found['architectures'])} "
    return (
        f"{table((part.removesuffix('s'), *_ERROR_HEADINGS), cells)}\n\nForecast less measured, in "
        f"percent of the measured peak of all tensors; median and 95 of 100 without the sign. "
        f"{kinds}architectures, {len(found['cases'])} random small models, batches and lengths, "
        f"with and without recomputed activations, {measured_on(found)}, transformers "
        f"{found['transformers']}, seed {found['seed']}."
    )


def _errors(found: Mapping[str, float]) -> tuple[str, ...]:
    """Signs where they mean something."""
    signed = {"lowest", "highest", "mean"}
    words = (f"{found[key]:+.1f} %" if key in signed else f"{found[key]:.1f} %" for key in _ERRORS)
    return (str(found["cases"]), *words)


def worst_line() -> str:
    """The case that was forecast furthest too low, and the one furthest too high."""
    found = result("forecast_cpu")
    ordered = sorted(found["cases"], key=lambda case: case["forecast"] / case["peak"])
    ends = (("low", ordered[0]), ("high", ordered[-1]))
    return "\n".join(f"- Furthest too {way}: {_case(case)}." for way, case in ends)


def _case(case: Mapping[str, Any]) -> str:
    error = 100 * (case["forecast"] / case["peak"] - 1)
    kept = "recomputed" if case["checkpointing"] else "kept"
    return (
        f"{error:+.1f} %, `{case['method']}` on {case['architecture']}, {case['num_layers']} "
        f"blocks of {case['hidden_size']}, {case['vocab_size']:,} words, {case['batch_size']} x "
        f"{case['sequence_length']} tokens, activations {kept}, {gib(case['peak'])}"
    )


def published_table() -> str:
    """Our forecast beside what others printed."""
    cells = [_published(one) for one in result("published_forecast")["rows"]]
    headings = ("figure", "tokens", "activations", "theirs", "ours", "difference", "why")
    return (
        f"{table(headings, cells)}\n\nPeaks in GiB. Ours is the forecast of all tensors on a GPU, "
        "without what CUDA takes, and was adjusted to none of them. `python -m "
        "benchmarks.published_forecast` writes it."
    )


def _published(one: Mapping[str, Any]) -> tuple[str, ...]:
    times = f", {one['grad_accumulation']} times" if one["grad_accumulation"] > 1 else ""
    return (
        f"{one['source'].partition(',')[0]}: {one['name']}, `{one['model']}`",
        f"{one['batch_size']} x {one['tokens']}{times}",
        "recomputed" if one["recomputed"] else "kept",
        f"{one['gib']:g}",
        f"{one['tensor_bytes'] / GIB:.2f}",
        f"{one['difference_gib']:+.2f}, {one['difference_percent']:+.1f} %",
        one["differs"],
    )


def fit_table() -> str:
    """What became of random requests that did not fit."""
    found = result("fit_requests_cpu")
    settings: dict[str, int] = found["settings"]
    cells = [
        ("random requests", str(found["requests"])),
        ("made to fit", str(found["accepted"])),
        ("of these, with a setting changed", str(found["changed"])),
        *((f"of these, `{name}` among them", str(count)) for name, count in settings.items()),
        (
            "stayed under their limit",
            f"{found['under_the_limit']}, {found['under_the_limit_percent']:.1f} %",
        ),
        ("largest peak", f"{found['largest_peak_of_limit_percent']:.1f} % of its limit"),
    ]
    return (
        f"{table(('what', 'how many'), cells)}\n\nEach limit is at most a few percent above what "
        "the changed request is forecast to need; two steps under the meter, "
        f"{measured_on(found)}, seed {found['seed']}."
    )


def change_table() -> str:
    """What a request may be changed in to fit, who decides, and what it costs."""
    trained, frozen = _slower(RECOMPUTING_TRAINED), _slower(RECOMPUTING_FROZEN)
    itself, consent = "by itself", "only with consent"
    unable = "QFT's fused updates, LOMO and AdaLomo cannot"
    cells = [
        ("activations are recomputed", itself, f"{trained}; {frozen} where the model is frozen"),
        (
            f"the batch in micro-batches, gradients added up ({unable})",
            itself,
            f"{_slower(1 + MICRO_BATCH_SHARE)} for each doubling",
        ),
        ("fewer conversations in an update", consent, "less for each step, and less learned in it"),
        ("lighter settings of the method", consent, "nothing; updates are less exact"),
        (
            f"conversations cut shorter, to {SHORTEST_TOKENS} tokens at least; last",
            consent,
            "less, and what is cut off is not learned",
        ),
    ]
    return table(("change", "who decides", "time of a step"), cells)


def _slower(factor: float) -> str:
    return f"{100 * (factor - 1):.0f} % more"


def time_table() -> str:
    """How far the forecast of a step's time was from the clock."""
    found = result("step_forecast_cpu")
    cells = [_timed(f"`{name}`", one) for name, one in found["methods"].items()]
    cells.append(_timed("all", found["all"]))
    clock = "the processor's time" if found["clock"] == "processor" else "the clock"
    return (
        f"{table(('method', *_ERROR_HEADINGS, 'inside the band'), cells)}\n\nForecast less "
        f"measured, in percent of what was measured, by {clock}, {measured_on(found)}, seed "
        f"{found['seed']}. The band is a factor of {BAND_CPU:g} on a CPU, {BAND_UNMEASURED:g} on a "
        f"GPU, {BAND_TRIED:g} after two steps were tried."
    )


def _timed(name: str, one: Mapping[str, float]) -> tuple[str, ...]:
    return (name, *_errors(one), f"{one['in_band_percent']:.0f} %")


def gpu_table() -> str:
    """The smallest card for some models and every method."""
    cells = [
        (
            f"`{' '.join(filter(None, choice))}`",
            *(_smallest(choice.kind, choice.preset, model) for model in _MODELS),
        )
        for choice in METHOD_CHOICES
    ]
    headings = ("method", *(catalogue()[model].title for model in _MODELS))
    cards = sum(card.bfloat16 for card in known_gpus())
    return (
        f"{table(headings, cells)}\n\nMemory of the smallest card that holds the upper end of the "
        f"forecast, of {cards} in `assets/gpus.json` that compute in bfloat16; one conversation of "
        f"{_TOKENS:,} tokens. This is the forecast, not a measurement."
    )


def _smallest(kind: str, preset: str | None, model: str) -> str:
    shape = bundled_shape(model)
    assert shape is not None
    found = smallest_gpu(
        _request({"kind": kind, **({"preset": preset} if preset else {})}, model), shape, _TOKENS
    )
    return "none" if found is None else f"{found.gpu.memory_gib} GiB"


def _request(method: dict[str, Any], model: str) -> RunSpec:
    return validate_spec(
        {
            "model": {"source": model},
            "data": {"source": "pirate"},
            "method": method,
            "train": {"batch_size": 1, "sequence_length": _TOKENS},
        }
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
