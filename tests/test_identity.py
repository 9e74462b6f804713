"""A process is known by pid, start and boot: no other one is ever taken for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.contract.identity import Identity, current_identity, identity_of, is_alive

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A live process that stands for an engine."""
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def test_this_process_is_alive_until_any_part_of_its_identity_differs() -> None:
    mine = current_identity()
    assert is_alive(mine)
    assert Identity.from_json(json.loads(json.dumps(mine.as_json()))) == mine
    for other in (
        replace(mine, started=mine.started + 1),
        replace(mine, started=float("nan")),
        replace(mine, boot_id="another boot"),
        replace(mine, host="another-host"),
    ):
        assert not is_alive(other)


@pytest.mark.parametrize("pid", [0, 1, -1, 2**31, 10**300])
def test_pids_that_are_never_an_engine_are_dead(pid: int) -> None:
    one = identity_of(1)
    assert one is not None
    assert not is_alive(replace(one, pid=pid))


def test_a_reused_pid_is_another_process(child: subprocess.Popen[bytes]) -> None:
    engine = identity_of(child.pid)
    assert engine is not None
    assert is_alive(engine)
    assert not is_alive(replace(engine, pid=os.getpid()))
    assert not is_alive(replace(current_identity(), pid=child.pid))


def test_a_zombie_is_dead(child: subprocess.Popen[bytes]) -> None:
    engine = identity_of(child.pid)
    assert engine is not None
    child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while is_alive(engine):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, 0)  # nobody has waited for it: the system still knows it
    assert identity_of(child.pid) is None


def test_a_process_with_brackets_in_its_name_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to(sys.executable)
    process = subprocess.Popen(SLEEP, executable=program)
    try:
        engine = identity_of(process.pid)
        assert engine is not None
        assert engine.started >= current_identity().started
        assert is_alive(engine)
    finally:
        process.kill()
        process.wait()
