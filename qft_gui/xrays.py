"""X-rays as the window takes them: the engine's command in a process of its own, one at a time.

Answers are kept in memory, by target, data and the state that both were in.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ValidationError

from engine.contract.bundled import STARTER
from engine.contract.errors import ExitCode, RequestError
from engine.contract.launch import PROJECT, engine_environment
from engine.contract.paths import is_folder, typed_path
from engine.contract.run_dir import RunDir

MOST_ANSWERS = 8


class ErrorPercent(BaseModel):
    """What int8 loses: with a scale per row, per 32 values, and the largest 1 % kept apart."""

    row: float
    group: float
    hybrid: float


class Seen(BaseModel):
    """One distribution; shares are in percent."""

    num_sampled: int
    rms: float
    largest: float
    kurtosis: float | None
    outlier_percent: float
    top_percent: float
    histogram_percent: list[float]
    outside_percent: float
    error_percent: ErrorPercent | None


class LayerSeen(Seen):
    """All matrices of a block as one, or a matrix outside all blocks."""

    label: str


class TensorSeen(Seen):
    """One tensor."""

    name: str
    layer: int | None
    part: str
    shape: list[int]


class KindSeen(BaseModel):
    """Weights, gradients, or one moment."""

    kind: str
    layers: list[LayerSeen]
    tensors: list[TensorSeen]


class XrayAnswer(BaseModel):
    """What `python -m engine xray --json` says."""

    name: str
    step: int | None
    data: str | None
    num_parameters: int
    bin_centres: list[float]
    kinds: list[KindSeen]
    notes: list[str]

    def of(self, kind: str) -> KindSeen | None:
        """One kind, if it was seen."""
        return next((one for one in self.kinds if one.kind == kind), None)


@dataclass(frozen=True)
class Wish:
    """What to look at: a run's folder, a model's source; and the data of the gradients."""

    target: str
    data: str | None = None

    def state(self) -> str:
        """Changes whenever the answer might."""
        return json.dumps([self.target, self.data, *_marks(self.target), *_marks(self.data)])


@dataclass
class Job:
    """One X-ray, being taken or taken. `error` is why there is none."""

    wish: Wish
    phase: str = "starting the engine…"
    answer: XrayAnswer | None = None
    error: RequestError | None = None
    process: subprocess.Popen[str] | None = None
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


class Xrays:
    """Takes X-rays in the background, and remembers them.

    Args:
        runs: Folder that holds all runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        atexit.register(self.close)

    def take(self, wish: Wish) -> str:
        """Begin, unless the answer is known or on its way.

        Returns:
            What to `look` for.
        """
        key = wish.state()
        with self._lock:
            known = self._jobs.get(key)
            if known is None or known.error is not None or known.is_cancelled:
                self._jobs[key] = job = Job(wish)
                threading.Thread(target=self._work, args=(job,), name="xray", daemon=True).start()
            self._jobs.move_to_end(key)
            over = [name for name, job in self._jobs.items() if job.is_over and name != key]
            for name in over[: max(0, len(self._jobs) - MOST_ANSWERS)]:
                del self._jobs[name]
        return key

    def look(self, key: str) -> Job | None:
        """How far it is; None if it was never taken here or is forgotten."""
        with self._lock:
            return self._jobs.get(key)

    def cancel(self, key: str) -> None:
        """End its engine; nothing is kept."""
        job = self.look(key)
        if job is None or job.is_over:
            return
        job.is_cancelled = True
        _kill(job)

    def close(self) -> None:
        """End every engine that still reads."""
        for job in list(self._jobs.values()):
            _kill(job)

    def _work(self, job: Job) -> None:
        job.phase = "waiting for another X-ray…" if self._one_at_a_time.locked() else job.phase
        with self._one_at_a_time:
            if job.is_cancelled:
                return
            try:
                job.answer = self._ask(job)
            except RequestError as error:
                job.error = error
            except OSError as error:
                job.error = _failed(error.strerror or "it could not be started")

    def _ask(self, job: Job) -> XrayAnswer:
        # Written so that nothing with a leading dash is taken for an option.
        data = [f"--data={job.wish.data}"] if job.wish.data else []
        words = [*data, "--runs", str(self._runs), "--json", "--", job.wish.target]
        job.process = subprocess.Popen(
            [sys.executable, "-m", "engine", "xray", *words],
            cwd=PROJECT,
            env=engine_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        with job.process as process:
            if job.is_cancelled:
                process.kill()
            assert process.stdout is not None
            assert process.stderr is not None
            said: list[str] = []
            listener = threading.Thread(target=_listen, args=(process.stderr, job, said))
            listener.start()
            text = process.stdout.read()
            listener.join()
        return _answer(text, process.returncode, said)


def _listen(lines: IO[str], job: Job, said: list[str]) -> None:
    for line in lines:
        said[:] = [line.strip() or "it said nothing"]
        if line.rstrip().endswith("…"):
            job.phase = line.strip()


def _answer(text: str, code: int, said: list[str]) -> XrayAnswer:
    try:
        document: Any = json.loads(text)
        if code != ExitCode.DONE:
            error = document["error"]
            raise RequestError(
                str(error["field"]), str(error["message"]), str(error.get("advice") or "")
            )
        return XrayAnswer.model_validate(document)
    except RequestError:
        raise
    except (ValidationError, KeyError, TypeError) as error:
        raise _failed("its answer could not be read") from error
    except ValueError as error:
        if code < 0:
            raise _failed("the system ended it, most likely for lack of memory") from error
        raise _failed((said or ["it said nothing"])[0][:200].rstrip(".")) from error


def _failed(why: str) -> RequestError:
    return RequestError("engine", f"The engine took no X-ray: {why}.")


def _kill(job: Job) -> None:
    if job.process is not None and job.process.poll() is None:
        job.process.kill()


def _marks(source: str | None) -> list[Any]:
    """Names, sizes and times of the files that a source means; nothing for a name."""
    if source is None:
        return []
    path = STARTER if source == "starter" else typed_path(source)
    run = RunDir(path)
    places = [path, run.checkpoints, run.export] if is_folder(path) else [path]
    found: list[Any] = []
    for place in places:
        try:
            inside = sorted(place.iterdir()) if place.is_dir() else [place]
            states = [(file.name, file.stat()) for file in inside if _matters(file, run)]
        except OSError:
            continue
        found += [[name, state.st_size, state.st_mtime_ns] for name, state in states]
    return found


def _matters(file: Path, run: RunDir) -> bool:
    """A run's log grows all the time and says nothing new of its weights."""
    return file not in (run.events_path, run.log_path, run.lock_path, run.checkpoints)
