"""What goes on around the Setup page: who holds memory, whether a run goes on, what is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.contract.errors import RequestError
from engine.memory.devices import Device
from engine.memory.holders import Holder, holders
from qft_gui.lately import Lately
from qft_gui.trials import RatesTaker, Trial, Trials

HOLDERS_S, RUN_S = 5.0, 2.0


@dataclass(frozen=True)
class Situation:
    """What goes on at one moment, for one request.

    Attributes:
        holders: Who holds memory of the device; None while nobody has looked.
        run: The run that holds the computer.
        trial: Two steps of exactly this request, being tried or tried.
        is_trying_another: Two steps of another request are being tried.
        is_measuring: The device's rates are being measured.
        unmeasured: Why they could not be.
    """

    holders: tuple[Holder, ...] | None = None
    run: str | None = None
    trial: Trial | None = None
    is_trying_another: bool = False
    is_measuring: bool = False
    unmeasured: RequestError | None = None

    @property
    def is_changing(self) -> bool:
        """Whether there is more to come by itself."""
        is_trying = self.trial is not None and not self.trial.is_over
        return is_trying or self.is_trying_another or self.is_measuring or self.holders is None


NOTHING_KNOWN = Situation(holders=())


class Surroundings:
    """Looks around without keeping anybody waiting.

    Args:
        live_run: The name of the run that goes on, if there is one.
    """

    def __init__(self, live_run: Callable[[], str | None]) -> None:
        self._live_run = live_run
        self._run: Lately[None, str | None] = Lately(lambda _: live_run(), str, RUN_S)
        self._holders: Lately[Device, tuple[Holder, ...]] = Lately(
            holders, lambda device: device.id, HOLDERS_S
        )
        self._rates = RatesTaker(lambda: live_run() is not None)
        self.trials = Trials()

    def at(self, device: Device | None, document: dict[str, Any]) -> Situation:
        """What is known now; what is missing is asked for in the background.

        Args:
            device: Where the request would run; None if there is no such device.
            document: The request.
        """
        under_way, trial = self.trials.under_way(), self.trials.of(document)
        if device is None:
            return Situation(holders=(), run=self._run.get(None), trial=trial)
        if under_way is None:
            self._rates.measure(device)
        return Situation(
            self._holders.get(device),
            self._run.get(None),
            trial,
            under_way is not None and under_way is not trial,
            self._rates.is_measuring(device),
            self._rates.failure(device),
        )

    def try_steps(self, document: dict[str, Any]) -> None:
        """Try two steps, unless a run holds the computer."""
        if self._live_run() is None:
            self.trials.begin(document)
