"""The engine's command line, as the window uses it: short commands with one JSON answer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.contract.errors import ExitCode, RequestError, RequestErrors
from engine.contract.launch import PROJECT, engine_environment

TIMEOUT_S = 60


def launch(document: dict[str, Any], runs: Path, name: str | None) -> str:
    """Create a run and start its detached engine.

    Args:
        document: The spec as a person asked for it.
        runs: Folder that holds all runs.
        name: The run's name; None for date, method and model.

    Returns:
        The run's name.

    Raises:
        RequestErrors: The engine refused; nothing was created.
    """
    with spec_file(document) as spec:
        named = ["--name", name] if name else []
        answer = _run("launch", str(spec), "--runs", str(runs), *named)
    return Path(str(answer["run"])).name


def resume(run: Path) -> None:
    """Start a new attempt of a run that ended early.

    Raises:
        RequestErrors: It cannot be resumed.
    """
    _run("resume", str(run))


def inspect(folder: Path) -> dict[str, Any]:
    """The shapes of a model folder, as the engine reads them.

    Raises:
        RequestErrors: The model cannot be used.
    """
    return _run("inspect", str(folder))


def estimate(document: dict[str, Any]) -> dict[str, Any]:
    """What a spec needs, and what its data is, as the engine finds it.

    Raises:
        RequestErrors: The engine would refuse the spec.
    """
    with spec_file(document) as spec:
        return _run("estimate", str(spec))


@contextmanager
def spec_file(document: dict[str, Any]) -> Iterator[Path]:
    """A spec as a file, for as long as a command reads it."""
    with tempfile.TemporaryDirectory(prefix="qft-spec-") as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(document), encoding="utf-8")
        yield spec


def _run(*arguments: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "engine", *arguments, "--json"],
            cwd=PROJECT,
            env=engine_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _engine_failed(f"The engine did not answer within {TIMEOUT_S} s.") from error
    return read_answer(done.stdout, done.stderr, done.returncode)


def read_answer(output: str, said: str, code: int) -> dict[str, Any]:
    """What a command answered.

    Args:
        output: Its standard output: one JSON document.
        said: What it wrote to standard error.
        code: Its exit code; negative where a signal ended it.

    Raises:
        RequestErrors: It refused, or did not come to its end.
    """
    if code < 0:
        message = "The system ended it, most likely for lack of memory."
        raise RequestErrors([RequestError("engine", message)])
    try:
        answer = json.loads(output)
    except ValueError as error:
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        raise _engine_failed(f"The engine could not be started: {last[0][:200]}.") from error
    if not isinstance(answer, dict):
        raise _engine_failed("The engine's answer could not be read.")
    if code != ExitCode.DONE:
        raise RequestErrors(_refusals(answer))
    return answer


def read_check(output: str, said: str, code: int) -> dict[str, Any]:
    """What `check` answered. Data that cannot be learned from is an answer, with its `error`.

    Raises:
        RequestErrors: It did not come to its end.
    """
    if code == ExitCode.BAD_REQUEST:
        try:
            answer = json.loads(output)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            return answer
    return read_answer(output, said, code)


def _refusals(answer: dict[str, Any]) -> list[RequestError]:
    found = answer.get("errors") or [answer.get("error")]
    return [
        RequestError(
            str(entry.get("field") or "spec"),
            str(entry.get("message") or "The engine refused."),
            str(entry.get("advice") or ""),
        )
        for entry in found
        if isinstance(entry, dict)
    ] or [RequestError("engine", "The engine refused and did not say why.")]


def _engine_failed(message: str) -> RequestErrors:
    return RequestErrors([RequestError("engine", message, "Is the installation complete?")])
