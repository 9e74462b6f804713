"""The chat worker as the window sees it: a process that holds the models, and JSON lines on pipes.

Unlike a run it must not outlive the window, so it hangs on a pipe whose end is its end.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from qft_gui.chat_process import ChatError, ChatProcess, Event

Models = tuple[str | None, str | None]

WORKER = (sys.executable, "-m", "engine.chat_worker")
STOP_PATIENCE_S = 10.0  # a stop waits for the next token, and a long prompt for its first
MAX_REQUEST_BYTES = 4 * 1024**2  # the worker reads no longer line


class ChatClient:
    """The one chat of this window. Every method may be called from any thread."""

    def __init__(self, log: Path, *, command: Sequence[str] | None = None) -> None:
        """Nothing is started before the first `load`; the worker's complaints go to `log`."""
        self._log = log
        self._command = tuple(command or WORKER)
        self._numbers = itertools.count(1)
        # Guards what follows; notified when `_current` becomes None.
        self._changed = threading.Condition()
        self._worker: ChatProcess | None = None
        self._current: _Request | None = None
        self._loaded: Models | None = None
        self._comparison: dict[str, Any] | None = None

    @property
    def loaded(self) -> Models | None:
        """What answers now as `a` and as `b`; None if the worker holds nothing."""
        return self._loaded

    @property
    def busy(self) -> bool:
        """Whether models are being loaded or an answer is being written."""
        return self._current is not None

    @property
    def pid(self) -> int | None:
        """The worker's process; None while there is none."""
        worker = self._worker
        return None if worker is None else worker.pid

    def load(
        self,
        a: str | None,
        b: str | None,
        *,
        on_loading: Callable[[Event], None] = lambda event: None,
        **options: object,
    ) -> dict[str, Any]:
        """Have the worker hold these models; nothing happens if it does already.

        Args:
            a: A run, a model or a checkpoint, as `engine ask` takes it; None for the model that
                `b` was made from.
            b: Another; None for `a` alone.
            on_loading: Called before each model with `side`, `name`, `plan`, `num_bytes` and
                `expected_s`, in the thread that called this.
            **options: `runs`, the folder that names of runs are looked up in; `device`.

        Returns:
            What the worker says in `loaded`: `plan`, `device`, `sides`, `base_form`,
            `base_difference`, `proof`, `different`, `largest_difference` (nats), `notes`,
            `seconds`.

        Raises:
            ChatError: If the chat is busy, the models cannot be loaded or are not what was recorded
                of them, or the worker dies.
        """
        models = (a, b)
        with self._changed:
            if self._comparison and self._loaded == models and self._current is None:
                return dict(self._comparison)
        request = self._send("load", models, a=a, b=b, **options)
        while (event := request.next_event())["event"] == "loading":
            on_loading(_without_number(event))
        if event["event"] == "error":
            raise _error_in(event)
        return _comparison_in(event)

    def ask(
        self, messages: Mapping[Any, list[dict[str, str]]], **settings: object
    ) -> Generator[Event, None, None]:
        """The answer of each side in `messages`, while it is written.

        Closing the generator stops the answer. Nothing is asked before the first `next`.

        Args:
            messages: By side, `a` or `b`; the user speaks last.
            **settings: `system`, `seed`, `temperature`, `top_p`, `top_k`, `repetition_penalty`,
                `max_new_tokens`.

        Yields:
            `{"event": "text", "side", "text"}` at most ten times a second, and once per side
            `{"event": "done", "side", "num_tokens", "seconds", "first_token_s", "tokens_per_s",
            "stopped", "prompt_tokens", "dropped_turns"}`. Where a side has to be fetched first,
            `{"event": "loading", "side", "name", "num_bytes", "expected_s"}`, and once it is there
            `{"event": "fetched", "side"}`.

        Raises:
            ChatError: If the chat is busy, nothing is loaded, a side fails, or the worker dies.
        """
        return self._events("ask", dict(messages), settings)

    def prompts(
        self, messages: Mapping[Any, list[dict[str, str]]], **settings: object
    ) -> dict[str, dict[str, Any]]:
        """What each side would read: `text`, `num_tokens`, `dropped_turns` and `context` by side.

        Args:
            messages: As in `ask`.
            **settings: `system` and `max_new_tokens`.

        Raises:
            ChatError: As in `ask`.
        """
        return {event["side"]: event for event in self._events("prompt", dict(messages), settings)}

    def _events(
        self, operation: str, messages: object, settings: dict[str, object]
    ) -> Generator[Event, None, None]:
        request = self._send(operation, None, messages=messages, **settings)
        failure: ChatError | None = None
        try:
            while (event := request.next_event())["event"] != "end":
                if event["event"] == "error":
                    failure = _error_in(event)
                else:
                    yield _without_number(event)
        finally:
            self._stop(request)
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Cut the current answer short; its `ask` ends soon. No effect when there is none."""
        if request := self._current:
            self._stop(request)

    def close(self) -> None:
        """End the worker and free its memory within two seconds. A later `load` starts another.

        An answer that is being written ends with a `ChatError`.
        """
        if worker := self._worker:
            worker.close()
            self._worker_ended(worker)

    def _send(self, operation: str, models: Models | None, **content: object) -> _Request:
        """Make a request the current one, or raise; it stays so until the worker's last word."""
        request = _Request(next(self._numbers), models)
        line = _line({"id": request.number, "op": operation, **content})
        with self._changed:
            if self._current is not None and self._current.stopping:
                self._changed.wait_for(lambda: self._current is None, STOP_PATIENCE_S)
            if self._current is not None:
                raise ChatError("The chat is busy.", "Wait for its answer, or stop it.")
            if models is not None:
                self._loaded = self._comparison = None
                self._worker = self._worker or self._start()
            elif self._loaded is None or self._worker is None:
                raise ChatError("No model is loaded.", "Load one first.")
            worker, self._current = self._worker, request
        worker.send(line)
        return request

    def _start(self) -> ChatProcess:
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            return ChatProcess(self._command, self._log, self._deliver, self._worker_ended)
        except OSError as error:
            raise ChatError(f"The chat process did not start: {error.strerror}.") from error

    def _stop(self, request: _Request) -> None:
        with self._changed:
            worker = self._worker
            if worker is None or request is not self._current or request.stopping or request.models:
                return
            request.stopping = True
        worker.send(_line({"id": next(self._numbers), "op": "stop", "target": request.number}))

    def _deliver(self, event: Event) -> None:
        """Called by the reader thread. What a finished request still gets is dropped here."""
        with self._changed:
            request = self._current
            if request is None or event.get("id") != request.number or "event" not in event:
                return
            if event["event"] == "loaded":
                self._loaded, self._comparison = request.models, _comparison_in(event)
            elif event["event"] == "error" and event.get("loaded") is not True:
                self._loaded = self._comparison = None  # the next `load` brings them back
            if event["event"] == "end" or (request.models and event["event"] != "loading"):
                self._current = None
                self._changed.notify_all()
        request.events.put(event)

    def _worker_ended(self, worker: ChatProcess) -> None:
        with self._changed:
            if self._worker is not worker:
                return
            self._worker = self._loaded = self._comparison = None
            request, self._current = self._current, None
            self._changed.notify_all()
        if request is not None:
            request.events.put(worker.why_it_ended())


class _Request:
    """A question, or the models to load, and what came back for it so far."""

    def __init__(self, number: int, models: Models | None) -> None:
        self.number = number
        self.models = models
        self.stopping = False
        self.events: SimpleQueue[Event | ChatError] = SimpleQueue()

    def next_event(self) -> Event:
        event = self.events.get()
        if isinstance(event, ChatError):
            raise event
        return event


def _line(request: Event) -> bytes:
    line = json.dumps(request).encode() + b"\n"
    if len(line) > MAX_REQUEST_BYTES:
        raise ChatError("The conversation is too long to send.", "Clear it and start again.")
    return line


def _without_number(event: Event) -> Event:
    return {key: value for key, value in event.items() if key != "id"}


def _error_in(event: Event) -> ChatError:
    return ChatError(event["message"], event["advice"], str(event.get("field") or ""))


def _comparison_in(event: Event) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in ("id", "event")}
