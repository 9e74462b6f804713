"""`python3 start.py demo`: tunes the starter with every method and prints what came of it.

The runs stay in the runs folder, so the app shows them afterwards.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.commands.runs import follow
from engine.contract.bundled import STARTER, sample_datasets
from engine.contract.errors import ExitCode
from engine.contract.launch import engine_environment, launch
from engine.contract.run_dir import RunDir, default_runs
from engine.contract.spec import METHOD_KINDS, MethodKind
from engine.contract.spec_file import validate_spec
from engine.memory.units import gib
from engine.request import create_checked_run


@dataclass(frozen=True)
class Row:
    """One method's line of the table."""

    method: MethodKind
    forecast: str
    measured: str
    loss: str
    hits: str
    seconds: str

    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADINGS`."""
        return (self.method, self.forecast, self.measured, self.loss, self.hits, self.seconds)


HEADINGS = (
    "method",
    "forecast",
    "measured peak",
    "held-out loss",
    "held-out hits",
    "time",
)


def main(arguments: Sequence[str]) -> int:
    """Tune, score and print; exits with 1 if a run failed."""
    parser = argparse.ArgumentParser(prog="start.py demo", description=__doc__)
    parser.add_argument("--runs", type=Path, default=default_runs(), metavar="DIR")
    parser.add_argument("--data", default="pirate", choices=sorted(sample_datasets()))
    parser.add_argument("--steps", type=int, default=60, metavar="N")
    options = parser.parse_args(arguments)
    os.environ.update(engine_environment())
    runs: dict[MethodKind, RunDir] = {kind: _tune(kind, options) for kind in METHOD_KINDS}
    failed = [kind for kind, run in runs.items() if (run.result or {})["outcome"] != "finished"]
    if failed:
        print(f"Failed: {', '.join(failed)}; engine.log in each run folder says why.")
        return ExitCode.FAILED
    print(f"\nScoring held-out prompts of {options.data} before and after ...", file=sys.stderr)
    _print_table(_rows(runs, options.data))
    print(f"\nThe runs are in {options.runs}; `python3 start.py` shows them.")
    return ExitCode.DONE


def _tune(kind: MethodKind, options: argparse.Namespace) -> RunDir:
    print(f"Tuning the starter on {options.data} with {kind} ...", file=sys.stderr)
    spec = validate_spec(
        {
            "model": {"source": "starter"},
            "data": {"source": options.data},
            "method": {"kind": kind},
            "train": {"steps": options.steps, "batch_size": 8, "sequence_length": 128},
        }
    )
    run = create_checked_run(spec, options.runs, None)
    launch(run)
    follow(run)
    return run


def _rows(runs: dict[MethodKind, RunDir], data: str) -> list[Row]:
    from engine.model import load_model
    from engine.scoring import held_out_hits

    before = held_out_hits(load_model(STARTER), data)
    rows: list[Row] = []
    for kind, run in runs.items():
        result = run.result
        assert result is not None
        after = held_out_hits(load_model(run.export), data)
        rows.append(
            Row(
                kind,
                gib(result["forecast_bytes"]),
                gib(result["measured_peak_bytes"]),
                f"{result['eval_loss_before']:.2f} to {result['eval_loss_after']:.2f}",
                f"{before.percent:.0f} % to {after.percent:.0f} %",
                f"{result['wall_s']:.0f} s",
            )
        )
    return rows


def _print_table(rows: Sequence[Row]) -> None:
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
