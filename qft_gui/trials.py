"""What is tried in the background: two steps of a request, and this computer's rates, once.

Each is a command of the engine in a process of its own, one at a time, which ends with the window.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from engine.contract.device_lock import holder_of
from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.launch import PROJECT, engine_environment
from engine.memory.device_key import device_key as gpu_key
from engine.memory.devices import Device
from engine.memory.machine_rates import device_key, rates_of
from qft_gui.engine_commands import read_answer, spec_file

MOST_TRIALS = 8


class TrialAnswer(BaseModel):
    """What `python -m engine probe --json` says; seconds and bytes."""

    seconds_per_step: float
    steps: int
    total_seconds: float
    low_total_seconds: float
    high_total_seconds: float
    measured_peak_bytes: int
    forecast_bytes: int
    free_bytes: int
    fits: bool
    notices: list[str]


@dataclass
class Trial:
    """Two steps of one request, being tried or tried. `error` is why there is no answer."""

    document: dict[str, Any]
    answer: TrialAnswer | None = None
    error: RequestError | None = None
    is_cancelled: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.is_cancelled or self.answer is not None or self.error is not None

    @property
    def seconds(self) -> int:
        """Since it was asked for."""
        return int(time.monotonic() - self.started)


class TetheredEngine:
    """One command of the engine at a time, in a process that does not outlive this one."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.end)

    def ask(
        self,
        *arguments: str,
        unless: Callable[[], bool],
        read: Callable[[str, str, int], dict[str, Any]] = read_answer,
        environment: Mapping[str, str] | None = None,
    ) -> dict[str, Any] | None:
        """The answer of a command; None if `unless` holds when its turn comes.

        Args:
            arguments: The command and what it takes, without `--json`.
            unless: Whether the answer is not wanted any more.
            read: Makes the answer of what it printed, what it said, and its exit code.
            environment: Variables that are set for it besides.

        Raises:
            RequestErrors: It refused, or was ended.
            OSError: It could not be started.
        """
        with self._one_at_a_time, tempfile.TemporaryFile() as said:
            with subprocess.Popen(
                [sys.executable, "-m", "qft_gui.tethered", *arguments, "--json"],
                cwd=PROJECT,
                env={**engine_environment(), **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                encoding="utf-8",
                errors="replace",
            ) as process:
                self._process = process
                if unless():
                    process.kill()
                    return None
                assert process.stdout is not None
                output = process.stdout.read()
                code = process.wait()
                self._process = None
            said.seek(0)
            return read(output, said.read().decode(errors="replace"), code)

    def end(self) -> None:
        """End the command that is under way, if there is one."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()


class Trials:
    """Tries two steps of requests, and remembers what came of it."""

    def __init__(self) -> None:
        self._engine = TetheredEngine()
        self._lock = threading.Lock()
        self._trials: OrderedDict[str, Trial] = OrderedDict()

    def begin(self, document: dict[str, Any]) -> bool:
        """Try two steps of a spec; not while others are tried. What was known of it goes.

        Returns:
            Whether they are being tried now.
        """
        key = _key(document)
        with self._lock:
            if any(not one.is_over for one in self._trials.values()):
                return False
            self._trials[key] = trial = Trial(document)
            self._trials.move_to_end(key)
            while len(self._trials) > MOST_TRIALS:
                self._trials.popitem(last=False)
        threading.Thread(target=self._work, args=(trial,), name="try-steps", daemon=True).start()
        return True

    def of(self, document: dict[str, Any]) -> Trial | None:
        """What was tried of exactly this spec."""
        with self._lock:
            trial = self._trials.get(_key(document))
            return None if trial is None or trial.is_cancelled else trial

    def under_way(self) -> Trial | None:
        """The one that is being tried."""
        with self._lock:
            return next((one for one in self._trials.values() if not one.is_over), None)

    def cancel(self) -> None:
        """End what is being tried; nothing is kept of it."""
        trial = self.under_way()
        if trial is not None:
            trial.is_cancelled = True
            self._engine.end()

    def _work(self, trial: Trial) -> None:
        try:
            with spec_file(trial.document) as spec:
                found = self._engine.ask("probe", str(spec), unless=lambda: trial.is_cancelled)
            if found is not None:
                trial.answer = TrialAnswer.model_validate(found)
        except RequestErrors as error:
            trial.error = mistakes(error)[0]
        except ValidationError:
            trial.error = RequestError("engine", "The engine's answer could not be read.")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            trial.error = RequestError("engine", f"The engine could not be started: {reason}.")


class RatesTaker:
    """Has the rates of a device measured once, where nobody has measured them yet.

    Args:
        is_busy: Whether a run holds the computer, which would spoil what is measured.
    """

    def __init__(self, is_busy: Callable[[], bool]) -> None:
        self._is_busy = is_busy
        self._engine = TetheredEngine()
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._failed: dict[str, RequestError] = {}

    def measure(self, device: Device) -> None:
        """Begin, unless it is under way, was done or came to nothing before."""
        key = device_key(device)
        with self._lock:
            if key in self._under_way or key in self._failed or rates_of(device) is not None:
                return
            self._under_way.add(key)
        threading.Thread(target=self._work, args=(device, key), name="rates", daemon=True).start()

    def is_measuring(self, device: Device) -> bool:
        """Whether an answer is on its way."""
        with self._lock:
            return device_key(device) in self._under_way

    def failure(self, device: Device) -> RequestError | None:
        """Why there are no rates."""
        with self._lock:
            return self._failed.get(device_key(device))

    def _work(self, device: Device, key: str) -> None:
        failure: RequestError | None = None
        try:
            if not self._is_busy() and not _is_held(device):
                self._engine.ask("measure", "--device", device.id, unless=self._is_busy)
        except RequestErrors as error:
            failure = mistakes(error)[0]
        except OSError as error:
            failure = RequestError("engine", f"The engine could not be started: {error}.")
        finally:
            with self._lock:
                self._under_way.discard(key)
                if failure is not None:
                    self._failed[key] = failure


def _is_held(device: Device) -> bool:
    """Whether someone has the GPU; it is measured once it is free."""
    key = gpu_key(device.id)
    return key is not None and holder_of(key) is not None


def _key(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True)
