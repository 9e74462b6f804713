"""Forecasts corrected by what runs like them needed on this computer: see `engine.memory.cases`.

A case holds the forecast as it was estimated, so that corrections do not add up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from engine.memory.cases import Case, calibration_path, read_cases, remember
from engine.memory.estimate import MODELLED, RUNTIME_BAND, Forecast, Term
from engine.memory.machine_rates import device_key
from engine.memory.plans import plan_for
from engine.memory.units import GIB, MIB

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec
    from engine.memory.devices import Device
    from engine.memory.model_shape import ModelShape

__all__ = ["calibration_path", "narrowed", "read_cases", "remember"]

# Of the estimator: another one's errors say nothing about this one's. Raise it with every change
# of what is forecast; tests/test_calibration.py compares.
FORECAST_MODEL = 1
# Shares of the pass: a step repeats to the byte on a CPU; others of its kind are only alike.
BAND_SAME, BAND_ALIKE = 0.03, 0.04
# So many alike cases tell how far they spread; a pass so much larger or smaller is not alike.
ENOUGH_ALIKE, ALIKE_FACTOR = 3, 4
NEWEST = 20
# Of everything that the process takes: what is less beyond the band is not told.
TOLD_SHARE = 0.01
PASS: frozenset[Term] = frozenset({*MODELLED, "gradients"})


@dataclass(frozen=True)
class Correction:
    """What cases say about a forecast.

    Attributes:
        factor: Measured over predicted, for the pass.
        spread: Largest distance of a case from the factor, as a share of it.
        at_least: Narrowest band that so many cases allow; None if they are too few to narrow it.
        runs: How many cases there are.
    """

    factor: float
    spread: float
    at_least: float | None
    runs: int


def case_of(
    forecast: Forecast,
    spec: RunSpec,
    shape: ModelShape,
    device: Device,
    *,
    measured_bytes: int,
) -> Case:
    """The case that a run leaves.

    Args:
        forecast: As it was estimated, without any correction.
        spec: Complete.
        shape: The model's.
        device: Where it ran.
        measured_bytes: Of the tensors at the peak, those that the pass made.
    """
    return Case(
        forecast_model=FORECAST_MODEL,
        method=spec.method.kind,
        settings=settings_key(spec),
        fused=plan_for(spec.method).fused,
        model_type=shape.model_type,
        sizes=_sizes(forecast, shape),
        data=_data(spec),
        device=device_key(device),
        checkpointing=spec.train.activation_checkpointing is True,
        predicted_bytes=pass_bytes(forecast),
        measured_bytes=measured_bytes,
    )


def settings_key(spec: RunSpec) -> str:
    """Method and settings that decide the memory of a step, as a short hash."""
    train = spec.train
    deciding = [
        repr(plan_for(spec.method)),
        getattr(spec.method, "dropout", 0.0) > 0,
        getattr(spec.method, "precision", None),
        train.batch_size,
        train.grad_accumulation,
        train.sequence_length,
        train.batching,
        train.max_grad_norm is None,
    ]
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:16]


def _sizes(forecast: Forecast, shape: ModelShape) -> str:
    heads = f"{shape.num_heads}/{shape.num_key_value_heads}x{shape.head_dim}"
    blocks = f"{shape.num_layers}x{shape.hidden_size}/{shape.intermediate_size}"
    return f"{forecast.num_parameters} {blocks} {heads} {shape.vocab_size}"


def _data(spec: RunSpec) -> str:
    return f"{Path(spec.data.source).name} {spec.data.train_on}"


def pass_bytes(forecast: Forecast) -> int:
    """What a step takes beyond weights and moments, as forecast."""
    return sum(size for term, size in forecast.terms.items() if term in PASS)


def narrowed(
    forecast: Forecast,
    spec: RunSpec,
    shape: ModelShape,
    device: Device,
    cases: Sequence[Case],
) -> Forecast:
    """The forecast, corrected where this computer has run the like; else as it was.

    Args:
        forecast: As it was estimated for that spec, shape and device.
        spec: Complete.
        shape: The model's.
        device: Where it will run.
        cases: Of `read_cases`.
    """
    correction = correction_for(forecast, spec, shape, device, cases)
    return forecast if correction is None else corrected(forecast, correction)


def correction_for(
    forecast: Forecast,
    spec: RunSpec,
    shape: ModelShape,
    device: Device,
    cases: Sequence[Case],
) -> Correction | None:
    """What cases of this very request say, else of alike ones, else of alike ones on other data."""
    predicted = pass_bytes(forecast)
    family = (
        (FORECAST_MODEL, spec.method.kind, plan_for(spec.method).fused),
        (shape.model_type, device_key(device), spec.train.activation_checkpointing is True),
    )
    alike = [
        case
        for case in cases
        if case.family == family
        and predicted <= ALIKE_FACTOR * case.predicted_bytes
        and case.predicted_bytes <= ALIKE_FACTOR * predicted
    ]
    if not alike:
        return None
    data = _data(spec)
    of_data = [case for case in alike if case.data == data]
    request = (predicted, settings_key(spec), _sizes(forecast, shape))
    same = [
        case for case in of_data if (case.predicted_bytes, case.settings, case.sizes) == request
    ]
    if same:
        return _correction(same, BAND_SAME)
    if of_data:
        return _correction(of_data, BAND_ALIKE if len(of_data) >= ENOUGH_ALIKE else None)
    # Of other data fewer tokens may be trained, which takes less: that lowers no forecast.
    others = _correction(alike, None)
    return others if others.factor > 1 else None


def _correction(cases: Sequence[Case], at_least: float | None) -> Correction:
    ratios = [case.ratio for case in cases[-NEWEST:]]
    factor = median(ratios)
    spread = max(abs(ratio / factor - 1) for ratio in ratios)
    return Correction(factor, spread, at_least, len(ratios))


def corrected(forecast: Forecast, correction: Correction) -> Forecast:
    """The modelled terms and their band as the correction says; what is exact stays."""
    terms = dict(forecast.terms)
    before = pass_bytes(forecast)
    modelled = sum(size for term, size in terms.items() if term in MODELLED)
    wanted = max(0, round(before * correction.factor) - terms.get("gradients", 0))
    for term in MODELLED & terms.keys():
        terms[term] = wanted * terms[term] // modelled if modelled else 0
    terms["transient"] = wanted - sum(terms[t] for t in MODELLED & terms.keys() - {"transient"})
    total = forecast.total_bytes + wanted - modelled
    now = before + wanted - modelled
    low, high = (
        _doubt(abs(forecast.total_bytes - edge), terms, now, correction)
        for edge in (forecast.low_bytes, forecast.high_bytes)
    )
    plural = "" if correction.runs == 1 else "s"
    sentence = f"Corrected by {correction.runs} run{plural} like this on this computer."
    return replace(
        forecast,
        terms=terms,
        total_bytes=total,
        low_bytes=total - low,
        high_bytes=total + high,
        advice=(*forecast.advice, sentence),
    )


def _doubt(doubt: int, terms: dict[Term, int], pass_size: int, correction: Correction) -> int:
    """Bytes by which the total may still differ: never more than before, unless cases do."""
    of_runtime = min(doubt, round(RUNTIME_BAND * terms.get("runtime", 0)))
    of_pass = doubt - of_runtime
    if correction.at_least is not None:
        of_pass = min(of_pass, round(correction.at_least * pass_size))
    return of_runtime + max(of_pass, round(correction.spread * pass_size))


def tensor_band(forecast: Forecast) -> tuple[int, int]:
    """Bytes between which the peak of all tensors is forecast: the runtime's share is left out."""
    of_runtime = round(RUNTIME_BAND * forecast.terms.get("runtime", 0))
    below = max(0, forecast.total_bytes - forecast.low_bytes - of_runtime)
    above = max(0, forecast.high_bytes - forecast.total_bytes - of_runtime)
    return forecast.tensor_bytes - below, forecast.tensor_bytes + above


def parting_sentence(forecast: Forecast, peak_bytes: int, *, is_kept: bool) -> str | None:
    """How a measured peak is outside the band; None where nobody would see it in the total.

    Args:
        forecast: What was expected.
        peak_bytes: All tensors at the peak.
        is_kept: Whether it was a run, whose case corrects the next forecast.
    """
    low, high = tensor_band(forecast)
    if max(low - peak_bytes, peak_bytes - high) <= TOLD_SHARE * forecast.total_bytes:
        return None
    size, unit = (GIB, "GiB") if min(low, peak_bytes) >= GIB / 10 else (MIB, "MiB")
    steps = "This run's tensors" if is_kept else "The tensors of the steps that were tried"
    parted = (
        f"{steps} needed {peak_bytes / size:.2f} {unit} where {low / size:.2f} to "
        f"{high / size:.2f} were forecast"
    )
    after = "; the next forecast on this computer takes that into account." if is_kept else "."
    return parted + after
