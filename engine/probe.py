"""Trying a few steps before a launch: the peak and the time of the run's own model and data."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from engine.contract.device_lock import claim_device
from engine.contract.events import EventKind
from engine.contract.model_source import resolve_model
from engine.contract.spec import RunSpec
from engine.memory.calibration import parting_sentence
from engine.memory.device_key import device_key
from engine.memory.devices import Device, choose_device
from engine.memory.estimate import Forecast, runtime_bytes
from engine.memory.machine_rates import rates_of
from engine.memory.step_time import StepTime, TotalTime, total_time, tried_step_time
from engine.meter import MEASURED_STEPS, StepPeak
from engine.model import choose_torch_device
from engine.out_of_memory import is_out_of_memory, what_ran_out
from engine.preparation import Prepared, prepare_new
from engine.request import complete
from engine.schedule import learning_rate
from engine.shapes import find_shape

TIMED_STEPS = 2
# Among so many steps of the run, those whose width is nearest to the middle are timed.
_LOOKED_AT = 64


class ProbeOutOfMemory(Exception):
    """The run does not fit; the sentence is the one that a run would end with."""


@dataclass(frozen=True)
class Probe:
    """What a few steps showed.

    Attributes:
        step: Time of one step.
        total: Time of the whole run.
        measured_peak_bytes: All tensors at the peak of the widest steps.
        forecast: What was expected.
        device: Where it ran, with what was free before the model was loaded.
        notices: What a run would tell a person while it prepares.
    """

    step: StepTime
    total: TotalTime
    measured_peak_bytes: int
    forecast: Forecast
    device: Device
    notices: tuple[str, ...]

    @property
    def error_percent(self) -> float:
        """Of the forecast; negative where it is too low."""
        return 100 * (self.forecast.tensor_bytes / self.measured_peak_bytes - 1)

    @property
    def parted(self) -> str | None:
        """How the measured peak is outside the forecast's band; None where it is not."""
        return parting_sentence(self.forecast, self.measured_peak_bytes, is_kept=False)

    @property
    def fits(self) -> bool:
        """Whether the peak and the libraries beside it are no more than was free."""
        peak = self.measured_peak_bytes
        needed = peak + runtime_bytes(self.device.kind, peak)
        return needed <= self.device.free_bytes

    def as_json(self) -> dict[str, Any]:
        """What `probe --json` prints; the keys are frozen."""
        return {
            "seconds_per_step": self.step.seconds,
            "low_seconds": self.step.low,
            "high_seconds": self.step.high,
            "steps": self.total.steps,
            "total_seconds": self.total.seconds,
            "low_total_seconds": self.total.low,
            "high_total_seconds": self.total.high,
            "measured_peak_bytes": self.measured_peak_bytes,
            "forecast_bytes": self.forecast.tensor_bytes,
            "error_percent": round(self.error_percent, 2),
            "parted": self.parted,
            "free_bytes": self.device.free_bytes,
            "fits": self.fits,
            "notices": list(self.notices),
        }


class _Notices:
    """Keeps what is told to a person; a run would write it to its event log."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def emit(self, kind: EventKind, **fields: Any) -> None:
        """Take one event."""
        if kind == "notice":
            self.messages.append(fields["message"])


def probe(spec: RunSpec) -> Probe:
    """Prepare as a run does, measure the peak of two steps, and time two more.

    Nothing is written but what a run would download.

    Args:
        spec: As a person gave it.

    Raises:
        RequestError: What a run refuses.
        RequestErrors: Several of them.
        NonFiniteError: Loss or gradient is no number.
        ProbeOutOfMemory: Memory ran out.
        DeviceBusyError: Another process has the GPU.
    """
    device = choose_device(spec.train.device)  # before the model takes what is free
    spec = complete(spec)
    with claim_device(device_key(str(choose_torch_device(spec.train.device))), "a trial"):
        return _tried(spec, device)


def _tried(spec: RunSpec, device: Device) -> Probe:
    where = "while loading"
    try:
        notices = _Notices()
        prepared = prepare_new(spec, notices)
        where = "in the steps that were tried"
        peak_bytes = _measured_peak(prepared)
        seconds = _timed(prepared)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ProbeOutOfMemory(what_ran_out(error, where)) from error
    step = tried_step_time(statistics.mean(seconds), max(seconds) / min(seconds))
    total = _total(prepared, device, step)
    return Probe(step, total, peak_bytes, prepared.forecast, device, tuple(notices.messages))


def _measured_peak(prepared: Prepared) -> int:
    """Of the first steps, which are as wide as any will be."""
    peak = StepPeak(prepared.device, prepared.live_tensors, lambda _: None)
    for step in range(1, MEASURED_STEPS + 1):
        with peak.around_step():
            _take(prepared, step)
    assert peak.peak_bytes is not None
    return peak.peak_bytes


def _timed(prepared: Prepared) -> list[float]:
    """Seconds of steps whose batches are as wide as most."""
    seconds: list[float] = []
    for step in _typical_steps(prepared):
        started = time.perf_counter()
        _take(prepared, step)
        if prepared.device.type == "cuda":
            torch.cuda.synchronize(prepared.device)
        seconds.append(time.perf_counter() - started)
    return seconds


def _typical_steps(prepared: Prepared) -> list[int]:
    """Numbers of the steps nearest to the mean number of tokens, padding included."""
    first = MEASURED_STEPS + 1  # those before are widened
    last = min(max(prepared.num_steps, MEASURED_STEPS + TIMED_STEPS), MEASURED_STEPS + _LOOKED_AT)
    tokens = {
        step: sum(batch.input_ids.numel() for batch in prepared.order.of_step(step))
        for step in range(first, last + 1)
    }
    mean = statistics.mean(tokens.values())
    return sorted(tokens, key=lambda step: abs(tokens[step] - mean))[:TIMED_STEPS]


def _take(prepared: Prepared, step: int) -> None:
    """One step as the loop takes it; a run that is shorter has no rate beyond its end."""
    train = prepared.spec.train
    rate = learning_rate(min(step, prepared.num_steps), prepared.num_steps, train)
    prepared.method.step(prepared.batches(step), rate, step)


def _total(prepared: Prepared, device: Device, step: StepTime) -> TotalTime:
    spec = prepared.spec
    shape = find_shape(resolve_model(spec.model.source), spec.model.revision)
    total = total_time(
        spec, shape, device, step, rates_of(device), prepared.num_rows, num_steps=prepared.num_steps
    )
    assert total is not None, "a prepared run knows its number of steps"
    return total
