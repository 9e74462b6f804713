"""What can be said of a request before it runs: its complete spec, memory and time on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from engine.contract.model_source import check_model_folder, resolve_model
from engine.contract.presets import resolve_presets
from engine.contract.spec import RunSpec
from engine.memory.calibration import narrowed, read_cases
from engine.memory.devices import Device
from engine.memory.estimate import Forecast, estimate
from engine.memory.gpus import GpuFit, smallest_gpu
from engine.memory.lost_updates import lost_updates
from engine.memory.machine_rates import rates_of
from engine.memory.model_shape import ModelShape
from engine.memory.resolve import resolve_for_device
from engine.memory.step_time import StepTime, TotalTime, step_time, total_time
from engine.shapes import find_shape


@dataclass(frozen=True)
class Prospect:
    """One request on one device.

    Attributes:
        asked: With presets resolved; what is left to the device is still open.
        spec: Complete.
        shape: The model's.
        device: Where it would run.
        forecast: Corrected by what runs like it needed on this computer.
        step: Time of one step; None where the device was not measured.
    """

    asked: RunSpec
    spec: RunSpec
    shape: ModelShape
    device: Device
    forecast: Forecast
    step: StepTime | None

    def total(self, num_rows: int) -> TotalTime | None:
        """Time of the whole run on data of so many rows; None where a step's is unknown."""
        if self.step is None:
            return None
        rates = rates_of(self.device)
        return total_time(self.spec, self.shape, self.device, self.step, rates, num_rows)

    def gpu(self) -> GpuFit | None:
        """The smallest GPU that would hold the request; None if none would."""
        return smallest_gpu(self.asked, self.shape)

    def time_document(self, num_rows: int) -> dict[str, Any] | None:
        """What `--json` says of time, in seconds; None where the device was not measured."""
        step, total = self.step, self.total(num_rows)
        if step is None:
            return None
        return {
            "seconds_per_step": step.seconds,
            "low_seconds": step.low,
            "high_seconds": step.high,
            "source": step.source,
            "steps": total.steps if total else None,
            "total_seconds": total.seconds if total else None,
            "total_low_seconds": total.low if total else None,
            "total_high_seconds": total.high if total else None,
        }


def shape_of(spec: RunSpec) -> ModelShape:
    """The shapes of the model that a spec names.

    Raises:
        RequestError: The model cannot be used.
    """
    reference = resolve_model(spec.model.source)
    if reference.folder is not None:
        check_model_folder(reference.folder)
    return find_shape(reference, spec.model.revision)


def prospect_of(spec: RunSpec, device: Device, shape: ModelShape) -> Prospect:
    """Resolve a spec and forecast it.

    Args:
        spec: As a person gave it.
        device: Where it would run.
        shape: Of `shape_of`.

    Raises:
        RequestError: The method cannot train this model.
    """
    asked = resolve_presets(spec, resolve_model(spec.model.source))
    complete = resolve_for_device(asked, shape, device)
    forecast = narrowed(estimate(complete, shape, device), complete, shape, device, read_cases())
    warning = lost_updates(complete, shape)
    step = step_time(complete, shape, device, rates_of(device))
    forecast = replace(
        forecast,
        advice=(*forecast.advice, warning) if warning else forecast.advice,
        seconds_per_step=step.seconds if step else None,
    )
    return Prospect(asked, complete, shape, device, forecast, step)
