"""The forecast: what a run will need, as named terms.

Weights, moments and gradients are exact sums over the layouts that the engine allocates.
Activations, logits and transient buffers are a model, with a stated band.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from engine.contract.bundled import known_longest_tokens
from engine.memory.passes import Pass, activation_bytes
from engine.memory.peak import gradient_bytes, peak_bytes, score_bytes
from engine.memory.plans import MemoryPlan, plan_for
from engine.memory.units import gib

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec
    from engine.memory.devices import Device
    from engine.memory.model_shape import ModelShape

Term = Literal[
    "weights",
    "outliers",
    "residual",
    "gradients",
    "moments",
    "adapters",
    "activations",
    "logits",
    "transient",
    "runtime",
]
Verdict = Literal["fits", "tight", "too_large", "unknown"]
MODELLED: frozenset[Term] = frozenset({"activations", "logits", "transient"})
# Architectures whose forecast was compared with measured peaks: `benchmarks/forecast.py`.
MEASURED = frozenset(
    {
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "phi3",
        "phi",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "opt",
        "gpt_neox",
    }
)
# Compared; traced, but not compared: another architecture, or a GPU; not even traced.
BAND_MEASURED, BAND_TRACED, BAND_UNKNOWN = 0.1, 0.25, 0.6
# Interpreter, torch and transformers in RAM; with CUDA, the context and cuBLAS workspaces.
RUNTIME_BYTES = {"cpu": 400 << 20, "cuda": 600 << 20}
# What torch's allocator on a GPU rounds up, and leaves unused between tensors: 3 to 8 % are usual.
ALLOCATOR_SHARE = {"cpu": 0.0, "cuda": 0.05}
RUNTIME_BAND = 0.3
_REMEMBERED = 128  # models with a plan: one question asks for the same states many times


@dataclass(frozen=True)
class Forecast:
    """Bytes by term, with a band, against what is free.

    Attributes:
        modelled_band: Share of the modelled terms by which they may differ; see `band_of`.
    """

    num_parameters: int
    terms: dict[Term, int]
    total_bytes: int
    low_bytes: int
    high_bytes: int
    free_bytes: int | None
    modelled_band: float
    advice: tuple[str, ...] = ()
    seconds_per_step: float | None = None

    @property
    def states_bytes(self) -> int:
        """What lives as long as the run: weights and optimizer state."""
        lasting: tuple[Term, ...] = ("weights", "outliers", "residual", "moments", "adapters")
        return sum(self.terms.get(term, 0) for term in lasting)

    @property
    def tensor_bytes(self) -> int:
        """What the engine's own peak counter will read: everything but the runtime."""
        return self.total_bytes - self.terms.get("runtime", 0)

    @property
    def verdict(self) -> Verdict:
        """Tight means that it fits only if the forecast is not low."""
        if self.free_bytes is None:
            return "unknown"
        if self.high_bytes <= self.free_bytes:
            return "fits"
        return "tight" if self.total_bytes <= self.free_bytes else "too_large"

    def as_json(self) -> dict[str, Any]:
        """What `estimate --json` prints; the keys are frozen."""
        known = self.free_bytes is not None
        return {
            "num_parameters": self.num_parameters,
            "states_bytes": self.states_bytes,
            "bytes_per_parameter": round(self.states_bytes / max(1, self.num_parameters), 4),
            "terms": dict(self.terms),
            "total_bytes": self.total_bytes,
            "low_bytes": self.low_bytes,
            "high_bytes": self.high_bytes,
            "free_bytes": self.free_bytes,
            "fits": self.verdict != "too_large" if known else None,
            "verdict": self.verdict,
            "seconds_per_step": self.seconds_per_step,
            "advice": list(self.advice),
        }


