"""However a run is stopped or fails to start, it ends in one state that says why."""

from __future__ import annotations

import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine import attempt
from engine.commands.parser import main
from engine.contract.launch import launch
from engine.contract.run_dir import RunDir
from engine.contract.status import read_status
from tests.tiny import chat_rows, write_jsonl
from tests.workshop import (
    DEADLINE_S,
    Workshop,
    checkpoints_of,
    ended,
    history_of,
    open_workshop,
    tree,
    wait_for_step,
    wait_until,
)

ENDLESS = 1_000_000


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with open_workshop(tmp_path_factory.mktemp("workshop")) as workshop:
        yield workshop


@dataclass
class Together:
    """Engines that load at the same time, each for a test of its own."""

    kept: subprocess.Popen[str]
    dropped: RunDir
    early: subprocess.Popen[str]
    doomed: RunDir


@pytest.fixture(scope="module")
def together(workshop: Workshop) -> Iterator[Together]:
    kept = workshop.start("kept", steps=ENDLESS)
    dropped = workshop.launch("dropped", steps=ENDLESS)
    early = workshop.start("early", steps=ENDLESS)
    data = write_jsonl(workshop.folder / "doomed.jsonl", chat_rows(9))
    doomed = workshop.create("doomed", data)
    data.unlink()
    launch(doomed)
    yield Together(kept, dropped, early, doomed)
    for process in (kept, early):
        process.kill()
        process.communicate()


def test_a_second_ctrl_c_leaves_the_engine_to_stop_by_itself(
    workshop: Workshop, together: Together
) -> None:
    run = workshop.run_dir("early")
    wait_until(lambda: run.launch is not None)
    together.early.send_signal(signal.SIGINT)
    wait_until(lambda: run.stop_request() is not None)
    together.early.send_signal(signal.SIGINT)
    out, err = together.early.communicate(timeout=DEADLINE_S)
    assert together.early.returncode == 3
    assert out == f"{run.path}\n"
    assert "Traceback" not in err
    # It was stopped before its first step, which is a stop like any other.
    status = ended(run)
    assert (status.status, status.step, status.error) == ("stopped", 0, None)
    assert history_of(run).steps == {}
    assert checkpoints_of(run) == []
    assert run.result
    assert run.result["steps_done"] == 0


def test_ctrl_c_stops_after_the_step_and_keeps_it(workshop: Workshop, together: Together) -> None:
    run = workshop.run_dir("kept")
    wait_until(run.spec_path.is_file)
    wait_for_step(run, 3)
    together.kept.send_signal(signal.SIGINT)
    out, err = together.kept.communicate(timeout=DEADLINE_S)
    status = ended(run)
    assert together.kept.returncode == 3
    assert out.splitlines()[-1] == str(run.path)
    assert "Stopping after this step" in err
    assert f"stopped: {status.step} steps" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert (status.status, status.error) == ("stopped", None)
    assert checkpoints_of(run)[-1] == f"step-{status.step:06d}"
    assert (run.export / "model.safetensors").is_file()


def test_a_discarded_run_keeps_no_checkpoint_and_no_result(
    together: Together, capsys: pytest.CaptureFixture[str]
) -> None:
    run = together.dropped
    wait_for_step(run, 12)
    assert checkpoints_of(run)
    capsys.readouterr()
    assert main(["resume", str(run.path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(("run: dropped is running, so", "run: dropped is saving, so"))
    assert main(["stop", "--discard", str(run.path)]) == 0
    status = ended(run)
    assert (status.status, status.error) == ("stopped", None)
    assert status.step >= 12
    assert checkpoints_of(run) == []
    assert not run.export.exists()


def test_data_that_vanished_after_the_check_is_a_typed_error(
    together: Together, capsys: pytest.CaptureFixture[str]
) -> None:
    run = together.doomed
    status = ended(run)
    assert status.status == "failed"
    assert status.error
    assert (status.error["class"], status.error["field"]) == ("bad_request", "data.source")
    assert "there is no file" in status.error["message"]
    assert main(["status", str(run.path)]) == 0
    assert status.error["message"] in capsys.readouterr().out


@pytest.fixture
def signals() -> Iterator[None]:
    """An engine in this process listens to signals only as long as the test lasts."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_a_disk_that_is_full_when_it_stops_still_ends_in_a_result(workshop: Workshop) -> None:
    run = workshop.create("full", steps=ENDLESS, checkpoint_every=ENDLESS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def stop_on_a_full_disk() -> None:
        wait_for_step(run, 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
        run.request_stop()

    thread = threading.Thread(target=stop_on_a_full_disk)
    thread.start()
    try:
        assert attempt.main(str(run.path)) == 1
    finally:
        thread.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    status = ended(run)
    assert status.status == "failed"
    assert status.error
    assert status.error["class"] == "OSError"
    assert "File too large" in status.error["message"]
    assert checkpoints_of(run) == []
    assert not run.export.exists()
    *_, notice = history_of(run).notices
    assert "could not be saved: File too large" in notice["message"]
    before = tree(run.path)
    assert attempt.main(str(run.path)) == 2
    assert tree(run.path) == before


@pytest.fixture
def broken_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that are started now find an installation that does not load."""
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch is not there')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("broken_torch")
def test_an_engine_that_cannot_even_load_fails_with_its_last_words(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workshop.launch("unloadable")
    status = ended(run)
    assert (status.status, status.step) == ("failed", 0)
    assert status.error
    assert status.error["class"] == "start_failed"
    assert status.error["message"].endswith("ImportError: libtorch is not there")
    assert run.log_path.read_text(encoding="utf-8").startswith("Traceback")
    assert main(["list", "--runs", str(workshop.runs)]) == 0
    assert "unloadable  failed  step 0 of ?" in capsys.readouterr().out


@pytest.mark.usefixtures("broken_torch")
def test_a_run_whose_launcher_died_before_the_launch_can_still_be_started(
    workshop: Workshop,
) -> None:
    run = workshop.create("orphan")
    assert read_status(run).status == "queued"
    assert main(["resume", str(run.path)]) == 0
    assert ended(run).status == "failed"
    assert (run.attempt(), (run.launch or {})["attempt"]) == (2, 2)
