"""Datasets checked in the background: one at a time, the newest wish next, answers remembered."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from engine.contract.errors import RequestError, RequestErrors, mistakes
from qft_gui.data_check import DataCheck, Example
from qft_gui.data_wish import DataWish, page_of
from qft_gui.engine_commands import read_check
from qft_gui.trials import TetheredEngine
from qft_gui.view.sentences import sentence

# A number that is being typed is asked about once it stands still.
DEBOUNCE_S = 0.4
# A window that waits asks every second; a check that nobody asked for this long is in the way.
FORGOTTEN_S = 2.5
MOST_ANSWERS = 24
# Whose tokens are counted where the chosen model's are not on this computer.
STAND_IN = "starter"
# Mistakes of these are the data's; all others only keep it from being checked.
_OF_THE_DATA = ("data", "train.sequence_length")
# Nothing is downloaded that nobody asked for.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
Ask = Callable[[DataWish, int, Callable[[], bool]], dict[str, Any] | None]


@dataclass(frozen=True)
class Found:
    """What came of one check. `problem` is why there is none."""

    check: DataCheck | None = None
    problem: str = ""
    is_stand_in: bool = False


@dataclass(frozen=True)
class Look:
    """What is known of a dataset at one moment.

    Attributes:
        check: The newest of this file, maybe read otherwise; None if it was never checked.
        is_current: The check is of exactly these settings.
        is_checking: One of these settings is under way.
        seconds: Since it began.
        rows: How many it has to read, where an earlier check counted them.
        is_cancelled: A person ended it.
        problem: Why it could not be checked.
        is_stand_in: Tokens are those of the starter: the chosen model is not here yet.
        example: The one that is shown.
        limit: The longest example that was asked for, in tokens; the check may be of another.
    """

    check: DataCheck | None = None
    is_current: bool = False
    is_checking: bool = False
    seconds: int = 0
    rows: int | None = None
    is_cancelled: bool = False
    problem: str = ""
    is_stand_in: bool = False
    example: Example | None = None
    limit: int | None = None

    @property
    def errors(self) -> tuple[RequestError, ...]:
        """Why nothing can be learned; empty while that is not known."""
        mistake = self.check.error if self.check and self.is_current else None
        return (mistake.as_error(),) if mistake else ()


NOT_LOOKED = Look()


@dataclass
class _Job:
    """One check that is asked for."""

    wish: DataWish
    page: int
    key: tuple[str, int]
    changed: float = field(default_factory=time.monotonic)
    asked: float = field(default_factory=time.monotonic)
    began: float | None = None
    is_cancelled: bool = False


class Checks:
    """Checks datasets without keeping anybody waiting.

    Args:
        ask: Takes a wish, the first example, and whether it is wanted no more; the engine by
            default.
    """

    def __init__(self, ask: Ask | None = None) -> None:
        self._engine = TetheredEngine()
        self._ask = ask or self._ask_engine
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._found: OrderedDict[tuple[str, int], Found] = OrderedDict()
        self._subjects: dict[str, tuple[str, int]] = {}
        self._cancelled: set[str] = set()
        self._running: _Job | None = None
        self._next: _Job | None = None
        self._has_worker = False

    def look(self, wish: DataWish, number: int = 1, *, may_ask: bool = True) -> Look:
        """What is known of a dataset; what is missing is asked for in the background.

        Args:
            wish: The data, and how it is read.
            number: The example to show, from 1.
            may_ask: Ask for what is missing.
        """
        state, subject = wish.state(), wish.subject()
        key = (state, page_of(max(1, number)))
        with self._lock:
            found = self._newest(state, key)
            is_known = key in self._found
            known = found or self._found.get(self._subjects.get(subject, ("", 0)))
            is_cancelled = state in self._cancelled
            if may_ask and not is_known and not is_cancelled:
                self._want(_Job(wish, key[1], key))
            job = next((one for one in (self._running, self._next) if _is(one, key)), None)
            known = known or Found()
            check = known.check
            return Look(
                check=check,
                is_current=found is not None,
                is_checking=job is not None,
                seconds=int(time.monotonic() - job.changed) if job else 0,
                rows=check.rows if check and check.rows else None,
                is_cancelled=is_cancelled and not is_known,
                problem=known.problem if found else "",
                is_stand_in=known.is_stand_in,
                example=check.example(number) if check else None,
                limit=wish.limit,
            )

    def cancel(self) -> None:
        """End what is being checked; it is not checked again until somebody says so."""
        with self._lock:
            for job in (self._running, self._next):
                if job is not None:
                    job.is_cancelled = True
                    self._cancelled.add(job.key[0])
            self._next = None
        self._engine.end()

    def again(self, wish: DataWish) -> None:
        """Check what was cancelled, or could not be checked."""
        state = wish.state()
        with self._lock:
            self._cancelled.discard(state)
            for key in [key for key in self._found if key[0] == state and self._found[key].problem]:
                del self._found[key]

    def _newest(self, state: str, key: tuple[str, int]) -> Found | None:
        """An answer to the question, if need be with other examples."""
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        return next((self._found[one] for one in reversed(self._found) if one[0] == state), None)

    def _want(self, job: _Job) -> None:
        running = self._running
        if running and not running.is_cancelled:
            if running.key == job.key:
                running.asked = job.asked
                return
            if job.asked - running.asked > FORGOTTEN_S:
                running.is_cancelled = True
                self._engine.end()
        if _is(self._next, job.key):
            return
        self._next = job
        self._turn.notify_all()
        if not self._has_worker:
            self._has_worker = True
            threading.Thread(target=self._work, name="check-data", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                job = self._wait_for_job()
            found = self._check(job)
            with self._lock:
                self._running = None
                if found is not None and not job.is_cancelled:
                    self._keep(job, found)

    def _wait_for_job(self) -> _Job:
        """The newest wish, once it has stood still for a moment; the lock is held."""
        while True:
            job = self._next
            if job is None:
                self._turn.wait()
                continue
            left = job.changed + DEBOUNCE_S - time.monotonic()
            if left <= 0:
                self._running, self._next = job, None
                return job
            self._turn.wait(left)

    def _keep(self, job: _Job, found: Found) -> None:
        self._found[job.key] = found
        self._found.move_to_end(job.key)
        if found.check is not None:
            self._subjects[job.wish.subject()] = job.key
        while len(self._found) > MOST_ANSWERS:
            gone, _ = self._found.popitem(last=False)
            self._subjects = {name: key for name, key in self._subjects.items() if key != gone}

    def _check(self, job: _Job) -> Found | None:
        try:
            found = self._answer(job, job.wish)
            mistake = found.check.error if found and found.check else None
            if mistake and mistake.field.startswith("model") and job.wish.model != STAND_IN:
                found = self._answer(job, replace(job.wish, model=STAND_IN))
                return found and replace(found, is_stand_in=True)
        except RequestErrors as error:
            return Found(problem=sentence(mistakes(error)[0]))
        except ValidationError:
            return Found(problem="The engine's answer could not be read.")
        except OSError as error:
            return Found(problem=f"The engine could not be started: {error.strerror or error}.")
        return found

    def _answer(self, job: _Job, wish: DataWish) -> Found | None:
        answer = self._ask(wish, job.page, lambda: job.is_cancelled)
        if answer is None:
            return None
        check = DataCheck.model_validate(answer)
        if check.error and not check.error.field.startswith((*_OF_THE_DATA, "model")):
            return Found(problem=sentence(check.error.as_error()))
        return Found(check)

    def _ask_engine(
        self, wish: DataWish, first_example: int, is_unwanted: Callable[[], bool]
    ) -> dict[str, Any] | None:
        return self._engine.ask(
            "check",
            *wish.arguments(first_example),
            unless=is_unwanted,
            read=read_check,
            environment={} if wish.may_download else _OFFLINE,
        )


def _is(job: _Job | None, key: tuple[str, int]) -> bool:
    return job is not None and job.key == key
