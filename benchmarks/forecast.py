"""The forecast against the meter: `python -m benchmarks.forecast --save FILE`.

Random models of many architectures, random sizes, every method: the peak of live tensors in
two steps beside what the forecast said. The error is that of all terms together but the runtime,
which no tensor holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
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
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from engine.contract.durable import write_whole
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.data.batching import Batch
from engine.inspect_model import shape_of
from engine.memory.activation_trace import ActivationTrace
from engine.memory.devices import this_computer
from engine.memory.estimate import estimate
from engine.methods import METHODS
from engine.model import attention_of, recompute_activations
from engine.model_traits import traits_of
from engine.preparation import live_tensors
from engine.tensor_meter import LiveTensorMeter
from engine.trace_activations import trace_activations

CPU = torch.device("cpu")
ARCHITECTURES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "phi3",
    "phi",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "opt",
    "gpt_neox",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "qft balanced": {"kind": "qft"},
    "qft lean": {"kind": "qft", "preset": "lean"},
    "qft paper": {"kind": "qft", "preset": "paper"},
    "qlora": {"kind": "qlora"},
    "lora": {"kind": "lora"},
    "lora dropout": {"kind": "lora", "dropout": 0.1},
    "lomo": {"kind": "lomo", "precision": "bf16"},
    "lomo unclipped": {"kind": "lomo", "clip": "none", "precision": "bf16"},
    "lomo fp32": {"kind": "lomo", "precision": "fp32"},
    "adalomo": {"kind": "adalomo", "precision": "bf16"},
    "full": {"kind": "full"},
    "full sgd": {"kind": "full", "optimizer": "sgd"},
    "full bf16 8-bit": {"kind": "full", "precision": "bf16", "optimizer": "adamw_8bit"},
}


@dataclass(frozen=True)
class Case:
    """One model, one method, one batch."""

    method: str
    architecture: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    vocab_size: int
    tied: bool
    batch_size: int
    sequence_length: int
    checkpointing: bool

    def model(self) -> Any:
        """With random weights, in bfloat16."""
        config = self.config()
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention_of(config)
        )

    def config(self) -> Any:
        """Of that model."""
        return AutoConfig.for_model(
            self.architecture,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            vocab_size=self.vocab_size,
            tie_word_embeddings=self.tied,
            max_position_embeddings=self.sequence_length,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **self._own_sizes(),
        )

    def _own_sizes(self) -> dict[str, Any]:
        """What only some architectures know, by the names that they know it by."""
        if self.architecture == "gpt2":
            return {"n_inner": self.intermediate_size}
        if self.architecture == "opt":
            return {"ffn_dim": self.intermediate_size, "word_embed_proj_dim": self.hidden_size}
        own: dict[str, Any] = {"intermediate_size": self.intermediate_size}
        if self.architecture == "gpt_neox":
            return own
        own["num_key_value_heads"] = self.num_key_value_heads
        return own | {"head_dim": self.hidden_size // self.num_heads}

    def spec(self) -> RunSpec:
        """Of a run like this one."""
        train = {
            "steps": 2,
            "batch_size": self.batch_size,
            "sequence_length": self.sequence_length,
            "learning_rate": 1e-4,
            "activation_checkpointing": self.checkpointing,
            "max_grad_norm": 1.0 if self.method in ("lomo", "lomo fp32") else None,
        }
        method = SETTINGS[self.method]
        return validate_spec(
            {
                "model": {"source": "starter"},  # says no more than where an adapter belongs
                "data": {"source": "pirate"},
                "method": method,
                "train": train,
            }
        )


@dataclass(frozen=True)
class Measured:
    """Bytes that were forecast and that were counted, all tensors together."""

    case: Case
    forecast_bytes: int
    peak_bytes: int
    terms: dict[str, int]

    @property
    def error_percent(self) -> float:
        """Of the forecast; negative where it is too low."""
        return 100 * (self.forecast_bytes / self.peak_bytes - 1)


def random_cases(per_method: int, seed: int, methods: Sequence[str]) -> Iterator[Case]:
    """The same cases for the same seed, whatever methods are asked for.

    Every architecture in turn, but for what a method refuses: 4 bits hold no Conv1D.
    """
    for method in methods:
        draw = random.Random(f"{seed} {method}")
        for number in range(per_method):
            heads, batch = draw.choice((4, 8)), draw.choice((1, 2, 8))
            hidden = draw.choice((64, 128, 256, 384))
            known = [name for name in ARCHITECTURES if not (name == "gpt2" and method == "qlora")]
            yield Case(
                method=method,
                architecture=known[number % len(known)],
                hidden_size=hidden,
                intermediate_size=hidden * draw.choice((2, 3, 4)),
                num_layers=draw.choice((2, 4, 6)),
                num_heads=heads,
                num_key_value_heads=draw.choice((heads, heads // 2, heads // 4)),
                vocab_size=draw.choice((1024, 8192, 32_000, 64_000)),
                tied=draw.random() < 0.4,
                batch_size=batch,
                sequence_length=draw.choice((64, 128, 256, 512)[: 3 if batch == 8 else 4]),
                checkpointing=draw.random() < 0.5,
            )


def measure(case: Case) -> Measured:
    """Two steps under the meter."""
    torch.manual_seed(0)
    model, spec = case.model(), case.spec()
    shape = shape_of(model, "random").model_copy(update={"traces": _traces(case)})
    forecast = estimate(spec, shape, this_computer(), case.sequence_length)
    peak = _peak(model, spec, case)
    terms = {name: size for name, size in forecast.terms.items() if name != "runtime"}
    return Measured(case, forecast.tensor_bytes, peak, {str(k): v for k, v in terms.items()})


def _traces(case: Case) -> dict[str, ActivationTrace]:
    """The one way through the model that the case takes, as `inspect` finds it."""
    adapter = SETTINGS[case.method]["kind"] in ("lora", "qlora")
    return trace_activations(case.config(), ("float32",), (adapter,))


def _peak(model: Any, spec: RunSpec, case: Case) -> int:
    if case.checkpointing:
        recompute_activations(model)
    method = METHODS[spec.method.kind]()
    method.prepare(model, spec, CPU)
    assert isinstance(model, nn.Module)
    model.train()
    traits_of(model)  # looked at before the first step, as a run does
    tokens = torch.randint(3, case.vocab_size, (case.batch_size, case.sequence_length))
    batch = Batch(tokens, torch.ones_like(tokens), tokens.clone())
    peak = 0
    for step in (1, 2):
        with LiveTensorMeter(live_tensors(model, method, spec)) as meter:
            method.step([batch], 1e-4, step)
        peak = max(peak, meter.peak_bytes)
    return peak


def summary(errors: Sequence[float]) -> dict[str, float]:
    """Of errors in percent: the middle, the far end, the worst on either side, the bias."""
    sizes = sorted(abs(error) for error in errors)
    return {
        "cases": len(errors),
        "median": round(statistics.median(sizes), 2),
        "p95": round(sizes[max(0, round(0.95 * len(sizes)) - 1)], 2),
        "lowest": round(min(errors), 2),
        "highest": round(max(errors), 2),
        "mean": round(statistics.mean(errors), 2),
    }


def write_result(path: Path, measured: Sequence[Measured], seed: int) -> None:
    """One case to a line."""
    groups = {one.case.method for one in measured}
    head = {
        "benchmark": "forecast",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "transformers": version("transformers"),
        "seed": seed,
        "all": summary([one.error_percent for one in measured]),
        "methods": {
            name: summary([one.error_percent for one in measured if one.case.method == name])
            for name in SETTINGS
            if name in groups
        },
        "architectures": {
            name: summary([one.error_percent for one in measured if one.case.architecture == name])
            for name in ARCHITECTURES
            if any(one.case.architecture == name for one in measured)
        },
    }
    lines = [
        json.dumps({**asdict(one.case), "forecast": one.forecast_bytes, "peak": one.peak_bytes})
        for one in measured
    ]
    text = json.dumps(head, indent=1).removesuffix("\n}")
    cases = ",\n  ".join(lines)
    write_whole(path, f'{text},\n "cases": [\n  {cases}\n ]\n}}\n'.encode())


def main() -> None:
    """Measure every case and print the table of errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-method", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=SETTINGS)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    names = options.only or list(SETTINGS)
    measured: list[Measured] = []
    started = time.monotonic()
    for case in random_cases(options.per_method, options.seed, names):
        one = measure(case)
        measured.append(one)
        if options.verbose:
            print(f"{one.error_percent:+7.1f} %  {one.peak_bytes:>11,}  {case}  {one.terms}")
    for name in [*names, "all"]:
        errors = [one.error_percent for one in measured if name in (one.case.method, "all")]
        print(f"{name:16} {summary(errors)}")
    print(f"{time.monotonic() - started:.0f} s")
    if options.save:
        write_result(options.save, measured, options.seed)


if __name__ == "__main__":
    main()
