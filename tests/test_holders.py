"""Who holds memory: the pure half on what a driver says, the other half on real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from engine.contract.launch import PROJECT
from engine.memory import holders as module
from engine.memory.devices import Device, this_computer
from engine.memory.holders import (
    OTHERS,
    GpuProcess,
    Holder,
    Kind,
    Program,
    by_process,
    by_program,
    holders,
    known_program,
    program_of,
)
from engine.memory.units import GIB, MIB

HELD = 300 * MIB
HOLD = (
    f"import sys; held = bytearray(b'x') * {HELD}; print(len(held), flush=True); sys.stdin.read()"
)
CARD = Device("cuda:0", "cuda", "a card", 8 * GIB, 3 * GIB)


def named(pid: int) -> Program:
    return {7: Program("run otto", "run"), 8: Program("the chat", "chat")}.get(
        pid, Program(f"process {pid}", "other")
    )


@contextmanager
def holding(*arguments: str) -> Iterator[int]:
    """A real process that holds memory until the end; its pid."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout
        assert child.stdout.readline() == f"{HELD}\n"
        yield child.pid
    finally:
        child.communicate()


def test_a_process_that_draws_and_computes_is_told_once() -> None:
    listed = [GpuProcess(7, 2 * GIB), GpuProcess(8, GIB), GpuProcess(7, 3 * GIB)]
    assert by_process(listed, CARD, named) == (
        Holder("run otto", 7, 3 * GIB, "run"),
        Holder("the chat", 8, GIB, "chat"),
        Holder(OTHERS, None, GIB, "other"),  # 5 GiB are held in all
    )


def test_what_the_driver_does_not_tell_is_unknown_and_not_nothing() -> None:
    listed = [GpuProcess(7, None), GpuProcess(9, 2 * GIB), GpuProcess(9, None)]
    assert by_process(listed, CARD, named) == (
        Holder("process 9", 9, 2 * GIB, "other"),
        Holder("run otto", 7, None, "run"),
        Holder(OTHERS, None, 3 * GIB, "other"),
    )


def test_a_silent_driver_leaves_what_is_held_in_all() -> None:
    assert by_process([], CARD, named) == (Holder(OTHERS, None, 5 * GIB, "other"),)
    empty = Device("cuda:0", "cuda", "a card", 8 * GIB, 8 * GIB)
    assert by_process([], empty, named) == ()


def test_a_driver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(device: Device) -> list[GpuProcess]:
        assert released.wait(60)
        return [GpuProcess(7, GIB)]

    monkeypatch.setattr(module, "_gpu_processes", hang)
    monkeypatch.setattr(module, "DRIVER_PATIENCE_S", 0.05)
    started = time.monotonic()
    try:
        assert holders(CARD) == (Holder(OTHERS, None, 5 * GIB, "other"),)
        assert time.monotonic() - started < 30
    finally:
        released.set()


@pytest.mark.skipif(sys.platform == "darwin", reason="Apple computers have no NVIDIA driver")
def test_without_a_driver_the_rest_is_still_told() -> None:
    gone = Device("cuda:77", "cuda", "a card that is not there", 8 * GIB, 3 * GIB)
    assert holders(gone)[-1].name == OTHERS


def test_programs_are_summed_and_the_small_ones_together() -> None:
    sizes = {"firefox": (4, 3), "code": (5,), "a": (3,), "b": (2,), "c": (1,), "d": (1,)}
    listed = [
        (100 * number + index, Program(name, "other"), size * GIB)
        for number, (name, each) in enumerate(sizes.items())
        for index, size in enumerate(each)
    ]
    assert by_program(listed) == (
        Holder("firefox", None, 7 * GIB, "other"),
        Holder("code", 100, 5 * GIB, "other"),
        Holder("a", 200, 3 * GIB, "other"),
        Holder("b", 300, 2 * GIB, "other"),
        Holder(OTHERS, None, 2 * GIB, "other"),
    )
    assert by_program([]) == ()


def test_a_program_that_holds_memory_is_found() -> None:
    with holding("engine.attempt", str(Path("runs") / "otto")) as pid:
        found = {one.name: one for one in holders(this_computer())}
        assert program_of(pid) == Program("run otto", "run")
        # What others hold may push it out of the list; its own process is looked at then.
        held = found["run otto"].held_bytes if "run otto" in found else _resident(pid)
        assert held is not None
        assert HELD <= held < HELD + 200 * MIB
        if "run otto" in found:
            assert (found["run otto"].pid, found["run otto"].kind) == (pid, "run")
        known = [one.held_bytes for one in found.values() if one.held_bytes is not None]
        assert sum(known) >= HELD
    assert "run otto" not in {one.name for one in holders(this_computer())}


def _resident(pid: int) -> int:
    return psutil.Process(pid).memory_info().rss


@pytest.mark.parametrize(
    ("arguments", "name", "kind"),
    [
        (["python", "-m", "engine.attempt", "/home/me/runs/a b"], "run a b", "run"),
        (["/usr/bin/python3.11", "-m", "engine.chat_worker"], "the chat", "chat"),
        (["pythonw.exe", "app.py", "--port", "7860"], "the app", "app"),
        ([r"C:\me\.venv\Scripts\python.exe", r"C:\me\app.py"], "the app", "app"),
    ],
)
def test_our_own_programs_have_names(arguments: list[str], name: str, kind: Kind) -> None:
    assert known_program(arguments) == Program(name, kind)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["vim", "engine.chat_worker"],
        ["python", "-m", "engine"],
        ["python", "-m", "http.server"],
    ],
)
def test_other_programs_are_not_ours(arguments: list[str]) -> None:
    assert known_program(arguments) is None


def test_the_chat_worker_is_known_by_its_real_command_line() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "engine.chat_worker"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60  # a process that was just started has no command line
        while program_of(worker.pid) != Program("the chat", "chat"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        worker.communicate(timeout=60)
    assert program_of(worker.pid) == Program(f"process {worker.pid}", "other")
