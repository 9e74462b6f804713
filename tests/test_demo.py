"""The demo ends with the first method that did not finish, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import demo
from engine.contract.errors import ExitCode
from engine.contract.run_dir import RunDir, list_runs


def demo_of(runs: Path, *options: str) -> int:
    return demo.main(["--runs", str(runs), *options])


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("stopped", ExitCode.STOPPED),
        ("failed", ExitCode.FAILED),
        ("out_of_memory", ExitCode.OUT_OF_MEMORY),
        (None, ExitCode.FAILED),
    ],
)
def test_a_run_that_did_not_finish_is_the_last(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: str | None,
    code: ExitCode,
) -> None:
    def end(run: RunDir) -> ExitCode:
        run.write_owner({"pid": 0})
        if outcome:
            run.write_result({"outcome": outcome})
        return code

    monkeypatch.setattr(demo, "launch_and_follow", end)
    assert demo_of(tmp_path) == code
    (run,) = list_runs(tmp_path)
    out = capsys.readouterr().out
    assert out.startswith(f"The demo ends here: qft is {outcome or 'interrupted'}.\n")
    assert str(run.path) in out


def test_a_second_ctrl_c_ends_the_demo_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(run: RunDir) -> ExitCode:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "launch_and_follow", interrupt)
    assert demo_of(tmp_path) == ExitCode.STOPPED
    assert len(list_runs(tmp_path)) == 1


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo_of(tmp_path, "--steps", "0") == ExitCode.BAD_REQUEST
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.steps: ")
