"""A resume that is refused, at once or later, leaves what the run has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import attempt
from engine.commands.parser import main
from engine.contract.errors import ExitCode
from engine.contract.run_dir import RunDir, create_run
from engine.contract.status import read_status
from tests.tiny import chat_rows, tiny_spec, write_jsonl
from tests.workshop import tree


@pytest.fixture
def stopped(tiny_folder: Callable[[str], Path], tmp_path: Path) -> RunDir:
    """A run that was stopped after some steps, with a result to chat with."""
    file = write_jsonl(tmp_path / "own.jsonl", chat_rows(6))
    run = create_run(tmp_path / "runs", tiny_spec(tiny_folder("llama"), file, "full"))
    run.write_owner({"attempt": 1})
    run.write_result({"outcome": "stopped", "attempt": 1, "steps_done": 3, "error": None})
    shutil.copytree(tiny_folder("llama"), run.export)
    assert read_status(run).status == "stopped"
    return run


def test_with_other_data_nothing_is_begun(
    stopped: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "own.jsonl", chat_rows(7))
    before = tree(stopped.path)
    assert main(["resume", str(stopped.path)]) == ExitCode.BAD_REQUEST
    assert "has changed since this run was made" in capsys.readouterr().err
    assert tree(stopped.path) == before


def test_an_engine_that_cannot_go_on_leaves_the_result(stopped: RunDir, tmp_path: Path) -> None:
    stopped.archive_attempt()
    (tmp_path / "own.jsonl").unlink()
    assert attempt.main(str(stopped.path)) == ExitCode.FAILED
    assert read_status(stopped).status == "failed"
    assert stopped.has_export
