"""Everything that needs a GPU, in one command: `python -m benchmarks.gpu_suite --save FILE`.

Checks first, then memory and speed of every method on LLaMA-2-7B and Llama-3.1-8B with random
weights, beside the forecast and what others published. Needs torch, transformers and numpy alone;
what lacks a package is skipped and counted. Each job is a process of its own, the important ones
first; the whole ends within its minutes, and what there was no time for is listed. The table comes
last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_jobs import Job, Line, jobs, tiny_jobs
from benchmarks.gpu_report import report
from benchmarks.gpu_settings import METHODS, missing_packages
from engine.contract.durable import write_json

_ROOT = Path(__file__).resolve().parents[1]
_LAST_SECONDS = 8.0  # for the table and the file
_NO_LONGER_THAN = 150.0  # seconds for one job, so that none takes the others' time
_LEAST_SECONDS = {"cuda": 25.0, "cpu": 1.0}


def run_all(planned: Sequence[Job], ends: float) -> Iterator[Line]:
    """Every job until time is up; a line for each measurement, done or not, job by job.

    Args:
        planned: In this order.
        ends: When the last job has to be over, by `time.monotonic`.
    """
    for job in planned:
        missing = missing_packages(METHODS[job.method]) if job.method else ()
        left = ends - time.monotonic()
        if missing:
            yield from _not_done(job, [], "skipped", f"needs {', '.join(missing)}")
        elif left < _LEAST_SECONDS[job.device]:
            yield from _not_done(job, [], "not run", "no time left")
        else:
            print(f"{job.name}: {left:.0f} s left", flush=True)
            yield from _run(job, min(left, _NO_LONGER_THAN))


def _run(job: Job, seconds: float) -> list[Line]:
    """One job in its own process, and what it told before it ended, was ended or died."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "lines.jsonl"
        told.touch()
        command = [sys.executable, "-m", "benchmarks.gpu_cells", job.as_json(), str(told)]
        try:
            ended = subprocess.run(
                command, cwd=_ROOT, timeout=seconds, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired:
            outcome, reason = "not run", f"the job was ended after {seconds:.0f} s"
        else:
            words = ended.stderr.strip().splitlines()
            outcome = "failed"
            reason = f"exit code {ended.returncode}: {words[-1] if words else ''}"[:300]
        lines = _whole_lines(told.read_text(encoding="utf-8"))
        if outcome == "failed" and ended_well(job, lines):
            return lines
        return lines + _not_done(job, lines, outcome, reason)


def _whole_lines(text: str) -> list[Line]:
    """All but a last one that was cut off."""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def ended_well(job: Job, lines: Sequence[Line]) -> bool:
    """Whether a job told everything that it was to tell."""
    return not _not_done(job, lines, "", "")


def _not_done(job: Job, lines: Sequence[Line], outcome: str, reason: str) -> list[Line]:
    """A line for each place of the job that none of the lines is about."""
    return [
        {**place, "outcome": outcome, "reason": reason}
        for place in job.places
        if not any(place.items() <= line.items() for line in lines)
    ]


def hardware(device: str) -> dict[str, Any]:
    """What the numbers were measured on, and when."""
    card = torch.cuda.get_device_properties(0) if device == "cuda" else None
    return {
        "hardware": card.name if card else f"{os.cpu_count()}-core CPU",
        "total_bytes": card.total_memory if card else None,
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
        **{package: _version(package) for package in ("torch", "transformers", "peft")},
        "bitsandbytes": _version("bitsandbytes"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _said("git", "describe", "--always", "--dirty", "--abbrev=12"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _said(*command: str) -> str | None:
    """First line of what a program prints; None where there is no such program, or it fails."""
    try:
        done = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None


def main() -> None:
    """Measure, write the result file if asked, and print the table last."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path, help="the result, as JSON")
    parser.add_argument("--minutes", type=float, default=9.0, help="when the whole has to be over")
    parser.add_argument("--only", action="append", choices=METHODS, help="methods, and no checks")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, in seconds")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("This computer has no GPU that torch can use; --tiny goes through it on the CPU.")
    planned = tiny_jobs() if options.tiny else jobs()
    if options.only:
        planned = [job for job in planned if job.method in options.only]
    device = "cpu" if options.tiny else "cuda"
    result = {
        "benchmark": "gpu_suite",
        **hardware(device),
        "minutes": options.minutes,
        "seconds": 0.0,
        "lines": [],
    }
    for line in run_all(planned, started + 60 * options.minutes - _LAST_SECONDS):
        result["lines"].append(line)
        result["seconds"] = round(time.monotonic() - started, 1)
        if options.save:  # each time, so that being stopped from outside loses nothing
            write_json(options.save, result)
    print(report(result))


if __name__ == "__main__":
    main()
