"""What dense and sparse costs: `python -m benchmarks.outlier_cost`.

Bytes on LLaMA-2-7B's geometry by the plan that the engine allocates, error of the stored weights of
a trained model, and step time on the 15-million-parameter Llama of `step_time`, in turns.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.contract.launch import engine_environment

if __name__ == "__main__" and os.environ != engine_environment():
    # OpenMP reads its settings once, when torch is loaded.
    os.execve(
        sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], engine_environment()
    )

import torch

from benchmarks.step_time import GEOMETRY, LEARNING_RATE, WARM_UP, prepared_method
from engine.contract.bundled import STARTER
from engine.contract.durable import write_json
from engine.contract.method_settings import QftSettings
from engine.data.batching import Batch
from engine.memory.catalogue import bundled_shape
from engine.memory.layout import Int8
from engine.memory.plans import qft_plan
from engine.model import load_model
from engine.roles import named_weights
from engine.storage.allocate import quantized

PERCENTS = (0.0, 0.5, 1.0, 2.0)
GROUPS = ("row", 32)
SHAPE = "llama-2-7b"


def settings_of(group: Any, percent: float) -> dict[str, Any]:
    """Of one column: stochastic rounding, so that only storage differs."""
    return {"kind": "qft", "scale_group": group, "outlier_percent": percent}


def _layout(group: Any, percent: float) -> Int8:
    layout = qft_plan(QftSettings.model_validate(settings_of(group, percent))).matrices.weight
    assert isinstance(layout, Int8)
    return layout


def bytes_per_weight(group: Any, percent: float) -> float:
    """Of a linear layer's weight, LLaMA-2-7B."""
    shape = bundled_shape(SHAPE)
    assert shape is not None
    layout = _layout(group, percent)
    total = sum(
        layout.nbytes(tensor.stored_shape) * tensor.repeat
        for tensor in shape.tensors
        if tensor.role == "linear"
    )
    return total / shape.linear_parameters


def relative_error(folder: Path, group: Any, percent: float) -> float:
    """Euclidean length of what storing changes, beside that of all linear weights."""
    lost, whole = 0.0, 0.0
    for named in named_weights(load_model(folder, torch.float32).model):
        if named.role != "linear":
            continue
        weight = named.parameter.detach()
        stored = quantized(_layout(group, percent), weight, torch.device("cpu"))
        lost += float((stored.read(slice(0, stored.num_rows)) - weight).square().sum())
        whole += float(weight.square().sum())
    return (lost / whole) ** 0.5


def step_seconds(rounds: int) -> dict[tuple[Any, float], float]:
    """Median seconds of a step, in turns."""
    columns = [(group, percent) for group in GROUPS for percent in PERCENTS]
    methods = {column: prepared_method(settings_of(*column))[0] for column in columns}
    tokens = torch.randint(5, GEOMETRY["vocab_size"], (8, 64))
    batch = Batch(tokens, torch.ones_like(tokens), tokens.clone())
    seconds: dict[tuple[Any, float], list[float]] = {column: [] for column in columns}
    for step in range(1, WARM_UP + rounds + 1):
        for column, method in methods.items():
            started = time.perf_counter()
            method.step([batch], LEARNING_RATE, step)
            seconds[column].append(time.perf_counter() - started)
    return {column: statistics.median(times[WARM_UP:]) for column, times in seconds.items()}


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """One row for each group size and share of outliers."""
    seconds = step_seconds(rounds)
    rows = [
        {
            "scale_group": group,
            "outlier_percent": percent,
            "bytes_per_weight": round(bytes_per_weight(group, percent), 4),
            "relative_error": round(relative_error(folder, group, percent), 6),
            "step_ratio": round(seconds[group, percent] / seconds["row", 0.0], 3),
        }
        for group, percent in seconds
    ]
    return {
        "benchmark": "outlier_cost",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "threads": torch.get_num_threads(),
        "geometry": SHAPE,
        "weights_of": "starter" if folder == STARTER else folder.name,
        "rounds": rounds,
        "rows": rows,
    }


def main() -> None:
    """Measure and print; write the result file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER, help="whose weights are stored")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    result = measure(options.model, options.rounds)
    for row in result["rows"]:
        print(row)
    if options.save:
        write_json(options.save, result)


if __name__ == "__main__":
    main()
