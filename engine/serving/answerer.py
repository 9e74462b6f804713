"""One thread that answers, one question after the other, and a short queue in front of it."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections import deque
from collections.abc import AsyncIterator

from engine.contract.errors import RequestError
from engine.generate import Reply, reply_to
from engine.model import LoadedModel
from engine.out_of_memory import is_out_of_memory
from engine.serving.wire import Question, StopText

WAITING = 8


class BusyError(Exception):
    """So many questions wait that no more are taken."""


class NoAnswerError(Exception):
    """The model failed; the message is fit for whoever asked."""


class Ticket:
    """One question on its way: pieces of text come out, then the reply, or an error.

    Args:
        question: What is asked.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[str | Reply | Exception] = asyncio.Queue()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Nobody wants it any more."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether nobody wants it any more."""
        return self._stopped.is_set()

    def put(self, event: str | Reply | Exception) -> None:
        """From the thread that answers."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self) -> AsyncIterator[str | Reply]:
        """Pieces of text, and the reply at last.

        Raises:
            RequestError: It cannot be answered.
            NoAnswerError: The model failed, or nobody wanted the answer before it began.
        """
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Reply):
                    return
        finally:
            self.stop()


class Answerer:
    """Answers with one model.

    Args:
        loaded: The model.
        waiting: How many questions may wait while one is answered.
    """

    def __init__(self, loaded: LoadedModel, waiting: int = WAITING) -> None:
        self._loaded = loaded
        self._most = waiting
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="answer", daemon=True).start()

    def ask(self, question: Question) -> Ticket:
        """Put a question in the queue. Those that nobody wants any more take no place in it.

        Raises:
            BusyError: The queue is full.
        """
        ticket = Ticket(question)
        with self._changed:
            for gone in [one for one in self._waiting if one.is_stopped]:
                self._waiting.remove(gone)
                gone.put(_unwanted())
            if len(self._waiting) >= self._most:
                raise BusyError
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    @property
    def num_waiting(self) -> int:
        """Questions in the queue that somebody still wants."""
        with self._changed:
            return sum(not ticket.is_stopped for ticket in self._waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                ticket = self._waiting.popleft()
            ticket.put(self._outcome(ticket))

    def _outcome(self, ticket: Ticket) -> Reply | Exception:
        if ticket.is_stopped:
            return _unwanted()
        try:
            return self._answer(ticket)
        except RequestError as error:
            return error
        except Exception as error:  # the next question is another
            if is_out_of_memory(error):
                return NoAnswerError("There is not enough memory to answer this.")
            traceback.print_exc(file=sys.stderr)  # may name files: not for whoever asked
            return NoAnswerError("The model failed; the server's own output says how.")

    def _answer(self, ticket: Ticket) -> Reply:
        stop_text = StopText(ticket.question.stops)

        def pass_on(piece: str) -> None:
            if text := stop_text.take(piece):
                ticket.put(text)

        reply = reply_to(
            self._loaded.model,
            self._loaded.tokenizer,
            ticket.question.messages,
            ticket.question.sampling,
            pass_on,
            lambda: stop_text.found or ticket.is_stopped,
        )
        if not stop_text.found and (rest := stop_text.rest()):
            ticket.put(rest)
        return reply


def _unwanted() -> NoAnswerError:
    return NoAnswerError("Nobody waited for the answer.")
