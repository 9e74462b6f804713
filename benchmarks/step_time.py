"""Step time of every method beside torch's AdamW, interleaved: `python -m benchmarks.step_time`.

A 15-million-parameter Llama on random tokens, with the threads of an engine process. Machines are
noisy, so the claim is the ratio of medians over steps that took turns.
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
from transformers import AutoConfig, AutoModelForCausalLM

from engine.contract.durable import write_json
from engine.contract.method_settings import MethodKind
from engine.contract.presets import preset_of
from engine.contract.spec_file import validate_spec
from engine.data.batching import Batch
from engine.methods import METHODS
from engine.methods.protocol import Method

YARDSTICK = "full"
VARIANTS: dict[str, dict[str, Any]] = {
    YARDSTICK: {"kind": "full"},
    "qft balanced": {"kind": "qft"},
    "qft lean": {"kind": "qft", "preset": "lean"},
    "qft quality": {"kind": "qft", "preset": "quality"},
    "qft paper": {"kind": "qft", "preset": "paper"},
    "qft adamw": {"kind": "qft", "update": "adamw"},
    "qft stack": {"kind": "qft", "gradients": "stack"},
    "qft int8 matmul": {"kind": "qft", "matmul": "int8"},
    "lomo": {"kind": "lomo", "clip": "none"},
    "lomo clipped": {"kind": "lomo"},
    "lomo fp32": {"kind": "lomo", "clip": "none", "precision": "fp32"},
    "lomo fp32 clipped": {"kind": "lomo", "precision": "fp32"},
    "adalomo": {"kind": "adalomo"},
}
WARM_UP = 3
LEARNING_RATE = 1e-4
GEOMETRY: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 320,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}


def prepared_method(settings: dict[str, Any]) -> tuple[Method, int]:
    """A method with its own copy of the model, and the model's number of parameters."""
    torch.manual_seed(0)
    kind: MethodKind = settings["kind"]
    dtype = torch.float32 if kind == "full" else torch.bfloat16
    config = AutoConfig.for_model("llama", **GEOMETRY)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    spec = validate_spec({"model": {"source": "-"}, "data": {"source": "-"}, "method": settings})
    limit = preset_of(spec.method).max_grad_norm
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"max_grad_norm": limit})})
    method = METHODS[kind]()
    method.prepare(model, spec, torch.device("cpu"))
    model.train()
    return method, num_parameters


def measure(names: list[str], batch_size: int, length: int, rounds: int) -> dict[str, Any]:
    """Seconds of each method's steps, taken in turns."""
    methods = {name: prepared_method(VARIANTS[name]) for name in names}
    tokens = torch.randint(5, GEOMETRY["vocab_size"], (batch_size, length))
    batch = Batch(tokens, torch.ones_like(tokens), tokens.clone())
    seconds: dict[str, list[float]] = {kind: [] for kind in methods}
    for step in range(1, WARM_UP + rounds + 1):
        for kind, (method, _) in methods.items():
            started = time.perf_counter()
            method.step([batch], LEARNING_RATE, step)
            seconds[kind].append(time.perf_counter() - started)
    medians = {kind: statistics.median(times[WARM_UP:]) for kind, times in seconds.items()}
    return {
        "benchmark": "step_time",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "threads": torch.get_num_threads(),
        "num_parameters": methods[YARDSTICK][1],
        "tokens": batch_size * length,
        "rounds": rounds,
        "median_s": medians,
        "ratio": {kind: median / medians[YARDSTICK] for kind, median in medians.items()},
    }


def main() -> None:
    """Measure and print; write the result file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", action="append", choices=VARIANTS, help="beside the yardstick")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    names = [YARDSTICK, *(options.only or [name for name in VARIANTS if name != YARDSTICK])]
    result = measure(names, options.batch_size, options.length, options.rounds)
    for kind, median in result["median_s"].items():
        print(f"{kind:18} {1000 * median:8.1f} ms   {result['ratio'][kind]:.2f} x {YARDSTICK}")
    if options.save:
        write_json(options.save, result)


if __name__ == "__main__":
    main()
