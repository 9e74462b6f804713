"""Who holds memory now: by process on a GPU, by program in main memory. Unknown is None, never 0.

On a GPU the driver tells, through NVML, within a second or not at all: its calls run in a thread
that is left behind where a driver hangs.
"""

# NVML ships without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import psutil
import pynvml

from engine.memory.devices import Device, visible_indices
from engine.memory.units import MIB

Kind = Literal["run", "chat", "app", "other"]
OTHERS = "other programs"
DRIVER_PATIENCE_S = 1.0
_SHOWN = 4
_WORTH_A_NAME = 64 * MIB  # of memory whose holder the driver does not tell
_PYTHON = ("python", "pypy")


@dataclass(frozen=True)
class Holder:
    """One program that holds memory.

    Attributes:
        name: For people.
        pid: Of its process; None for several together.
        held_bytes: None where nobody tells.
        kind: What it is to us.
    """

    name: str
    pid: int | None
    held_bytes: int | None
    kind: Kind


class Program(NamedTuple):
    """What a process is, as people know it."""

    name: str
    kind: Kind


class GpuProcess(NamedTuple):
    """One process as NVML lists it; its bytes are None where the driver keeps them to itself."""

    pid: int
    held_bytes: int | None


def holders(device: Device) -> tuple[Holder, ...]:
    """Who holds memory of a device, the largest first; what is left over comes last.

    Takes some 20 milliseconds on a CPU; a page keeps the answer for some seconds.
    """
    if device.kind == "cpu":
        return by_program(_processes_in_memory())
    processes = _in_time(lambda: _gpu_processes(device)) or []
    return by_process(processes, device, program_of)


def held_by(process: int, device: Device) -> int:
    """Bytes that one process holds of a device; 0 where it is gone, or nobody tells."""
    if device.kind == "cpu":
        with suppress(psutil.Error):
            return psutil.Process(process).memory_info().rss
        return 0
    return sum(one.held_bytes or 0 for one in holders(device) if one.pid == process)


def by_process(
    processes: Iterable[GpuProcess], device: Device, name: Callable[[int], Program]
) -> tuple[Holder, ...]:
    """Of a GPU: each process once, and what is neither free nor any of theirs.

    Args:
        processes: As NVML lists them; one that computes and draws is listed twice.
        device: Whose free memory tells how much is held in all.
        name: What a process is.
    """
    held: dict[int, int | None] = {}
    for pid, size in processes:
        known = [other for other in (held.get(pid), size) if other is not None]
        held[pid] = max(known, default=None)
    found = [Holder(*_named(name(pid), pid, size)) for pid, size in held.items()]
    rest = device.total_bytes - device.free_bytes - sum(size or 0 for size in held.values())
    found.sort(key=lambda holder: -(holder.held_bytes or 0))
    if rest >= _WORTH_A_NAME:
        found.append(Holder(OTHERS, None, rest, "other"))
    return tuple(found)


def _named(
    program: Program, pid: int | None, size: int | None
) -> tuple[str, int | None, int | None, Kind]:
    return program.name, pid, size, program.kind


def by_program(processes: Iterable[tuple[int, Program, int]]) -> tuple[Holder, ...]:
    """Of main memory: the largest programs with all their processes, and the rest together.

    Args:
        processes: Pid, program and resident bytes; memory that processes share counts for each.
    """
    pids: defaultdict[Program, list[int]] = defaultdict(list)
    held: defaultdict[Program, int] = defaultdict(int)
    for pid, program, size in processes:
        pids[program].append(pid)
        held[program] += size
    order = sorted(held, key=lambda program: -held[program])
    found = [
        Holder(*_named(one, pids[one][0] if len(pids[one]) == 1 else None, held[one]))
        for one in order[:_SHOWN]
    ]
    rest = sum(held[program] for program in order[_SHOWN:])
    return (*found, Holder(OTHERS, None, rest, "other")) if rest else tuple(found)


def known_program(arguments: Sequence[str]) -> Program | None:
    """One of ours, told by its command line; None for any other.

    >>> known_program(["python", "-m", "engine.attempt", "/home/me/runs/otto"])
    Program(name='run otto', kind='run')
    >>> known_program(["python3", "app.py"]).name, known_program(["vim", "app.py"])
    ('the app', None)
    """
    words = list(arguments)
    if not words or not _file_name(words[0]).lower().startswith(_PYTHON):
        return None
    if "engine.attempt" in words[:-1]:
        return Program(f"run {_file_name(words[-1])}", "run")
    if "engine.chat_worker" in words:
        return Program("the chat", "chat")
    if any(_file_name(word) == "app.py" for word in words[1:]):
        return Program("the app", "app")
    return None


def _file_name(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def program_of(pid: int) -> Program:
    """What a process is; one that is gone, or that belongs to another container, has no name."""
    try:
        return _program(psutil.Process(pid))
    except psutil.Error:
        return Program(f"process {pid}", "other")


def _program(process: psutil.Process) -> Program:
    name = process.name()
    if name.lower().startswith(_PYTHON):
        with suppress(psutil.Error):
            ours = known_program(process.cmdline())
            if ours:
                return ours
    if process.pid == os.getpid():
        return Program("this program", "app")
    return Program(name.removesuffix(".exe"), "other")


def _processes_in_memory() -> list[tuple[int, Program, int]]:
    """Pid, program and resident bytes of all processes that we may look at."""
    found: list[tuple[int, Program, int]] = []
    for process in psutil.process_iter():
        # One that ended meanwhile, or that belongs to someone else.
        with suppress(psutil.Error), process.oneshot():
            size = process.memory_info().rss
            if size:
                found.append((process.pid, _program(process), size))
    return found


def _gpu_processes(device: Device) -> list[GpuProcess]:
    """All that compute or draw on a GPU."""
    pynvml.nvmlInit()
    every = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    names = [[str(i), _text(pynvml.nvmlDeviceGetUUID(h))] for i, h in enumerate(every)]
    visible = visible_indices(os.environ.get("CUDA_VISIBLE_DEVICES"), names)
    _, _, ordinal = device.id.partition(":")
    handle = every[visible[int(ordinal or 0)]]
    asked: list[Callable[[Any], list[Any]]] = [
        pynvml.nvmlDeviceGetComputeRunningProcesses,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses,
    ]
    listed: list[Any] = []
    for list_of in asked:
        with suppress(pynvml.NVMLError):  # a card without a display may not know the second
            listed.extend(list_of(handle))
    return [GpuProcess(int(one.pid), one.usedGpuMemory) for one in listed]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _in_time(ask: Callable[[], list[GpuProcess]]) -> list[GpuProcess] | None:
    """The driver's answer; None if it has none, or hangs."""
    answers: list[list[GpuProcess]] = []

    def work() -> None:
        with suppress(pynvml.NVMLError, IndexError):
            answers.append(ask())

    thread = threading.Thread(target=work, name="ask-nvml", daemon=True)
    thread.start()
    thread.join(DRIVER_PATIENCE_S)
    return answers[0] if answers else None
