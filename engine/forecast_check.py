"""What the first steps measured beside their forecast: told, and kept for later forecasts."""

from __future__ import annotations

from typing import Any

from engine.contract.events import EventWriter
from engine.live_tensors import state_bytes
from engine.memory.calibration import case_of, parting_sentence
from engine.memory.cases import remember
from engine.meter import StepPeak, peak_resident_bytes, process_bytes
from engine.preparation import Prepared


class ForecastCheck:
    """Belongs to one attempt.

    Args:
        prepared: The run, with what it was forecast to need.
        events: Where to tell.

    Attributes:
        measured: Fields of the `memory` event with what was measured; None until then.
    """

    def __init__(self, prepared: Prepared, events: EventWriter) -> None:
        self._prepared = prepared
        self._events = events
        self.measured: dict[str, Any] | None = None

    def tell(self, peak: StepPeak) -> None:
        """The measured terms, and a notice where they are outside the forecast's band.

        The case is kept for later forecasts.
        """
        prepared = self._prepared
        assert peak.peak_bytes is not None
        assert peak.resting_bytes is not None
        states = state_bytes(prepared.loaded.model, prepared.method, prepared.spec)
        pass_bytes = peak.peak_bytes - peak.resting_bytes
        parted = parting_sentence(prepared.forecast, peak.peak_bytes, is_kept=True)
        self.measured = {
            "peak_bytes": peak.peak_bytes,
            "terms": states,
            "pass_bytes": pass_bytes,
            "other_bytes": peak.resting_bytes - sum(states.values()),
            "reserved_bytes": peak.reserved_bytes,
            "process_bytes": process_bytes(prepared.device),
            "host_peak_bytes": peak_resident_bytes(),
            "parted": parted,
        }
        self._events.emit("memory", of="measured", **self.measured)
        if parted:
            self._events.emit("notice", message=parted)
        self._keep(pass_bytes)

    def _keep(self, pass_bytes: int) -> None:
        expected = self._prepared.expected
        case = case_of(
            expected.estimated,
            self._prepared.spec,
            expected.shape,
            expected.device,
            measured_bytes=pass_bytes,
        )
        try:
            remember(case)
        except OSError as error:
            self._events.emit(
                "notice",
                message="What this run measured could not be kept for later forecasts: "
                f"{error.strerror or error}.",
            )
