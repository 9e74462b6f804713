"""Who is answered now: one at a time, in the order in which they came."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

ANOTHER_TAB = "Another tab is being answered; wait for it."


def _another_tab() -> str:
    return ANOTHER_TAB


@dataclass(eq=False)
class Asker:
    """One question on its way, from when it is asked to the end of its answer.

    Attributes:
        owner: The conversation or list that it belongs to.
        names: Those who are asked, as people call them.
        words: What others are told while it is answered.
        gives_way: Whether it is one of many of a list, which lets others in between them.
        is_stopped: Whether nobody wants the answer any more.
    """

    owner: object = None
    names: str = ""
    words: Callable[[], str] = _another_tab
    gives_way: bool = False
    is_stopped: bool = False


class Floor:
    """Lets one question through at a time. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holder: Asker | None = None
        self._num_ending = 0
        self._waiting: list[Asker] = []

    @property
    def holder(self) -> Asker | None:
        """Who is being answered."""
        return self._holder

    def take(self, asker: Asker, patience_s: float = 0.0) -> bool:
        """Whether it is this one's turn now, after waiting for it so long.

        Whoever waited keeps their place until they call `leave`.
        """
        with self._changed:
            if asker not in self._waiting:
                self._waiting.append(asker)
            self._changed.wait_for(lambda: asker.is_stopped or self._is_next(asker), patience_s)
            if asker.is_stopped or not self._is_next(asker):
                return False
            self._waiting.remove(asker)
            self._holder = asker
            return True

    def leave(self, asker: Asker) -> None:
        """This one is done, or waits no longer."""
        with self._changed:
            if asker in self._waiting:
                self._waiting.remove(asker)
            if self._holder is asker:
                self._holder = None
            self._changed.notify_all()

    def stop(self, asker: Asker, end: Callable[[], None]) -> None:
        """Note that the answer is wanted no more, and end it before anybody else has the turn.

        Args:
            asker: Whose answer.
            end: Called if it is being given.
        """
        with self._changed:
            asker.is_stopped = True
            self._changed.notify_all()
            if self._holder is not asker:
                return
            self._num_ending += 1
        try:
            end()  # outside the lock: it may wait for a process
        finally:
            with self._changed:
                self._num_ending -= 1
                self._changed.notify_all()

    def _is_next(self, asker: Asker) -> bool:
        is_free = self._holder is None and not self._num_ending
        return is_free and self._waiting[0] is asker
