"""Where the time of a QFT step goes: `python -m benchmarks.qft_phases`.

The 15-million-parameter Llama of `step_time`, variants in turns. A phase is the time inside certain
functions of the engine, without what they call that is a phase of its own; the rest is attention,
norms, activations, the loss and autograd itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

from engine.contract.launch import engine_environment

if __name__ == "__main__" and os.environ != engine_environment():
    # OpenMP reads its settings once, when torch is loaded.
    os.execve(
        sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], engine_environment()
    )

import torch

from benchmarks.step_time import GEOMETRY, LEARNING_RATE, VARIANTS, WARM_UP, prepared_method
from engine.contract.durable import write_json
from engine.data.batching import Batch
from engine.methods.qft import layers
from engine.methods.qft.gradients import GradientStack
from engine.methods.qft.layers import Source
from engine.methods.qft.method import QftMethod
from engine.storage.dense import DenseStorage
from engine.storage.int8 import Int8Storage
from engine.storage.outliers import OutlierStorage
from engine.storage.residual import ResidualStorage

NAMES = ("qft balanced", "qft lean", "qft quality", "qft paper", "qft adamw")
_STORED = (DenseStorage, Int8Storage, ResidualStorage, OutlierStorage)
# Phase, owner and name of the function. A backward pass without its own calls is the product that
# makes a weight's gradient.
TIMED: list[tuple[str, Any, str]] = [
    ("products", Source, "product"),
    ("products", Source, "input_gradient"),
    ("gradient", layers._Product, "backward"),
    ("gradient", layers._Lookup, "backward"),
    ("stack", GradientStack, "receive"),
    ("stack", GradientStack, "pop_all"),
    ("optimizer", QftMethod, "_update"),
    ("optimizer", torch.optim.AdamW, "step"),
    *(("dequantize", owner, "dequantized") for owner in _STORED),
    *(("rounding", owner, "add") for owner in _STORED),
]
PHASES = ("dequantize", "products", "gradient", "optimizer", "rounding", "stack", "rest")


class Stopwatch:
    """Seconds by phase; a phase stops while one inside it runs."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def _change(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside."""
        self._change()
        self._running.append(name)
        try:
            yield
        finally:
            self._change()
            self._running.pop()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.phase(name):
                return function(*arguments, **named)

        return timed


@contextmanager
def timed(watch: Stopwatch) -> Iterator[None]:
    """Count every function of `TIMED`."""
    with ExitStack() as stack:
        for phase, owner, name in TIMED:
            if name not in vars(owner):
                continue
            stored = vars(owner)[name]
            plain = stored.__func__ if isinstance(stored, staticmethod) else stored
            around = watch.around(phase, plain)
            new = staticmethod(around) if isinstance(stored, staticmethod) else around
            stack.enter_context(patch.object(owner, name, new))
        yield


def measure(batch_size: int, length: int, rounds: int) -> dict[str, Any]:
    """Median seconds of each phase of each variant."""
    methods = {name: prepared_method(VARIANTS[name])[0] for name in ("full", *NAMES)}
    tokens = torch.randint(5, GEOMETRY["vocab_size"], (batch_size, length))
    batch = Batch(tokens, torch.ones_like(tokens), tokens.clone())
    found: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for step in range(1, WARM_UP + rounds + 1):
        for name, method in methods.items():
            watch = Stopwatch()
            with timed(watch), watch.phase("rest"):
                method.step([batch], LEARNING_RATE, step)
            found[name].append(dict(watch.seconds))
    rows: dict[str, dict[str, float]] = {}
    for name, steps in found.items():
        kept = steps[WARM_UP:]
        rows[name] = {
            phase: round(statistics.median(one.get(phase, 0.0) for one in kept), 5)
            for phase in PHASES
        }
        rows[name]["step"] = round(statistics.median(sum(one.values()) for one in kept), 5)
    return {
        "benchmark": "qft_phases",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "threads": torch.get_num_threads(),
        "tokens": batch_size * length,
        "rounds": rounds,
        "median_s": rows,
    }


def main() -> None:
    """Measure and print; write the result file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    result = measure(options.batch_size, options.length, options.rounds)
    for name, row in result["median_s"].items():
        print(f"{name:14}", "  ".join(f"{key} {1000 * value:.0f}" for key, value in row.items()))
    if options.save:
        write_json(options.save, result)


if __name__ == "__main__":
    main()
