"""LOMO and AdaLomo in bfloat16 beside float32: `python -m benchmarks.bf16_rounding --save FILE`.

Both tune the starter on bundled samples with their presets: with weights in float32, in bfloat16
rounded by chance, and in bfloat16 rounded to nearest. What counts is how far the held-out loss
falls, as a share of what float32 reaches.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.contract.launch import engine_environment

if __name__ == "__main__" and os.environ != engine_environment():
    # OpenMP reads its settings once, when torch is loaded.
    os.execve(
        sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], engine_environment()
    )

from benchmarks.preset_sweep import held_out, train_all
from engine.contract.durable import write_json
from engine.contract.events import EventWriter
from engine.contract.spec_file import validate_spec
from engine.preparation import prepare
from engine.request import create_checked_run

KINDS = ("lomo", "adalomo")
FORMATS: dict[str, dict[str, str]] = {
    "float32": {"precision": "fp32"},
    "bfloat16 stochastic": {"precision": "bf16", "rounding": "stochastic"},
    "bfloat16 nearest": {"precision": "bf16", "rounding": "nearest"},
}


def loss_drop(method: dict[str, Any], rate: float | None, sample: str, seed: int) -> float:
    """Nats per held-out token by which a run of sixty steps lowers the loss.

    Args:
        method: Kind and format.
        rate: Learning rate; None for the preset's.
        sample: Name of a bundled dataset.
        seed: Decides the order of the data and the rounding.
    """
    wish = {
        "model": {"source": "starter"},
        "data": {"source": sample},
        "method": method,
        "train": {
            "steps": 60,
            "batch_size": 8,
            "sequence_length": 128,
            "learning_rate": rate,
            "seed": seed,
            "device": "cpu",
        },
    }
    with tempfile.TemporaryDirectory() as runs:
        run = create_checked_run(validate_spec(wish), Path(runs), None)
        with EventWriter(run.events_path, attempt=1) as events:
            prepared = prepare(run, events)
        before = held_out(prepared)
        assert train_all(prepared), "it diverged"
        return before - held_out(prepared)


def measure(samples: list[str], seeds: int, rates: dict[str, list[float | None]]) -> dict[str, Any]:
    """Mean drops by method, rate and format."""
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        for rate in rates[kind]:
            drops = {
                name: round(
                    statistics.mean(
                        loss_drop({"kind": kind, **settings}, rate, sample, seed)
                        for sample in samples
                        for seed in range(seeds)
                    ),
                    4,
                )
                for name, settings in FORMATS.items()
            }
            share = {name: round(100 * drop / drops["float32"], 2) for name, drop in drops.items()}
            rows.append({"method": kind, "rate": rate, "drop": drops, "percent": share})
            print(f"{kind} at {rate or 'the preset'}: {share}")
    return {
        "benchmark": "bf16_rounding",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "samples": samples,
        "seeds": seeds,
        "rows": rows,
    }


def main() -> None:
    """Measure and print; write the result file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", action="append", help="bundled samples; pirate and support")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    samples = options.sample or ["pirate", "support"]
    # The presets, and a tenth of them, where more of each update lies under half a step.
    rates: dict[str, list[float | None]] = {"lomo": [None, 0.1], "adalomo": [None, 2e-3]}
    result = measure(samples, options.seeds, rates)
    if options.save:
        write_json(options.save, result)


if __name__ == "__main__":
    main()
