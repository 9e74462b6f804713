"""`status` and `list`."""

from __future__ import annotations

from argparse import Namespace

from engine.commands.output import print_json
from engine.contract.errors import ExitCode
from engine.contract.run_dir import find_run, list_runs
from engine.contract.status import RunStatus, read_status


def status_command(options: Namespace) -> ExitCode:
    """How one run is doing."""
    status = read_status(find_run(options.run, options.runs))
    if options.json:
        print_json(status.as_json())
    else:
        print(_line(status))
        if status.error:
            print(f"{status.error['message']} {status.error['advice']}")
    return ExitCode.DONE


def list_command(options: Namespace) -> ExitCode:
    """All runs, newest first."""
    every = [read_status(run) for run in list_runs(options.runs)]
    if options.json:
        print_json([status.as_json() for status in every])
    elif not every:
        print(f"No runs in {options.runs} yet.")
    for status in [] if options.json else every:
        print(_line(status))
    return ExitCode.DONE


def _line(status: RunStatus) -> str:
    loss = "" if status.loss_nats is None else f"  loss {status.loss_nats:.3f}"
    left = "" if status.eta_s is None else f"  {status.eta_s:.0f} s left"
    return f"{status.run}  {status.status}  step {status.step} of {status.steps or '?'}{loss}{left}"
