"""A status is derived from the folder and the processes that live now; death cannot stale it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import ExitCode
from engine.contract.events import EventWriter
from engine.contract.history import RunHistory
from engine.contract.identity import Identity, current_identity, identity_of
from engine.contract.run_dir import RunDir, create_run
from engine.contract.spec_file import validate_spec
from engine.contract.status import (
    EXIT_CODES,
    RESUMABLE,
    TERMINAL,
    derive_status,
    read_status,
    seconds_left,
    summarize,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    groups = {"model": {"source": "a"}, "data": {"source": "b"}, "method": {"kind": "qft"}}
    return create_run(tmp_path, validate_spec(groups), "one")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A live process that stands for an engine."""
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def own(run: RunDir, identity: Identity | None, **fields: Any) -> None:
    assert identity is not None
    run.write_owner({**identity.as_json(), "attempt": run.attempt(), **fields})


def tell(run: RunDir, phase: str, *steps: int) -> None:
    with EventWriter(run.events_path, run.attempt()) as events:
        events.emit("phase", phase=phase, steps=10)
        for step in steps:
            events.emit("step", step=step, loss_nats=2.0 / step, step_s=0.5)


def test_every_status_is_terminal_or_live_and_terminal_ones_have_exit_codes() -> None:
    assert set(EXIT_CODES) == TERMINAL
    assert set(TERMINAL - RESUMABLE) == {"finished"}
    assert {status: int(code) for status, code in EXIT_CODES.items()} == {
        "finished": 0,
        "failed": 1,
        "interrupted": 1,
        "stopped": 3,
        "out_of_memory": 4,
        "diverged": 5,
    }
    assert ExitCode.BAD_REQUEST == 2


@pytest.mark.parametrize(
    "change",
    [
        {"pid": None},
        {"pid": "x"},
        {"pid": float("inf")},
        {"started": []},
        {"started": float("nan")},
        {"host": "elsewhere"},
        {"boot_id": "before"},
        {"pid": 0},
        {"pid": 1},
    ],
    ids=str,
)
def test_an_owner_that_cannot_be_this_process_has_died(run: RunDir, change: dict[str, Any]) -> None:
    own(run, current_identity())
    tell(run, "training", 1, 2)
    assert read_status(run).status == "running"
    record = {**current_identity().as_json(), **change}
    (run.path / "owner.json").write_text(json.dumps(record), encoding="utf-8")
    status = read_status(run)
    assert (status.status, status.step, status.eta_s) == ("interrupted", 2, None)
    assert status.error
    assert status.error["class"] == "interrupted"


def test_from_queued_to_finished(run: RunDir, child: subprocess.Popen[bytes]) -> None:
    assert read_status(run).as_json() == {
        "run": "one",
        "status": "queued",
        "step": 0,
        "steps": None,
        "loss_nats": None,
        "eta_s": None,
        "error": None,
    }
    engine = identity_of(child.pid)
    assert engine is not None
    run.write_launch({**engine.as_json(), "attempt": 1})
    assert read_status(run).status == "starting"
    own(run, engine)
    assert read_status(run).status == "starting"
    for phase, status in (
        ("loading", "starting"),
        ("preparing", "starting"),
        ("training", "running"),
        ("evaluating", "running"),
        ("saving", "saving"),
        ("exporting", "saving"),
        ("done", "saving"),
    ):
        tell(run, phase)
        assert read_status(run).status == status
    tell(run, "training", 1, 2, 3, 4)
    assert read_status(run).as_json() == {
        "run": "one",
        "status": "running",
        "step": 4,
        "steps": 10,
        "loss_nats": 0.5,
        "eta_s": 3.0,
        "error": None,
    }
    run.request_stop()
    assert read_status(run).status == "stopping"
    child.kill()
    child.wait()
    assert read_status(run).status == "interrupted"
    run.write_result({"outcome": "finished", "error": None})
    finished = read_status(run)
    assert (finished.status, finished.eta_s, finished.error) == ("finished", None, None)
    run.request_stop(discard=True)
    assert read_status(run).status == "finished"


