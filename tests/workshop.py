"""Real engines on a tiny model: starting them, waiting for them, ending what is left of them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.contract.events import Event, EventReader
from engine.contract.history import RunHistory
from engine.contract.identity import Identity, is_alive
from engine.contract.launch import PROJECT, engine_environment, launch
from engine.contract.run_dir import RunDir, list_runs
from engine.contract.spec_file import validate_spec
from engine.contract.status import TERMINAL, RunStatus, derive_status, read_status
from engine.request import create_checked_run
from tests.tiny import chat_rows, tiny_model_folder, write_jsonl

DEADLINE_S = 90
STEPS = 300


def wait_until(condition: Callable[[], Any]) -> None:
    """Until it is true, or fail."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def events_of(run: RunDir) -> list[Event]:
    """All events, of all attempts."""
    return EventReader(run.events_path).read()


def history_of(run: RunDir) -> RunHistory:
    """All events in order."""
    history = RunHistory()
    history.add(events_of(run))
    return history


def wait_for_step(run: RunDir, step: int, attempt: int = 1) -> None:
    """Until an attempt has done a step; fails if it ends before that."""

    reader, history = EventReader(run.events_path), RunHistory()

    def reached() -> bool:
        assert derive_status(run) not in TERMINAL, run.log_path.read_text(encoding="utf-8")
        history.add(reader.read())
        return history.attempt == attempt and history.last_step >= step

    wait_until(reached)


def ended(run: RunDir) -> RunStatus:
    """The status that a run ends with."""
    wait_until(lambda: derive_status(run) in TERMINAL)
    return read_status(run)


def checkpoints_of(run: RunDir) -> list[str]:
    """What lies in the folder of checkpoints."""
    return sorted(path.name for path in run.checkpoints.iterdir())


def signal_engine(run: RunDir, number: int) -> None:
    """Send a signal to the engine that owns a run."""
    identity = Identity.from_json(run.owner or {})
    assert identity is not None
    assert is_alive(identity)
    os.kill(identity.pid, number)


def engine_process(run: RunDir) -> subprocess.Popen[str]:
    """One more engine for a run, as a child whose exit code can be seen."""
    return subprocess.Popen(
        [sys.executable, "-m", "engine.attempt", str(run.path)],
        cwd=PROJECT,
        env=engine_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def tree(folder: Path) -> dict[str, str]:
    """Every file with the hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass
class Workshop:
    """A tiny model, its data and a folder for runs."""

    folder: Path

    def __post_init__(self) -> None:
        tiny_model_folder(self.folder / "model")
        write_jsonl(self.folder / "chats.jsonl", chat_rows(24))

    @property
    def runs(self) -> Path:
        """All runs of this workshop."""
        return self.folder / "runs"

    def run_dir(self, name: str) -> RunDir:
        """A run by its name."""
        return RunDir(self.runs / name)

    def document(self, **train: Any) -> dict[str, Any]:
        """A spec that takes a few seconds."""
        defaults = {"steps": STEPS, "batch_size": 2, "sequence_length": 64, "device": "cpu"}
        return {
            "model": {"source": str(self.folder / "model")},
            "data": {"source": str(self.folder / "chats.jsonl")},
            "method": {"kind": "full"},
            "train": {**defaults, "checkpoint_every": 10, "eval_every": 10_000, **train},
        }

    def command(self, name: str, **train: Any) -> list[str]:
        """`engine run` for a run of that name."""
        spec = self.folder / f"{name}.json"
        spec.write_text(json.dumps(self.document(**train)), encoding="utf-8")
        runs = ["--runs", str(self.runs), "--name", name]
        return [sys.executable, "-m", "engine", "run", str(spec), *runs]

    def start(self, name: str, **train: Any) -> subprocess.Popen[str]:
        """`engine run` in a group of its own, as a terminal would start it."""
        return subprocess.Popen(
            self.command(name, **train),
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def create(self, name: str, data: Path | None = None, **train: Any) -> RunDir:
        """A run that nobody has launched yet."""
        document = self.document(**train)
        if data:
            document["data"]["source"] = str(data)
        return create_checked_run(validate_spec(document), self.runs, name)

    def launch(self, name: str, **train: Any) -> RunDir:
        """A run with a detached engine."""
        run = self.create(name, **train)
        launch(run)
        return run

    def close(self) -> None:
        """End every engine that still works."""
        for run in list_runs(self.runs):
            identity = Identity.from_json(run.owner or run.launch or {})
            if identity is None or identity.pid == os.getpid() or not is_alive(identity):
                continue
            os.kill(identity.pid, signal.SIGKILL)


@contextmanager
def open_workshop(folder: Path) -> Iterator[Workshop]:
    """A workshop whose engines keep to one thread, and end with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        workshop = Workshop(folder)
        try:
            yield workshop
        finally:
            workshop.close()
