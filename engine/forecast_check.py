"""What the first steps measured beside their forecast: told, and kept for later forecasts."""

from __future__ import annotations

from statistics import median
from typing import Any

from engine.contract.events import EventWriter
from engine.live_tensors import state_bytes
from engine.memory.calibration import case_of, parting_sentence
from engine.memory.cases import remember
from engine.meter import StepPeak, peak_resident_bytes, process_bytes
from engine.preparation import Prepared

# So many steps after the measured ones are timed before the case is kept.
TIMED_STEPS = 5


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
        self._pass_bytes = 0
        self._seconds: list[float] = []
        self._is_kept = False
        self.measured: dict[str, Any] | None = None

    def tell(self, peak: StepPeak) -> None:
        """The measured terms, and a notice where they are outside the forecast's band."""
        prepared = self._prepared
        assert peak.peak_bytes is not None
        assert peak.resting_bytes is not None
        states = state_bytes(prepared.loaded.model, prepared.method, prepared.spec)
        self._pass_bytes = peak.peak_bytes - peak.resting_bytes
        parted = parting_sentence(prepared.forecast, peak.peak_bytes)
        self.measured = {
            "peak_bytes": peak.peak_bytes,
            "terms": states,
            "pass_bytes": self._pass_bytes,
            "other_bytes": peak.resting_bytes - sum(states.values()),
            "reserved_bytes": peak.reserved_bytes,
            "process_bytes": process_bytes(prepared.device),
            "host_peak_bytes": peak_resident_bytes(),
            "parted": parted,
        }
        self._events.emit("memory", of="measured", **self.measured)
        if parted:
            self._events.emit("notice", message=parted)

    def add_step(self, seconds: float) -> None:
        """A step that was done. The first of the list is the last that was measured: it is slow."""
        if self.measured is None or self._is_kept:
            return
        self._seconds.append(seconds)
        if len(self._seconds) > TIMED_STEPS:
            self.keep()

    def keep(self) -> None:
        """Leave the case for later forecasts, once, if anything was measured."""
        if self.measured is None or self._is_kept:
            return
        self._is_kept = True
        expected, timed = self._prepared.expected, self._seconds[1:]
        case = case_of(
            expected.estimated,
            self._prepared.spec,
            expected.shape,
            expected.device,
            tokens=self._prepared.order.widest,
            peak_bytes=self.measured["peak_bytes"],
            measured_bytes=self._pass_bytes,
            seconds_per_step=median(timed) if timed else None,
        )
        try:
            remember(case)
        except OSError as error:
            self._events.emit(
                "notice",
                message="What this run measured could not be kept for later forecasts: "
                f"{error.strerror or error}.",
            )
