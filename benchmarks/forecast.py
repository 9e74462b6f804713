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
import statistics
import sys
import time
from collections.abc import Sequence
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

from benchmarks.forecast_cases import ARCHITECTURES, SETTINGS, Case, random_cases
from engine.contract.durable import write_whole
from engine.contract.spec import RunSpec
from engine.data.batching import Batch
from engine.inspect_model import shape_of
from engine.memory.activation_trace import ActivationTrace
from engine.memory.devices import choose_device
from engine.memory.estimate import estimate
from engine.meter import MEASURED_STEPS, StepPeak
from engine.methods import METHODS
from engine.model import choose_torch_device
from engine.model_switches import recompute_activations
from engine.model_traits import traits_of
from engine.preparation import live_tensors
from engine.trace_activations import trace_activations

CPU = torch.device("cpu")


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


def measure(case: Case, device: torch.device = CPU) -> Measured:
    """Two steps under the meter, or under the allocator's own counter on a GPU."""
    torch.manual_seed(0)
    model, spec = case.model(), case.spec()
    shape = shape_of(model, "random").model_copy(update={"traces": _traces(case, device)})
    forecast = estimate(spec, shape, choose_device(str(device)), case.sequence_length)
    peak = _peak(model, spec, case, device)
    terms = {name: size for name, size in forecast.terms.items() if name != "runtime"}
    return Measured(case, forecast.tensor_bytes, peak, {str(k): v for k, v in terms.items()})


def _traces(case: Case, device: torch.device) -> dict[str, ActivationTrace]:
    """The one way through the model that the case takes, as `inspect` finds it."""
    settings = SETTINGS[case.method]
    adapter = settings["kind"] in ("lora", "qlora")
    is_wide = device.type == "cpu" or settings.get("precision") == "fp32"
    return trace_activations(case.config(), ("float32",) if is_wide else ("bfloat16",), (adapter,))


def _peak(model: Any, spec: RunSpec, case: Case, device: torch.device) -> int:
    if case.checkpointing:
        recompute_activations(model)
    method = METHODS[spec.method.kind]()
    method.prepare(model, spec, device)
    assert isinstance(model, nn.Module)
    model.train()
    traits_of(model)  # looked at before the first step, as a run does
    tokens = torch.randint(3, case.vocab_size, (case.batch_size, case.sequence_length))
    batch = Batch(tokens, torch.ones_like(tokens), tokens.clone()).to(device)
    found: list[int] = []
    peak = StepPeak(device, lambda: live_tensors(model, method, spec), found.append)
    for step in range(1, MEASURED_STEPS + 1):
        with peak.around_step():
            method.step([batch], 1e-4, step)
    return found[0]


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


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()}-core {platform.machine()} CPU"


def write_result(
    path: Path, measured: Sequence[Measured], seed: int, device: torch.device = CPU
) -> None:
    """One case to a line."""
    groups = {one.case.method for one in measured}
    head = {
        "benchmark": "forecast",
        "hardware": _hardware(device),
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
    parser.add_argument("--device", default="cpu", help="cpu, or cuda where there is one")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    names = options.only or list(SETTINGS)
    device = choose_torch_device(options.device)
    measured: list[Measured] = []
    started = time.monotonic()
    for case in random_cases(options.per_method, options.seed, names):
        one = measure(case, device)
        measured.append(one)
        if options.verbose:
            print(f"{one.error_percent:+7.1f} %  {one.peak_bytes:>11,}  {case}  {one.terms}")
    for name in [*names, "all"]:
        errors = [one.error_percent for one in measured if name in (one.case.method, "all")]
        print(f"{name:16} {summary(errors)}")
    print(f"{time.monotonic() - started:.0f} s")
    if options.save:
        write_result(options.save, measured, options.seed, device)


if __name__ == "__main__":
    main()
