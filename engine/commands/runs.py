"""`run`, `launch`, `resume`, `stop`."""

from __future__ import annotations

import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tqdm import tqdm

from engine.commands.output import print_json
from engine.contract.errors import ExitCode, RequestError
from engine.contract.events import EventReader
from engine.contract.launch import launch
from engine.contract.run_dir import RunDir, find_run
from engine.contract.spec_file import read_spec
from engine.contract.status import (
    EXIT_CODES,
    RESUMABLE,
    TERMINAL,
    derive_status,
    error_of,
    read_status,
)
from engine.data.source import refuse_other_data
from engine.memory.lost_updates import lost_updates
from engine.request import create_checked_run

_POLL_S = 0.2
_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


def launch_command(options: Namespace) -> ExitCode:
    """Start in the background."""
    run = create_checked_run(read_spec(options.spec), options.runs, options.name)
    _warn(run)
    launch(run)
    _print_run(run, options)
    return ExitCode.DONE


def run_command(options: Namespace) -> ExitCode:
    """Start, and stay until it ends. Ctrl-C asks it to stop and keep a checkpoint."""
    run = create_checked_run(read_spec(options.spec), options.runs, options.name)
    _warn(run)
    try:
        return launch_and_follow(run)
    finally:
        # After a second Ctrl-C as well: the engine goes on, and this is where.
        _print_run(run, options)


def resume_command(options: Namespace) -> ExitCode:
    """Make a new attempt in the same folder."""
    run = find_run(options.run, options.runs)
    status = read_status(run).status
    # A queued run has nobody who would start it: its launcher was killed.
    if status not in RESUMABLE and status != "queued":
        advice = "It is done." if status == "finished" else "Stop it first, or wait."
        raise RequestError("run", f"{run.name} is {status}, so there is nothing to resume.", advice)
    refuse_other_data(run.spec().data)
    run.archive_attempt()
    launch(run)
    _print_run(run, options)
    return ExitCode.DONE


def stop_command(options: Namespace) -> ExitCode:
    """Ask the engine to stop; it does so after the step that is going on."""
    run = find_run(options.run, options.runs)
    status = read_status(run).status
    if status in TERMINAL:
        raise RequestError("run", f"{run.name} is {status} already.", "Nothing was changed.")
    run.request_stop(discard=options.discard)
    _print_run(run, options)
    return ExitCode.DONE


def _warn(run: RunDir) -> None:
    """Say what would make the run useless; whoever wants it all the same gets it."""
    warning = lost_updates(run.spec())
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def _print_run(run: RunDir, options: Namespace) -> None:
    if options.json:
        print_json({"run": str(run.path)})
    else:
        print(run.path)


def launch_and_follow(run: RunDir) -> ExitCode:
    """Start a run and show its progress until it ends; returns what it ended with.

    Raises:
        KeyboardInterrupt: At the second Ctrl-C; the engine stops by itself.
    """
    with _stopping_on_signal(run):
        launch(run)
        return _follow(run)


def _follow(run: RunDir) -> ExitCode:
    reader = EventReader(run.events_path)
    with tqdm(unit="step", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        while True:
            status = derive_status(run)
            for event in reader.read():
                _show(event, bar)
            if status in TERMINAL:
                break
            time.sleep(_POLL_S)
    error = error_of(run, status)
    if error:
        print(f"{error['message']} {error['advice']}", file=sys.stderr)
    else:
        print(_summary(run), file=sys.stderr)
    return EXIT_CODES[status]


@contextmanager
def _stopping_on_signal(run: RunDir) -> Iterator[None]:
    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        if run.stop_request() is not None:
            raise KeyboardInterrupt
        run.request_stop()
        print("\nStopping after this step; again to leave it to itself.", file=sys.stderr)

    numbers = [getattr(signal, name) for name in _STOP_SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _show(event: dict[str, Any], bar: Any) -> None:
    if event["kind"] == "phase":
        bar.set_description(str(event["phase"]))
        if event.get("steps"):
            bar.total = event["steps"]
    elif event["kind"] == "step":
        bar.n = event["step"]
        loss = event["loss_nats"]
        bar.set_postfix(loss="not a number" if loss is None else f"{loss:.3f}")
    elif event["kind"] == "notice":
        bar.write(event["message"], file=sys.stderr)


def _summary(run: RunDir) -> str:
    status = read_status(run)
    result = run.result or {}
    before, after = result.get("eval_loss_before"), result.get("eval_loss_after")
    held_out = (
        f", held-out loss {before:.3f} to {after:.3f}"
        if before is not None and after is not None
        else ""
    )
    return f"{status.status}: {status.step} steps in {result.get('wall_s', 0):.0f} s{held_out}"
