"""The event log: one JSON object per line, appended by the engine, read by anyone."""

from __future__ import annotations

import json
import math
import os
import stat
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from engine.contract.durable import as_object

EventKind = Literal[
    "phase", "memory", "step", "vram", "eval", "sample", "checkpoint", "notice", "gap"
]
Event = dict[str, Any]
_READ_CHUNK = 1 << 20
_LONGEST_LINE = 1 << 24
_O_BINARY = getattr(os, "O_BINARY", 0)
_O_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a pipe in the log's place must not hold us up


class EventWriter:
    """Appends events with one write call each, so that a crash tears at most the last line.

    Args:
        path: The log; made if missing.
        attempt: Which attempt of the run writes.
        listen: Called with every event, in the writing thread.
    """

    def __init__(
        self, path: Path, attempt: int, listen: Callable[[Event], None] | None = None
    ) -> None:
        self._attempt = attempt
        self._listen = listen
        self._lock = threading.Lock()
        self._lost = 0
        self._seq = 0
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _O_BINARY
        self._descriptor = os.open(path, flags, 0o600)
        self._close_torn_line()

    def emit(self, kind: EventKind, **fields: Any) -> None:
        """Append one event. A full disk loses events, never the run: see `gap`."""
        with self._lock:
            if self._lost and self._write(self._event("gap", {"lost": self._lost})):
                self._lost = 0
            event = self._event(kind, fields)
            if not self._write(event):
                self._lost += 1
        if self._listen:
            self._listen(event)

    def close(self) -> None:
        """Close the log."""
        os.close(self._descriptor)

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _event(self, kind: str, fields: dict[str, Any]) -> Event:
        self._seq += 1
        return {
            "seq": self._seq,
            "attempt": self._attempt,
            "time": round(time.time(), 3),
            "uptime": round(time.monotonic(), 3),
            "kind": kind,
            **{key: _json_ready(value) for key, value in fields.items()},
        }

    def _write(self, event: Event) -> bool:
        line = encode(event)
        try:
            size = os.fstat(self._descriptor).st_size
            written = os.write(self._descriptor, line)
            if written == len(line):
                return True
            os.ftruncate(self._descriptor, size)
        except OSError:
            pass  # counted by the caller and told in the next `gap` event
        return False

    def _close_torn_line(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            return
        os.lseek(self._descriptor, size - 1, os.SEEK_SET)
        if os.read(self._descriptor, 1) != b"\n":
            os.write(self._descriptor, b"\n")


def encode(event: Event) -> bytes:
    """One line with its checksum: CRC32 of everything before `,"crc"`."""
    body = json.dumps(event, ensure_ascii=True, allow_nan=False, separators=(",", ":"))[:-1]
    return f'{body},"crc":{zlib.crc32(body.encode())}}}\n'.encode()


def decode(line: bytes) -> Event | None:
    """The event in a line, or None if it is torn or altered."""
    body, mark, tail = line.rpartition(b',"crc":')
    if not mark:
        return None
    try:
        if int(tail.rstrip(b"}\r")) != zlib.crc32(body):
            return None
        event = as_object(json.loads(body + b"}"))
    except (ValueError, RecursionError):
        return None
    return event if event is not None and isinstance(event.get("kind"), str) else None


def _json_ready(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null, inside lists and objects too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        entries = cast("dict[object, Any]", value).items()
        return {str(key): _json_ready(entry) for key, entry in entries}
    if isinstance(value, list | tuple):
        return [_json_ready(entry) for entry in cast("list[Any]", value)]
    return value


@dataclass
class EventReader:
    """Reads what was appended since the last call, by byte offset.

    A torn last line waits for its end; bad lines are skipped and counted in `bad_lines`.
    """

    path: Path
    offset: int = 0
    bad_lines: int = 0
    _inode: int = 0

    def read(self) -> list[Event]:
        """All whole new events; empty if there is no log yet."""
        events: list[Event] = []
        try:
            descriptor = os.open(self.path, os.O_RDONLY | _O_BINARY | _O_NONBLOCK)
        except FileNotFoundError:
            # The next log is read anew: a system may give it the number of the one that is gone.
            self.offset = self.bad_lines = self._inode = 0
            return events
        except OSError:
            return events
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                self._restart_if_replaced(status)
                os.lseek(descriptor, self.offset, os.SEEK_SET)
                self._read_on(descriptor, events)
        finally:
            os.close(descriptor)
        return events

    def _read_on(self, descriptor: int, events: list[Event]) -> None:
        rest = b""
        while block := os.read(descriptor, _READ_CHUNK):
            whole, newline, tail = block.rpartition(b"\n")
            if not newline:
                rest += block
                if len(rest) > _LONGEST_LINE:
                    # No event is that long: forget it, and count what follows as a bad line.
                    self.offset += len(rest)
                    rest = b""
                continue
            lines = rest + whole
            rest = tail
            self.offset += len(lines) + 1
            for line in lines.split(b"\n"):
                event = decode(line)
                if event is not None:
                    events.append(event)
                elif line.strip():
                    self.bad_lines += 1

    def _restart_if_replaced(self, status: os.stat_result) -> None:
        if status.st_size < self.offset or (self._inode and status.st_ino != self._inode):
            self.offset = self.bad_lines = 0
        self._inode = status.st_ino
