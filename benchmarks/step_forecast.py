"""The forecast of step time against the clock: `python -m benchmarks.step_forecast --save FILE`.

Random models of random sizes, every method. The machine's rates are measured around each case, and
the claim is the ratio of the time that was forecast to the fastest of a few steps. Both count the
processor's seconds of one thread, which other programs change little; `--wall` counts those of the
clock, with all threads, and is worth something only on a computer that does nothing else.
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
from collections.abc import Callable, Iterator, Sequence
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
from engine.measure_rates import measure_rates
from engine.memory.devices import this_computer
from engine.memory.machine_rates import MachineRates
from engine.memory.step_time import step_time
from engine.methods import METHODS
from engine.methods.protocol import Method
from engine.model_switches import recompute_activations
from engine.model_traits import traits_of

CPU = torch.device("cpu")
SETTINGS: dict[str, dict[str, Any]] = {
    "qft balanced": {"kind": "qft"},
    "qft lean": {"kind": "qft", "preset": "lean"},
    "qft paper": {"kind": "qft", "preset": "paper"},
    "qlora": {"kind": "qlora"},
    "lora": {"kind": "lora"},
    "lomo": {"kind": "lomo", "precision": "fp32"},
    "lomo unclipped": {"kind": "lomo", "clip": "none", "precision": "fp32"},
    "lomo bf16": {"kind": "lomo", "clip": "none", "precision": "bf16"},
    "adalomo": {"kind": "adalomo", "precision": "fp32"},
    "full": {"kind": "full"},
    "full sgd": {"kind": "full", "optimizer": "sgd"},
    "full bf16 8-bit": {"kind": "full", "precision": "bf16", "optimizer": "adamw_8bit"},
}
WARM_UP, STEPS = 1, 3
# No step is to take longer than about a second on two cores.
MOST_WORK = 1.5e10


@dataclass(frozen=True)
class Case:
    """One model, one method, one batch."""

    method: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    vocab_size: int
    batch_size: int
    sequence_length: int
    grad_accumulation: int
    checkpointing: bool

    def model(self) -> Any:
        """A Llama with random weights, in bfloat16."""
        config = AutoConfig.for_model(
            "llama",
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_heads,
            head_dim=self.hidden_size // self.num_heads,
            vocab_size=self.vocab_size,
            tie_word_embeddings=True,
            max_position_embeddings=self.sequence_length,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)

    def spec(self) -> RunSpec:
        """Of a run like this one; every token is trained."""
        train = {
            "steps": STEPS,
            "batch_size": self.batch_size,
            "grad_accumulation": self.grad_accumulation,
            "sequence_length": self.sequence_length,
            "learning_rate": 1e-4,
            "activation_checkpointing": self.checkpointing,
            "max_grad_norm": 1.0 if self.method == "lomo" else None,
        }
        return validate_spec(
            {
                "model": {"source": "starter"},  # says no more than where an adapter belongs
                "data": {"source": "pirate", "train_on": "all"},
                "method": SETTINGS[self.method],
                "train": train,
            }
        )


@dataclass(frozen=True)
class Timed:
    """Seconds of a step, forecast and measured."""

    case: Case
    forecast_s: float
    measured_s: float
    in_band: bool

    @property
    def ratio(self) -> float:
        """Above one where the forecast is too slow."""
        return self.forecast_s / self.measured_s


def random_cases(per_method: int, seed: int, methods: Sequence[str]) -> Iterator[Case]:
    """The same cases for the same seed, whatever methods are asked for."""
    for method in methods:
        draw = random.Random(f"{seed} {method}")
        fused = SETTINGS[method]["kind"] in ("lomo", "adalomo") or method in (
            "qft balanced",
            "qft lean",
        )
        for number in range(per_method):
            while True:
                case = _random_case(draw, method, recomputes=number % 2 == 1, fused=fused)
                if _work(case) <= MOST_WORK:
                    break
            yield case


def _random_case(draw: random.Random, method: str, *, recomputes: bool, fused: bool) -> Case:
    hidden = draw.choice((64, 128, 256, 384, 512))
    return Case(
        method=method,
        hidden_size=hidden,
        intermediate_size=hidden * draw.choice((2, 3, 4)),
        num_layers=draw.choice((2, 4, 8)),
        num_heads=hidden // 64 if hidden > 64 else 2,
        vocab_size=draw.choice((2048, 8192, 32_000)),
        batch_size=draw.choice((1, 2, 8)),
        sequence_length=draw.choice((64, 128, 256, 512)),
        grad_accumulation=1 if fused else draw.choice((1, 1, 2)),
        checkpointing=recomputes,
    )


def _work(case: Case) -> float:
    block = 4 * case.hidden_size**2 + 3 * case.hidden_size * case.intermediate_size
    weights = case.num_layers * block + case.vocab_size * case.hidden_size
    return 6.0 * weights * case.batch_size * case.sequence_length * case.grad_accumulation


def measure(case: Case, clock: Callable[[], float]) -> Timed:
    """The rates, some steps, and the rates again."""
    torch.manual_seed(0)
    model, spec = case.model(), case.spec()
    shape = shape_of(model, "random")
    method = _prepared(model, spec)
    tokens = torch.randint(3, case.vocab_size, (case.batch_size, case.sequence_length))
    batches = [Batch(tokens, torch.ones_like(tokens), tokens.clone())] * case.grad_accumulation
    before = measure_rates(this_computer(), clock)
    seconds: list[float] = []
    for step in range(1, WARM_UP + STEPS + 1):
        started = clock()
        method.step(batches, 1e-4, step)
        seconds.append(clock() - started)
    rates = _best(before, measure_rates(this_computer(), clock))
    length = case.sequence_length
    forecast = step_time(spec, shape, this_computer(), rates, length, typical_tokens=length)
    assert forecast is not None
    measured = min(seconds[WARM_UP:])
    return Timed(case, forecast.seconds, measured, forecast.low <= measured <= forecast.high)


def _prepared(model: Any, spec: RunSpec) -> Method:
    if spec.train.activation_checkpointing:
        recompute_activations(model)
    method = METHODS[spec.method.kind]()
    method.prepare(model, spec, CPU)
    assert isinstance(model, nn.Module)
    model.train()
    traits_of(model)  # looked at before the first step, as a run does
    return method


def _best(one: MachineRates, two: MachineRates) -> MachineRates:
    return MachineRates(
        one.device,
        {name: max(rate, two.flops_per_s[name]) for name, rate in one.flops_per_s.items()},
        max(one.bytes_per_s, two.bytes_per_s),
        min(one.seconds_per_operation, two.seconds_per_operation),
    )


def summary(measured: Sequence[Timed]) -> dict[str, float]:
    """Of errors in percent of the measured time, and of the band."""
    errors = [100 * (one.ratio - 1) for one in measured]
    sizes = sorted(abs(error) for error in errors)
    return {
        "cases": len(errors),
        "median": round(statistics.median(sizes), 1),
        "p95": round(sizes[max(0, round(0.95 * len(sizes)) - 1)], 1),
        "lowest": round(min(errors), 1),
        "highest": round(max(errors), 1),
        "mean": round(statistics.mean(errors), 1),
        "in_band_percent": round(100 * sum(one.in_band for one in measured) / len(measured), 1),
    }


def write_result(path: Path, measured: Sequence[Timed], seed: int, *, wall: bool) -> None:
    """One case to a line."""
    groups = {one.case.method for one in measured}
    head = {
        "benchmark": "step_forecast",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "threads": torch.get_num_threads(),
        "clock": "wall" if wall else "processor",
        "seed": seed,
        "all": summary(measured),
        "methods": {
            name: summary([one for one in measured if one.case.method == name])
            for name in SETTINGS
            if name in groups
        },
    }
    lines = [
        json.dumps(
            {
                **asdict(one.case),
                "forecast_s": round(one.forecast_s, 5),
                "measured_s": round(one.measured_s, 5),
                "ratio": round(one.ratio, 3),
            }
        )
        for one in measured
    ]
    text = json.dumps(head, indent=1).removesuffix("\n}")
    cases = ",\n  ".join(lines)
    write_whole(path, f'{text},\n "cases": [\n  {cases}\n ]\n}}\n'.encode())


def main() -> None:
    """Time every case and print the table of errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-method", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=SETTINGS)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--wall", action="store_true", help="all threads, seconds of the clock")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    names = options.only or list(SETTINGS)
    measured: list[Timed] = []
    started = time.monotonic()
    clock = time.perf_counter if options.wall else time.process_time
    if not options.wall:
        torch.set_num_threads(1)
    for case in random_cases(options.per_method, options.seed, names):
        one = measure(case, clock)
        measured.append(one)
        if options.verbose:
            print(f"{one.ratio:6.2f}  {one.measured_s:8.4f} s  {case}", flush=True)
    for name in [*names, "all"]:
        those = [one for one in measured if name in (one.case.method, "all")]
        print(f"{name:16} {summary(those)}")
    print(f"{time.monotonic() - started:.0f} s")
    if options.save:
        write_result(options.save, measured, options.seed, wall=options.wall)


if __name__ == "__main__":
    main()
