"""One thread that answers, one question after the other, and a short queue in front of it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator

from engine.contract.errors import RequestError
from engine.generate import Reply, reply_to
from engine.model import LoadedModel
from engine.out_of_memory import is_out_of_memory
from engine.serving.wire import Question, StopText

WAITING = 8


class BusyError(Exception):
    """So many questions wait that no more are taken."""


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
            RuntimeError: The model failed.
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
        self._tickets: queue.Queue[Ticket] = queue.Queue(maxsize=waiting)
        threading.Thread(target=self._work, name="answer", daemon=True).start()

    def ask(self, question: Question) -> Ticket:
        """Put a question in the queue.

        Raises:
            BusyError: The queue is full.
        """
        ticket = Ticket(question)
        try:
            self._tickets.put_nowait(ticket)
        except queue.Full:
            raise BusyError from None
        return ticket

    def _work(self) -> None:
        while True:
            ticket = self._tickets.get()
            if ticket.is_stopped:
                continue
            try:
                ticket.put(self._answer(ticket))
            except RequestError as error:
                ticket.put(error)
            except Exception as error:  # told to whoever asked; the next question is another
                lacks = is_out_of_memory(error)
                what = "there is not enough memory for this" if lacks else f"it failed: {error}"
                ticket.put(RuntimeError(f"The model did not answer: {what}."))

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