def test_an_engine_that_dies_before_the_claim_failed_with_its_last_words(run: RunDir) -> None:
    own_words = "Traceback ...\nImportError: libtorch.so: cannot open\n"
    run.log_path.write_text("x" * 9000 + own_words, encoding="utf-8")
    for record in ({"attempt": 1, "pid": 4}, {**current_identity().as_json(), "started": 0}):
        run.write_launch(record)
        status = read_status(run)
        assert status.status == "failed"
        assert status.error == {
            "class": "start_failed",
            "message": "The engine ended before it could start. "
            "Its last words: ImportError: libtorch.so: cannot open",
            "advice": "engine.log in the run folder has the details.",
        }
    for words in (b"", b"\xff\xfe\x00", None):
        if words is None:
            run.log_path.unlink()
        else:
            run.log_path.write_bytes(words)
        assert read_status(run).status == "failed"


@pytest.mark.parametrize("spec", [b"{", b"{}", b'{"method": {"kind": "hologram"}}', b"[]"])
def test_a_run_that_no_engine_can_read_does_not_wait_for_ever(run: RunDir, spec: bytes) -> None:
    run.spec_path.write_bytes(spec)
    status = read_status(run)
    assert status.status == "failed"
    assert status.error
    assert status.error["message"] == "spec.json cannot be read by this version."
    own(run, current_identity())
    assert read_status(run).status == "starting"


def test_unreadable_records_never_say_running(run: RunDir) -> None:
    tell(run, "training", 1)
    (run.path / "owner.json").write_bytes(b'{"pid": ')
    assert read_status(run).status == "queued"
    own(run, replace(current_identity(), started=0))
    (run.path / "result.json").write_bytes(b'{"outcome": "fini')
    assert read_status(run).status == "interrupted"
    own(run, current_identity())
    assert read_status(run).status == "running"


@pytest.mark.parametrize("outcome", [None, "running", "queued", "hologram", 7, [], {"a": 1}])
def test_an_unknown_outcome_is_a_failure_with_a_reason(run: RunDir, outcome: Any) -> None:
    own(run, current_identity())
    run.write_result({"outcome": outcome})
    status = read_status(run)
    assert status.status == "failed"
    assert status.error
    assert set(status.error) == {"class", "message", "advice"}


@pytest.mark.parametrize("outcome", sorted(TERMINAL - {"finished", "stopped"}))
def test_the_errors_own_words_are_passed_on_whole(run: RunDir, outcome: str) -> None:
    run.write_result({"outcome": outcome, "error": {"class": "x", "message": "Why."}})
    status = read_status(run)
    assert status.status == outcome
    assert status.error == {"class": "x", "message": "Why.", "advice": ""}


def test_a_terminal_status_has_all_events(run: RunDir) -> None:
    """The run ends between the look at the status and the look at the events."""
    own(run, current_identity())
    tell(run, "training", 1, 2)
    first, history = derive_status(run), RunHistory()
    run.write_result({"outcome": "failed", "error": {"class": "x"}})
    status = summarize(run, history, first)
    assert (first, status.status, status.error) == ("starting", "starting", None)
    assert read_status(run).status == "failed"
    assert read_status(run).step == 2


def test_the_phase_of_an_attempt_before_is_not_this_ones(
    run: RunDir, child: subprocess.Popen[bytes]
) -> None:
    own(run, replace(current_identity(), started=0))
    tell(run, "training", 1, 2)
    run.archive_attempt()
    assert read_status(run).status == "queued"
    engine = identity_of(child.pid)
    assert engine is not None
    run.write_launch({**engine.as_json(), "attempt": 2})
    assert read_status(run).status == "starting"
    own(run, engine)
    assert read_status(run).status == "starting"
    assert read_status(run).step == 2
    tell(run, "training", 3)
    assert read_status(run).status == "running"


@pytest.mark.parametrize("moved", range(4))
def test_a_resume_that_was_killed_midway_can_be_resumed(
    run: RunDir, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_launch({"pid": 0})
    run.write_owner({"pid": 0})
    run.write_result({"outcome": "stopped"})
    run.request_stop()
    rename, left = Path.rename, [moved]

    def killed(path: Path, target: Path) -> Path:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        run.archive_attempt()
    monkeypatch.undo()
    assert derive_status(run) == "stopped"
    assert run.archive_attempt() == 3
    assert (derive_status(run), run.stop_request()) == ("queued", None)


def test_time_left_is_the_median_recent_step_times_what_remains() -> None:
    history = RunHistory(num_steps=100)
    assert seconds_left(history) is None
    history.add(
        {"kind": "step", "step": step, "step_s": 60.0 if step < 11 else 2.0}
        for step in range(1, 31)
    )
    assert seconds_left(history) == 140.0
    history.num_steps = 10
    assert seconds_left(history) == 0.0
