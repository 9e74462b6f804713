"""One attempt at a run: claim it, do it, and always conclude with a result.

`python -m engine.attempt RUN` is what `launch` starts; people use `python -m engine`.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import filelock
import torch
import transformers

from engine.checkpoint import clean_up, prune
from engine.contract.device_lock import claim_device
from engine.contract.errors import ExitCode, RequestError, RequestErrors
from engine.contract.events import EventWriter
from engine.contract.identity import current_identity
from engine.contract.run_dir import FORMAT, RunDir
from engine.contract.status import EXIT_CODES, Status
from engine.export import remove_export
from engine.memory.device_key import device_key
from engine.meter import MemorySampler, peak_resident_bytes
from engine.methods.protocol import NonFiniteError
from engine.model import choose_torch_device
from engine.out_of_memory import ADVICE, is_out_of_memory, what_ran_out
from engine.preparation import Prepared, prepare
from engine.train import Stopped, Trainer


class Attempt:
    """Owns the run folder from the claim to the result."""

    def __init__(self, run: RunDir, events: EventWriter, number: int) -> None:
        self._run = run
        self._events = events
        self._number = number
        self._signalled = False
        self._started = time.monotonic()
        self._prepared: Prepared | None = None
        self._trainer: Trainer | None = None

    def conduct(self) -> Status:
        """Train and conclude; every way out but a kill ends in `result.json`."""
        self._listen_to_signals()
        outcome, error = self._outcome()
        self._events.emit("phase", phase="done")
        self._run.write_result(self._result(outcome, error))
        return outcome

    def _outcome(self) -> tuple[Status, dict[str, str] | None]:
        try:
            return self._train(), None
        except NonFiniteError as error:
            return "diverged", self._diverged(error)
        except (RequestError, RequestErrors) as error:
            first = error.errors[0] if isinstance(error, RequestErrors) else error
            return "failed", first.as_json()
        except Exception as error:  # the last line of defence: told, never hidden
            traceback.print_exception(error)
            if is_out_of_memory(error):
                return "out_of_memory", self._out_of_memory(error)
            return "failed", self._fault(error)

    def _train(self) -> Status:
        device = choose_torch_device(self._run.spec().train.device)
        with claim_device(device_key(str(device)), "training", self._run.name):
            return self._train_on(device)

    def _train_on(self, device: torch.device) -> Status:
        sampler = MemorySampler(device, lambda fields: self._events.emit("vram", **fields))
        sampler.start()
        try:
            self._prepared = prepare(self._run, self._events)
            self._trainer = Trainer(
                self._run, self._prepared, self._events, self._number, self._stop_requested
            )
            if self._number > 1:
                # An export of an earlier stop would answer for a model that moves on from here.
                remove_export(self._run)
            self._trainer.train()
            self._trainer.export()
            return "finished"
        except Stopped:
            self._stop(self._trainer)
            return "stopped"
        finally:
            sampler.close()

    def _stop(self, trainer: Trainer | None) -> None:
        if self._run.stop_request() == "discard":
            prune(self._run, self._number, keep=0)
            remove_export(self._run)
        elif trainer is not None:
            trainer.save()
            if trainer.progress.step:
                trainer.export()

    def _stop_requested(self) -> bool:
        return self._signalled or self._run.stop_request() is not None

    def _listen_to_signals(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._signalled:
            os._exit(128 + number)
        self._signalled = True

    def _diverged(self, error: NonFiniteError) -> dict[str, str]:
        step = self._trainer.progress.step + 1 if self._trainer else 1
        if error.weights_intact and self._trainer:
            self._trainer.save()
        kept = self._kept()
        return {
            "class": "diverged",
            "message": f"At step {step} {error} stopped being a number. {kept}",
            "advice": "Start again with a third of the learning rate.",
        }

    def _out_of_memory(self, error: BaseException) -> dict[str, str]:
        return {
            "class": "out_of_memory",
            "message": f"{what_ran_out(error, self._where())} {self._kept()}",
            "advice": ADVICE,
        }

    def _fault(self, error: Exception) -> dict[str, str]:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return {
            "class": type(error).__name__,
            "message": f"The engine failed {self._where()}: {first_line}",
            "advice": "engine.log in the run folder has the details.",
        }

    def _where(self) -> str:
        return f"at step {self._trainer.progress.step + 1}" if self._trainer else "while loading"

    def _kept(self) -> str:
        saved = self._trainer.saved_step if self._trainer else 0
        return f"The checkpoint of step {saved} is kept." if saved else "No checkpoint was kept."

    def _result(self, outcome: Status, error: dict[str, str] | None) -> dict[str, Any]:
        trainer, prepared = self._trainer, self._prepared
        progress = trainer.progress if trainer else None
        measured = trainer.check.measured if trainer else None
        seconds = progress.elapsed_s if progress else 0.0
        return {
            "format": FORMAT,
            "attempt": self._number,
            "outcome": outcome,
            "steps_done": progress.step if progress else 0,
            "tokens_seen": progress.tokens_seen if progress else 0,
            "eval_loss_before": progress.eval_loss_before if progress else None,
            "eval_loss_after": trainer.eval_loss_last if trainer else None,
            "eval_step": trainer.eval_step if trainer else None,
            "train_loss_last": trainer.train_loss_last if trainer else None,
            "forecast_bytes": prepared.forecast.tensor_bytes if prepared else None,
            "measured_peak_bytes": trainer.peak.peak_bytes if trainer else None,
            "measured_reserved_bytes": trainer.peak.reserved_bytes if trainer else None,
            "measured_process_bytes": (measured or {}).get("process_bytes"),
            "measured_host_peak_bytes": peak_resident_bytes() if trainer else None,
            "calibrated_by": prepared.expected.calibrated_by if prepared else None,
            "tokens_per_s": round(progress.tokens_seen / seconds, 1)
            if progress and seconds
            else None,
            "train_s": round(seconds, 2),
            "wall_s": round(time.monotonic() - self._started, 2),
            "error": error,
        }


def main(path: str) -> ExitCode:
    """Claim the run folder and conduct an attempt; a second engine leaves without a trace."""
    run = RunDir(Path(path))
    lock = filelock.FileLock(run.lock_path, timeout=0)
    try:
        with lock:
            if run.result is not None:
                return ExitCode.BAD_REQUEST
            return _claimed(run)
    except filelock.Timeout:
        return ExitCode.BAD_REQUEST


def _claimed(run: RunDir) -> ExitCode:
    number = run.attempt()
    run.write_owner(
        {
            **current_identity().as_json(),
            "attempt": number,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "threads": torch.get_num_threads(),
        }
    )
    clean_up(run)
    with EventWriter(run.events_path, number) as events:
        return EXIT_CODES[Attempt(run, events, number).conduct()]


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main(sys.argv[1]))
