"""Step time of every method beside torch's AdamW, interleaved: `python -m benchmarks.step_time`.

Beside them the packages that LOMO and QLoRA are known by, doing the same.

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
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from engine.contract.launch import engine_environment

if __name__ == "__main__" and os.environ != engine_environment():
    # OpenMP reads its settings once, when torch is loaded.
    os.execve(
        sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], engine_environment()
    )

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.reference_steps import LomoOptimSteps, PeftSteps
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
    "lomo": {"kind": "lomo", "clip": "none", "precision": "fp32"},
    "lomo clipped": {"kind": "lomo", "precision": "fp32"},
    "lomo bf16": {"kind": "lomo", "clip": "none", "precision": "bf16"},
    "lomo bf16 clipped": {"kind": "lomo", "precision": "bf16"},
    "adalomo": {"kind": "adalomo", "precision": "fp32"},
    "adalomo bf16": {"kind": "adalomo", "precision": "bf16"},
    "lora": {"kind": "lora"},
    "qlora": {"kind": "qlora"},
}
REFERENCES: dict[str, Callable[[Any], LomoOptimSteps | PeftSteps]] = {
    "lomo-optim": lambda model: LomoOptimSteps(model, None),
    "lomo-optim clipped": lambda model: LomoOptimSteps(model, 1.0),
    "peft bitsandbytes": PeftSteps,
}
NAMES = (*VARIANTS, *REFERENCES)
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


class Steps(Protocol):
    """Ours or another's."""

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> object:
        """One step on these batches."""
        ...


def random_model() -> Any:
    """The same weights each time, in bfloat16."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **GEOMETRY)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def steps_of(name: str) -> Steps:
    """A method of ours, or another implementation."""
    if name in REFERENCES:
        return REFERENCES[name](random_model().train())
    return prepared_method(VARIANTS[name])[0]


def prepared_method(settings: dict[str, Any]) -> tuple[Method, int]:
    """A method with its own copy of the model, and the model's number of parameters."""
    kind: MethodKind = settings["kind"]
    model = random_model()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    fields = {"model": {"source": "starter"}, "data": {"source": "pirate"}, "method": settings}
    spec = validate_spec(fields)
    limit = preset_of(spec.method).max_grad_norm
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"max_grad_norm": limit})})
    method = METHODS[kind]()
    method.prepare(model, spec, torch.device("cpu"))
    model.train()
    return method, num_parameters


def measure(names: list[str], batch_size: int, length: int, rounds: int) -> dict[str, Any]:
    """Seconds of each method's steps, taken in turns."""
    methods = {name: steps_of(name) for name in names}
    tokens = torch.randint(5, GEOMETRY["vocab_size"], (batch_size, length))
    batch = Batch(tokens, torch.ones_like(tokens), tokens.clone())
    seconds: dict[str, list[float]] = {kind: [] for kind in methods}
    for step in range(1, WARM_UP + rounds + 1):
        for kind, method in methods.items():
            started = time.perf_counter()
            method.step([batch], LEARNING_RATE, step)
            seconds[kind].append(time.perf_counter() - started)
    medians = {kind: statistics.median(times[WARM_UP:]) for kind, times in seconds.items()}
    return {
        "benchmark": "step_time",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "threads": torch.get_num_threads(),
        "num_parameters": sum(one.numel() for one in random_model().parameters()),
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
    parser.add_argument("--only", action="append", choices=NAMES, help="beside the yardstick")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    names = [YARDSTICK, *(options.only or [name for name in NAMES if name != YARDSTICK])]
    result = measure(names, options.batch_size, options.length, options.rounds)
    for kind, median in result["median_s"].items():
        print(f"{kind:18} {1000 * median:8.1f} ms   {result['ratio'][kind]:.2f} x {YARDSTICK}")
    if options.save:
        write_json(options.save, result)


if __name__ == "__main__":
    main()
