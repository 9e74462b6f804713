"""What a page may ask for. Holds nothing that it could not rebuild from the run folders."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from engine.contract.errors import RequestError
from engine.contract.events import EventReader
from engine.contract.run_dir import RunDir, list_runs
from engine.contract.status import RESUMABLE, TERMINAL, derive_status
from qft_gui import engine_commands
from qft_gui.snapshots import Follower, Snapshot, memory_limits

DOUBLE_CLICK_S = 3.0
DISCARD_PATIENCE_S = 300.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Service:
    """The runs of one folder: start, watch, stop, resume, delete.

    Args:
        runs: Folder that holds all runs; made when the first one starts.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs.resolve()
        self._followers: dict[str, Follower] = {}
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._last_start: tuple[str, float, str] | None = None
        self._undeleted: dict[str, str] = {}

    def start(self, document: dict[str, Any], name: str | None = None) -> str:
        """Start a run; the same request again within a moment is a double click.

        Returns:
            The run's name.

        Raises:
            RequestErrors: The engine refused; nothing was created.
        """
        wish = json.dumps([document, name], sort_keys=True)
        with self._starting:
            last = self._last_start
            if last and last[0] == wish and time.monotonic() - last[1] < DOUBLE_CLICK_S:
                return last[2]
            run = engine_commands.launch(document, self.runs, name)
            self._last_start = (wish, time.monotonic(), run)
            return run

    def resume(self, name: str | None) -> None:
        """Go on after the last checkpoint, in a new attempt.

        Raises:
            RequestError: There is no such run.
            RequestErrors: The engine refused.
        """
        run = self._run(name)
        with self._starting:
            if derive_status(run) in RESUMABLE:
                engine_commands.resume(run.path)

    def stop(self, name: str | None) -> None:
        """Ask a run to stop after this step and keep what it learned."""
        run = self._run(name)
        if derive_status(run) not in TERMINAL:
            run.request_stop()

    def discard(self, name: str | None) -> None:
        """Stop a run if it goes on, then delete its folder. Returns at once.

        What goes wrong later stands on the run's page: see `Snapshot.notice`.

        Raises:
            RequestError: There is no such run, or its folder cannot be deleted.
        """
        run = self._run(name)
        self._undeleted.pop(run.name, None)
        if derive_status(run) in TERMINAL:
            self._delete(run)
            return
        run.request_stop(discard=True)
        threading.Thread(
            target=self._delete_when_over, args=(run,), name=f"discard-{name}", daemon=True
        ).start()

    def names(self) -> list[str]:
        """All runs, newest first."""
        return [run.name for run in list_runs(self.runs)]

    def live_run(self) -> str | None:
        """The newest run that goes on."""
        for run in list_runs(self.runs):
            if derive_status(run) not in TERMINAL:
                return run.name
        return None

    def snapshot(self, name: str | None) -> Snapshot:
        """Everything a page shows of one run.

        Raises:
            RequestError: There is no such run.
        """
        now = self._follower(self._run(name)).snapshot()
        return replace(now, notice=self._undeleted.get(now.name, ""))

    def snapshots(self) -> list[Snapshot]:
        """All runs, newest first; one that is deleted meanwhile is left out."""
        found: list[Snapshot] = []
        for name in self.names():
            try:
                found.append(self.snapshot(name))
            except (RequestError, FileNotFoundError):
                continue
        return found

    def points(self, request: object) -> dict[str, Any]:
        """New points of a run's curves since a cursor.

        Args:
            request: `run`, and the `attempt` and `since` of the answer before.

        Returns:
            `ok` and either `why` or the points, with `next` as the new cursor.
        """
        try:
            name, attempt, since = _parsed(request)
            now = self.snapshot(name)
        except (RequestError, FileNotFoundError) as error:
            return {"ok": False, "why": str(error)}
        reset = attempt != now.curves.attempt or not 0 < since <= now.curves.seen
        return {
            "ok": True,
            "attempt": now.curves.attempt,
            "reset": reset,
            "next": now.curves.seen,
            "over": now.is_over,
            "status": now.status.status,
            "steps": now.status.steps,
            "on_gpu": now.curves.on_gpu,
            "limits": memory_limits(now),
            **now.curves.since(0 if reset else since),
        }

    def export_of(self, name: str | None) -> tuple[str, str]:
        """The model a run started from, and the folder of what it became.

        Raises:
            RequestError: There is no such run, or it has nothing to load.
        """
        snapshot = self.snapshot(name)
        if snapshot.spec is None or not snapshot.has_export:
            raise RequestError("run", f"{name} has no tuned model yet.", "Let it finish first.")
        return snapshot.spec.model.source, str(self._run(name).export)

    def _run(self, name: object) -> RunDir:
        if isinstance(name, str) and _NAME.fullmatch(name):
            path = self.runs / name
            if not path.is_symlink() and (path / "spec.json").is_file():
                return RunDir(path)
        raise RequestError("run", "there is no such run.", "It may have been deleted.")

    def _follower(self, run: RunDir) -> Follower:
        with self._lock:
            if run.name not in self._followers:
                self._followers[run.name] = Follower(run, EventReader(run.events_path))
            return self._followers[run.name]

    def _delete(self, run: RunDir) -> None:
        try:
            shutil.rmtree(run.path)
        except OSError as error:
            raise RequestError(
                "run",
                f"{run.name} could not be deleted: {error.strerror or error}.",
                "Close what uses its folder, then discard it again.",
            ) from error
        with self._lock:
            self._followers.pop(run.name, None)

    def _delete_when_over(self, run: RunDir) -> None:
        deadline = time.monotonic() + DISCARD_PATIENCE_S
        while time.monotonic() < deadline:
            if derive_status(run) in TERMINAL:
                try:
                    self._delete(run)
                except RequestError as error:
                    self._undeleted[run.name] = f"{error.message} {error.advice}"
                return
            time.sleep(0.3)
        self._undeleted[run.name] = (
            f"This run was to be deleted, but its engine did not end within "
            f"{DISCARD_PATIENCE_S:.0f} s. Discard it again once it has stopped."
        )


def _parsed(request: object) -> tuple[str, int, int]:
    wish = cast("dict[str, object]", request) if isinstance(request, dict) else {}
    name, attempt, since = wish.get("run"), wish.get("attempt"), wish.get("since")
    if not isinstance(name, str):
        raise RequestError("run", "the request names no run.")
    if isinstance(attempt, int) and isinstance(since, int):
        return name, attempt, since
    return name, 0, 0
