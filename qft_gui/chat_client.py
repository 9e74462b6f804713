"""The chat worker as the window sees it: a process that holds the models, and JSON lines on pipes.

Unlike a run it must not outlive the window, so it hangs on a pipe whose end is its end.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Literal, cast

from engine.contract.launch import PROJECT, engine_environment

Models = tuple[str, str | None]
Event = dict[str, Any]

WORKER = (sys.executable, "-m", "engine.chat_worker")
END_PATIENCE_S = 1.0  # from end-of-file to the kill
STOP_PATIENCE_S = 10.0  # a stop waits for the next token, and a long prompt for its first
MAX_REQUEST_BYTES = 4 * 1024**2  # the worker reads no longer line
KILLED = -9


class ChatError(Exception):
    """Why there is no answer: `message`, one plain sentence, and `advice`, which may be empty."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(f"{message} {advice}".strip())
        self.message = message
        self.advice = advice


class ChatClient:
    """The one chat of this window. Every method may be called from any thread."""

    def __init__(self, log: Path, *, command: Sequence[str] | None = None) -> None:
        """Nothing is started before the first `load`; the worker's complaints go to `log`."""
        self._log = log
        self._command = tuple(command or WORKER)
        self._numbers = itertools.count(1)
        # Guards what follows; notified when `_current` becomes None.
        self._changed = threading.Condition()
        self._worker: _Worker | None = None
        self._current: _Request | None = None
        self._loaded: Models | None = None
        self._comparison: dict[str, Any] | None = None

    @property
    def loaded(self) -> Models | None:
        """The base and the tuned model that answer now; None if the worker holds none."""
        return self._loaded

    @property
    def busy(self) -> bool:
        """Whether models are being loaded or an answer is being written."""
        return self._current is not None

    def load(self, base: str, tuned: str | None) -> dict[str, Any]:
        """Have the worker hold these models; nothing happens if it does already.

        Returns:
            `different` and `largest_difference` (nats, on a fixed question) of the two models, and
            the `seconds` that loading took.

        Raises:
            ChatError: If the chat is busy, the models cannot be loaded, or the worker dies.
        """
        models = (base, tuned)
        with self._changed:
            if self._comparison and self._loaded == models and self._current is None:
                return dict(self._comparison)
        request = self._send("load", models, base=base, tuned=tuned)
        event = request.next_event()
        if event["event"] == "error":
            raise ChatError(event["message"], event["advice"])
        return _comparison_in(event)

    def ask(
        self,
        messages: dict[Literal["base", "tuned"], list[dict[str, str]]],
        *,
        seed: int,
        temperature: float,
        max_new_tokens: int,
        system: str = "",
    ) -> Generator[Event, None, None]:
        """The answer of each side in `messages`, while it is written.

        Closing the generator stops the answer. Nothing is asked before the first `next`.

        Yields:
            `{"event": "text", "side", "text"}` for every piece of text, and once per side
            `{"event": "done", "side", "num_tokens", "seconds", "first_token_s", "stopped"}`.

        Raises:
            ChatError: If the chat is busy, nothing is loaded, a side fails, or the worker dies.
        """
        sampling = {"seed": seed, "temperature": temperature, "max_new_tokens": max_new_tokens}
        request = self._send("ask", None, messages=messages, system=system, **sampling)
        failure: ChatError | None = None
        try:
            while (event := request.next_event())["event"] != "end":
                if event["event"] == "error":
                    failure = ChatError(event["message"], event["advice"])
                else:
                    yield {key: value for key, value in event.items() if key != "id"}
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

    def _start(self) -> _Worker:
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            return _Worker(self._command, self._log, self._deliver, self._worker_ended)
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
            elif event["event"] == "error":
                self._comparison = None  # the models may be gone: the next `load` has to look
            if event["event"] == "end" or request.models:
                self._current = None
                self._changed.notify_all()
        request.events.put(event)

    def _worker_ended(self, worker: _Worker) -> None:
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


class _Worker:
    """The process. A thread of its own drains its output, whatever the callers do."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        deliver: Callable[[Event], None],
        ended: Callable[[_Worker], None],
    ) -> None:
        with log.open("ab") as errors:
            self._log, self._log_start = log, errors.tell()
            self._process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env=engine_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Ctrl-C in the terminal is for the window, which then closes this process.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        self._input = cast(IO[bytes], self._process.stdin)
        self._output = cast(IO[bytes], self._process.stdout)
        self._deliver, self._ended = deliver, ended
        self._closed = False
        self._writing = threading.Lock()
        threading.Thread(target=self._read, name="chat-reader", daemon=True).start()

    def send(self, line: bytes) -> None:
        """Write to a worker that may be dead: then the reader tells whoever waits."""
        with self._writing, suppress(BrokenPipeError, ValueError):
            self._input.write(line)
            self._input.flush()

    def close(self) -> None:
        """End of input, and the kill if that is not enough."""
        self._closed = True
        # A writer that hangs on a full pipe holds the lock until the process is killed.
        if self._writing.acquire(timeout=END_PATIENCE_S / 4):
            self._end_input()
            self._writing.release()
        self._wait()

    def why_it_ended(self) -> ChatError:
        """One sentence for the person who waits, with the last line of the log."""
        if self._closed:
            return ChatError("The models were unloaded.", "Load them again to go on.")
        cause = f"The chat process ended unexpectedly, with code {self._process.returncode}."
        if self._process.returncode == KILLED:
            cause = "The system ended the chat process, most likely for lack of memory."
        log = self._log.read_bytes()[self._log_start :].decode(errors="replace")
        last_line = log.replace("\r", "\n").strip().rpartition("\n")[2]
        advice = "Load the models again; a smaller model needs less memory."
        return ChatError(f"{cause} Its last words: {last_line}" if last_line else cause, advice)

    def _read(self) -> None:
        with self._output:
            for line in self._output:
                try:
                    event = dict(json.loads(line))
                except (TypeError, ValueError):
                    with self._log.open("ab") as log:
                        log.write(b"not understood: " + line)
                else:
                    self._deliver(event)
        self._wait()
        with self._writing:
            self._end_input()
        self._ended(self)

    def _end_input(self) -> None:
        with suppress(BrokenPipeError):  # a line that it did not live to read
            self._input.close()

    def _wait(self) -> None:
        try:
            self._process.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _line(request: Event) -> bytes:
    line = json.dumps(request).encode() + b"\n"
    if len(line) > MAX_REQUEST_BYTES:
        raise ChatError("The conversation is too long to send.", "Clear it and start again.")
    return line


def _comparison_in(event: Event) -> dict[str, Any]:
    return {key: event[key] for key in ("different", "largest_difference", "seconds")}
