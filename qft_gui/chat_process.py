"""The process of the chat worker: lines on its pipes, and why it ended if it did."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from engine.contract.launch import PROJECT, engine_environment

Event = dict[str, Any]

END_PATIENCE_S = 0.2  # from end-of-file to the kill; a worker that loads may not read it
KILL_PATIENCE_S = 2.0  # a driver that hangs keeps a killed process
KILLED = -9


class ChatError(Exception):
    """Why there is no answer.

    Attributes:
        message: One plain sentence, as the engine begins one.
        advice: The way out; may be empty.
        field: The setting that is wrong; empty if none is.
    """

    def __init__(self, message: str, advice: str = "", field: str = "") -> None:
        super().__init__(f"{message} {advice}".strip())
        self.message = message
        self.advice = advice
        self.field = field


class ChatProcess:
    """The process. A thread of its own drains its output, whatever the callers do.

    Args:
        command: What is started.
        log: Where its complaints go.
        deliver: Called with every event, in that thread.
        ended: Called once when it has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        deliver: Callable[[Event], None],
        ended: Callable[[ChatProcess], None],
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

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

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
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_PATIENCE_S)
