"""Which process owns a run, in a way that a reused pid cannot fool."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

_CLOCK_TOLERANCE_S = 2.0


@dataclass(frozen=True)
class Identity:
    """One process on one boot of one machine.

    `started` is exact clock ticks since boot on Linux, elsewhere seconds since the epoch.
    """

    pid: int
    started: float
    boot_id: str
    host: str

    def as_json(self) -> dict[str, Any]:
        """What `owner.json` holds of it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Identity | None:
        """None if a field is missing or of the wrong type."""
        try:
            return cls(
                int(value["pid"]),
                float(value["started"]),
                str(value["boot_id"]),
                str(value["host"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None


def current_identity() -> Identity:
    """The identity of the calling process."""
    identity = identity_of(os.getpid())
    assert identity is not None, "this process is alive"
    return identity


def identity_of(pid: int) -> Identity | None:
    """The identity of a process now; None if it is gone or a zombie."""
    started = _started(pid)
    if started is None:
        return None
    return Identity(pid, started, _boot_id(), socket.gethostname())


def is_alive(identity: Identity) -> bool:
    """True only if that very process runs now, here, and is no zombie."""
    if identity.pid <= 1 or identity.host != socket.gethostname():
        return False
    if identity.boot_id != _boot_id():
        return False
    started = _started(identity.pid)
    if started is None:
        return False
    tolerance = 0.0 if sys.platform == "linux" else _CLOCK_TOLERANCE_S
    return abs(started - identity.started) <= tolerance


def _started(pid: int) -> float | None:
    if sys.platform == "linux":
        return _started_ticks(pid)
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _started_ticks(pid: int) -> float | None:
    """Field 22 of /proc/PID/stat; unlike psutil's time it does not move with the clock."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command's name may hold spaces and brackets: fields count from the last bracket.
    fields = stat[stat.rfind(")") + 2 :].split()
    state, started = fields[0], fields[19]
    return None if state in "ZX" else float(started)


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
