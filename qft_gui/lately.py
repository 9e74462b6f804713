"""An answer that may be some seconds old, so that nobody who asks has to wait for a new one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Lately(Generic[Question, Answer]):
    """Keeps the newest answer, and asks again in the background once it is old.

    Args:
        ask: Takes its time. It raises nothing.
        key: Questions with the same key have the same answer.
        seconds: After which an answer is old.
    """

    def __init__(
        self,
        ask: Callable[[Question], Answer],
        key: Callable[[Question], object],
        seconds: float,
    ) -> None:
        self._ask = ask
        self._key = key
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: tuple[object, Answer, float] | None = None
        self._is_asking = False

    def get(self, question: Question) -> Answer | None:
        """The newest answer to a question; None until there is one."""
        with self._lock:
            known = self._known
            is_same = known is not None and known[0] == self._key(question)
            is_old = known is None or time.monotonic() - known[2] > self._seconds
            if (is_old or not is_same) and not self._is_asking:
                self._is_asking = True
                threading.Thread(
                    target=self._work, args=(question,), name="ask-lately", daemon=True
                ).start()
            return known[1] if known is not None and is_same else None

    def _work(self, question: Question) -> None:
        try:
            answer = self._ask(question)
            with self._lock:
                self._known = (self._key(question), answer, time.monotonic())
        finally:
            with self._lock:
                self._is_asking = False