def estimate(
    spec: RunSpec, shape: ModelShape, device: Device, longest_tokens: int | None = None
) -> Forecast:
    """Forecast the peak memory of a run.

    Args:
        spec: A complete spec.
        shape: The model's shapes.
        device: Where it will run; its free memory is what the verdict compares with.
        longest_tokens: Longest conversation of the data, if known; else the sequence length.
    """
    plan = plan_for(spec.method)
    longest = longest_tokens or known_longest_tokens(spec.model.source, spec.data.source)
    one_pass = Pass.of(spec, shape, plan, device.kind, longest)
    terms: dict[Term, int] = {
        **_weight_terms(shape, plan),
        "adapters": _adapter_bytes(shape, plan),
        "moments": _moment_bytes(shape, plan),
        **_pass_terms(shape, one_pass),
    }
    if not terms["adapters"]:
        del terms["adapters"]
    terms["runtime"] = runtime_bytes(device.kind, sum(terms.values()))
    total = sum(terms.values())
    modelled = sum(size for term, size in terms.items() if term in MODELLED)
    band = band_of(shape, device, one_pass)
    doubt = round(band * modelled + RUNTIME_BAND * terms["runtime"])
    forecast = Forecast(
        shape.num_parameters,
        terms,
        total,
        total - doubt,
        total + doubt,
        device.free_bytes,
        band,
    )
    return _with_advice(forecast, spec, shape)


def runtime_bytes(kind: Literal["cpu", "cuda"], tensors: int) -> int:
    """What no tensor holds.

    Args:
        kind: Of the device.
        tensors: Bytes of all tensors at the peak.
    """
    return RUNTIME_BYTES[kind] + round(ALLOCATOR_SHARE[kind] * tensors)


def band_of(shape: ModelShape, device: Device, one_pass: Pass) -> float:
    """Share of the modelled terms by which the peak of such a pass may differ."""
    if one_pass.key not in shape.traces:
        return BAND_UNKNOWN
    is_measured = shape.model_type in MEASURED and device.kind == "cpu"
    return BAND_MEASURED if is_measured else BAND_TRACED


def _pass_terms(shape: ModelShape, one_pass: Pass) -> dict[Term, int]:
    """The terms of the pass, so that they add up to its peak.

    Gradients appear as activations and logits go, in the same memory: those two count only with
    what they take beyond the gradients.
    """
    gradients = gradient_bytes(shape, one_pass)
    left = peak_bytes(shape, one_pass, gradients) - gradients
    logits = min(left, score_bytes(shape, one_pass))
    activations = min(left - logits, activation_bytes(shape, one_pass))
    return {
        "gradients": gradients,
        "activations": activations,
        "logits": logits,
        "transient": left - logits - activations,
    }


@lru_cache(_REMEMBERED)
def _weight_terms(shape: ModelShape, plan: MemoryPlan) -> dict[Term, int]:
    """Codes, residuals and outliers apart, where there are any."""
    terms: dict[Term, int] = {"weights": 0}
    for tensor in shape.tensors:
        for part in plan.of(tensor.role).weight.parts(tensor.stored_shape):
            term: Term = "weights" if part.term == "codes" else part.term
            terms[term] = terms.get(term, 0) + part.nbytes * tensor.repeat
    return terms


@lru_cache(_REMEMBERED)
def _moment_bytes(shape: ModelShape, plan: MemoryPlan) -> int:
    """Of all that is trained: the model's own tensors, or the adapters."""
    if plan.adapter is not None:
        moments = plan.adapter.tensor.moments
        sizes = plan.adapter.matrices(shape)
        return sum(layout.nbytes(size) * count for size, count in sizes for layout in moments)
    return sum(
        layout.nbytes(tensor.stored_shape) * tensor.repeat
        for tensor in shape.tensors
        for layout in plan.of(tensor.role).moments
    )


@lru_cache(_REMEMBERED)
def _adapter_bytes(shape: ModelShape, plan: MemoryPlan) -> int:
    if plan.adapter is None:
        return 0
    weight = plan.adapter.tensor.weight
    return sum(weight.nbytes(size) * count for size, count in plan.adapter.matrices(shape))


def _with_advice(forecast: Forecast, spec: RunSpec, shape: ModelShape) -> Forecast:
    advice: list[str] = []
    train = spec.train
    if forecast.modelled_band == BAND_UNKNOWN:
        advice.append("This model could not be traced, so its activations are a guess.")
    elif shape.model_type not in MEASURED:
        advice.append(f"No {shape.model_type} model was measured yet, so the band is wide.")
    if shape.max_position is not None and train.sequence_length > shape.max_position:
        advice.append(
            f"The model was made for {shape.max_position:,} tokens; a sequence length above that "
            "is cut down to it."
        )
    if forecast.free_bytes is not None and forecast.states_bytes > forecast.free_bytes:
        advice.append(
            f"The weights and their states alone take {gib(forecast.states_bytes)}, more than is "
            "free: choose a smaller model, or a method or precision that keeps less."
        )
    return replace(forecast, advice=tuple(advice))
