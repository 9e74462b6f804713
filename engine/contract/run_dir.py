"""The run folder: the whole contract between engine and front end. Every file has one writer."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from engine.contract.durable import read_json, sync_folder, write_json, write_whole
from engine.contract.errors import RequestError
from engine.contract.model_source import is_adapter_folder
from engine.contract.paths import is_file
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{n}" for port in ("COM", "LPT") for n in "123456789"),
}


class RunDir:
    """One run on disk. Holds a path and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def spec_path(self) -> Path:
        """What to do; written once by the launcher."""
        return self.path / "spec.json"

    @property
    def events_path(self) -> Path:
        """What happened; appended by the engine."""
        return self.path / "events.jsonl"

    @property
    def votes_path(self) -> Path:
        """Which of its replies people preferred; appended by the app."""
        return self.path / "votes.jsonl"

    @property
    def log_path(self) -> Path:
        """The engine's standard output and error."""
        return self.path / "engine.log"

    @property
    def lock_path(self) -> Path:
        """Held by the engine for its whole life."""
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        """Folder of committed checkpoints."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """The result as a model folder, or an adapter's."""
        return self.path / "export"

    @property
    def has_export(self) -> bool:
        """Whether there is a result; it is there as a whole or not at all."""
        return is_file(self.export / "config.json") or is_adapter_folder(self.export)

    @property
    def launch(self) -> dict[str, Any] | None:
        """Who was launched, before it claimed the run itself."""
        return read_json(self.path / "launch.json")

    @property
    def owner(self) -> dict[str, Any] | None:
        """Who works in this folder, or did."""
        return read_json(self.path / "owner.json")

    @property
    def fingerprint(self) -> dict[str, Any] | None:
        """What its base is known by; None in runs of older versions."""
        return read_json(self.path / "fingerprint.json")

    @property
    def result(self) -> dict[str, Any] | None:
        """How it ended; None until it has."""
        return read_json(self.path / "result.json")

    def spec(self) -> RunSpec:
        """The complete spec.

        Raises:
            RequestError: There is none, or it cannot be read.
            RequestErrors: It does not fit this version.
        """
        document = read_json(self.spec_path)
        if document is None:
            raise RequestError("run", f"{self.path} holds no readable spec.json.")
        return validate_spec(document)

    def write_launch(self, record: dict[str, Any]) -> None:
        """By the launcher, once per attempt."""
        write_json(self.path / "launch.json", record)

    def write_owner(self, record: dict[str, Any]) -> None:
        """By the engine, once per attempt."""
        write_json(self.path / "owner.json", record)

    def write_fingerprint(self, record: dict[str, Any]) -> None:
        """By the engine, once, before the first step."""
        write_json(self.path / "fingerprint.json", record)

    def write_result(self, record: dict[str, Any]) -> None:
        """By the engine, last."""
        write_json(self.path / "result.json", record)

    def request_stop(self, *, discard: bool = False) -> None:
        """Ask the engine to stop after this step; with `discard` it keeps no checkpoint."""
        write_whole(self.path / "stop", b"discard" if discard else b"keep")

    def stop_request(self) -> str | None:
        """`keep`, `discard`, or None when nobody asked. Anyone may make the file, by any means."""
        try:
            wish = (self.path / "stop").read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            return "keep"
        return "discard" if wish.strip() == b"discard" else "keep"

    def attempt(self) -> int:
        """Number of the current attempt, from 1."""
        return 1 + len(self._past_attempts())

    def archive_attempt(self) -> int:
        """Move the records of the attempt before aside, so that a resume starts clean.

        Returns:
            The number of the new attempt.

        Raises:
            RequestError: Somebody else does the same at this moment.
        """
        number = self.attempt()
        folder = self.path / "attempts" / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise RequestError("run", f"{self.name} is being resumed already.") from error
        # The result last: until then the status is what it was, should this process be killed.
        for name in ("stop", "launch.json", "owner.json", "result.json"):
            record = self.path / name
            if record.exists():
                record.rename(folder / name)
        sync_folder(self.path)
        return number + 1

    def _past_attempts(self) -> list[Path]:
        folder = self.path / "attempts"
        return [e for e in folder.iterdir() if e.name.isdigit()] if folder.is_dir() else []


def create_run(runs: Path, spec: RunSpec, name: str | None = None) -> RunDir:
    """Create a run folder with its spec, whole or not at all.

    Args:
        runs: Folder that holds all runs; made if missing.
        spec: A complete spec.
        name: The folder's name; by default date, method and model.

    Raises:
        RequestError: The name is taken or cannot be a folder's name, or `runs` is not writable.
    """
    if name is not None and not _is_name(name):
        raise RequestError(
            "name",
            f"{name!r} cannot name a run.",
            "Use letters, digits, dots, dashes and underscores.",
        )
    try:
        runs.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".creating-", dir=runs))
    except OSError as error:
        raise _not_writable(runs, error) from error
    try:
        (draft / "checkpoints").mkdir()
        write_json(draft / "spec.json", spec.as_json())
        return RunDir(_into_place(draft, runs, name, spec))
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise _not_writable(runs, error) from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _not_writable(runs: Path, error: OSError) -> RequestError:
    reason = error.strerror or "it fails"
    return RequestError("runs", f"{runs} cannot be written to ({reason}).", "Choose another one.")


def _is_name(name: str) -> bool:
    """A folder's name on every system: Windows keeps some for devices and drops a final dot."""
    device = name.split(".")[0].upper()
    return bool(_NAME.fullmatch(name)) and not name.endswith(".") and device not in _DEVICES


def _into_place(draft: Path, runs: Path, name: str | None, spec: RunSpec) -> Path:
    for candidate in [name] if name else _default_names(spec):
        target = runs / candidate
        if target.exists():
            continue
        try:
            draft.rename(target)
        except OSError:
            # A rename onto a folder that appeared meanwhile fails, since it is not empty.
            if target.exists():
                continue
            raise
        sync_folder(runs)
        return target
    raise RequestError("name", f"a run called {name} exists already.", "Choose another name.")


def _default_names(spec: RunSpec) -> Iterator[str]:
    moment = datetime.now(timezone.utc).astimezone().strftime("%Y%m%d-%H%M%S")
    base = f"{moment}-{spec.method.kind}-{_slug(spec.model.source)}"
    yield base
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1


def _slug(source: str) -> str:
    last = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-").lower()[:40] or "model"


def find_run(target: str, runs: Path) -> RunDir:
    """A run by folder or by its name under `runs`.

    Raises:
        RequestError: There is no such run.
    """
    for path in (Path(target), runs / target):
        if is_file(path / "spec.json"):
            return RunDir(path.resolve())
    raise RequestError("run", f"there is no run {target}.", f"`list` shows the runs in {runs}.")


def list_runs(runs: Path) -> list[RunDir]:
    """All runs, newest first by name; folders that are no runs are left out."""
    if not runs.is_dir():
        return []
    folders = [
        entry for entry in runs.iterdir() if not entry.name.startswith(".") and entry.is_dir()
    ]
    found = [RunDir(folder) for folder in folders if (folder / "spec.json").is_file()]
    return sorted(found, key=lambda run: (_created(run), run.name), reverse=True)


def _created(run: RunDir) -> float:
    try:
        return run.spec_path.stat().st_mtime
    except OSError:
        return 0.0


def dumps(value: Any) -> str:
    """JSON for a person or a pipe."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def default_runs() -> Path:
    """`runs/` beside the program, unless QFT_RUNS says otherwise."""
    return Path(os.environ.get("QFT_RUNS") or Path(__file__).resolve().parents[2] / "runs")
