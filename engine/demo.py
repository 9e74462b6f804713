"""`python3 start.py demo`: tunes the starter with every method and prints what came of it.

The runs stay in the runs folder, so the app shows them afterwards.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.commands.output import print_mistakes
from engine.commands.runs import launch_and_follow
from engine.contract.bundled import STARTER, sample_datasets
from engine.contract.durable import write_json
from engine.contract.errors import ExitCode, RequestError, RequestErrors, mistakes
from engine.contract.launch import engine_environment
from engine.contract.method_settings import METHOD_KINDS, MethodKind
from engine.contract.run_dir import RunDir, default_runs
from engine.contract.spec_file import validate_spec
from engine.contract.status import read_status
from engine.memory.units import gib
from engine.request import create_checked_run

HEADINGS = ("method", "forecast", "measured peak", "held-out loss", "held-out hits", "time")


@dataclass(frozen=True)
class Row:
    """What one method did. Sizes in bytes, losses in nats per token, shares in percent."""

    method: MethodKind
    forecast_bytes: int
    measured_peak_bytes: int
    eval_loss_before: float
    eval_loss_after: float
    hits_percent_before: float
    hits_percent_after: float
    wall_s: float

    def cells(self) -> tuple[str, ...]:
        """For people, in the order of `HEADINGS`."""
        return (
            self.method,
            gib(self.forecast_bytes),
            gib(self.measured_peak_bytes),
            f"{self.eval_loss_before:.2f} to {self.eval_loss_after:.2f}",
            f"{self.hits_percent_before:.0f} % to {self.hits_percent_after:.0f} %",
            f"{self.wall_s:.0f} s",
        )


def main(arguments: Sequence[str]) -> int:
    """Tune, score and print; ends with the first run that did not finish, and with its code."""
    parser = argparse.ArgumentParser(prog="start.py demo", description=__doc__)
    parser.add_argument("--runs", type=Path, default=default_runs(), metavar="DIR")
    parser.add_argument("--data", default="pirate", choices=sorted(sample_datasets()))
    parser.add_argument("--steps", type=int, default=60, metavar="N")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the table as JSON")
    options = parser.parse_args(arguments)
    os.environ.update(engine_environment())
    try:
        return _demo(options)
    except (RequestError, RequestErrors) as error:
        print_mistakes(mistakes(error), as_json=False)
        return ExitCode.BAD_REQUEST
    except KeyboardInterrupt:
        return ExitCode.STOPPED


def _demo(options: argparse.Namespace) -> ExitCode:
    runs: dict[MethodKind, RunDir] = {}
    for kind in METHOD_KINDS:
        runs[kind] = run = _create(kind, options)
        print(f"Tuning the starter on {options.data} with {kind} ...", file=sys.stderr)
        code = launch_and_follow(run)
        if code != ExitCode.DONE:
            print(f"The demo ends here: {kind} is {read_status(run).status}.")
            print(f"engine.log in {run.path} has the details.")
            return code
    print(f"\nScoring held-out prompts of {options.data} before and after ...", file=sys.stderr)
    rows = _rows(runs, options.data)
    _print_table(rows)
    if options.save:
        write_json(options.save, _document(rows, options))
    print(f"\nThe runs are in {options.runs}; `python3 start.py` shows them.")
    return ExitCode.DONE


def _create(kind: MethodKind, options: argparse.Namespace) -> RunDir:
    spec = validate_spec(
        {
            "model": {"source": "starter"},
            "data": {"source": options.data},
            "method": {"kind": kind},
            "train": {"steps": options.steps, "batch_size": 8, "sequence_length": 128},
        }
    )
    return create_checked_run(spec, options.runs, None)


def _rows(runs: dict[MethodKind, RunDir], data: str) -> list[Row]:
    import torch

    from engine.result import load_result
    from engine.scoring import held_out_hits

    cpu = torch.device("cpu")
    before = held_out_hits(load_result(STARTER, cpu), data)
    rows: list[Row] = []
    for kind, run in runs.items():
        result = run.result
        assert result is not None
        after = held_out_hits(load_result(run.export, cpu), data)
        rows.append(
            Row(
                kind,
                result["forecast_bytes"],
                result["measured_peak_bytes"],
                result["eval_loss_before"],
                result["eval_loss_after"],
                before.percent,
                after.percent,
                result["wall_s"],
            )
        )
    return rows


def _document(rows: Sequence[Row], options: argparse.Namespace) -> dict[str, Any]:
    """The table with all that is needed to read it again."""
    return {
        "benchmark": "demo",
        "data": options.data,
        "steps": options.steps,
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "rows": [asdict(row) for row in rows],
    }


def _print_table(rows: Sequence[Row]) -> None:
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
