"""What a run is expected to need: the forecast, corrected by what this computer's runs needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.memory.calibration import Correction, corrected, correction_for
from engine.memory.cases import read_cases
from engine.memory.estimate import Forecast, estimate

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec
    from engine.memory.devices import Device
    from engine.memory.model_shape import ModelShape


@dataclass(frozen=True)
class Expectation:
    """Of one run.

    Attributes:
        shape: The model's.
        device: Where it runs.
        estimated: The forecast by itself.
        correction: What runs like this one needed on this computer; None before the first.
        forecast: The forecast that people are told: with the correction.
    """

    shape: ModelShape
    device: Device
    estimated: Forecast
    correction: Correction | None
    forecast: Forecast

    @property
    def calibrated_by(self) -> int:
        """Runs on this computer that the forecast was corrected by."""
        return self.correction.runs if self.correction else 0

    def fields(self) -> dict[str, Any]:
        """Those of the `memory` event."""
        told = self.forecast
        return {
            "terms": dict(told.terms),
            "total_bytes": told.total_bytes,
            "low_bytes": told.low_bytes,
            "high_bytes": told.high_bytes,
            "tensor_bytes": told.tensor_bytes,
            "free_bytes": told.free_bytes,
            "calibrated_by": self.calibrated_by,
            "estimated_bytes": self.estimated.tensor_bytes,
            "device": self.device.name,
        }


def expect(spec: RunSpec, shape: ModelShape, device: Device, longest_tokens: int) -> Expectation:
    """What a run will need.

    Args:
        spec: Complete.
        shape: The model's.
        device: Where it will run.
        longest_tokens: Of the widest row of its data.
    """
    estimated = estimate(spec, shape, device, longest_tokens)
    correction = correction_for(estimated, spec, shape, device, read_cases())
    told = corrected(estimated, correction) if correction else estimated
    return Expectation(shape, device, estimated, correction, told)
