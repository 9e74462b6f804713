"""Does what was made to fit fit? `python -m benchmarks.fit_requests --save FILE`.

Random models, methods and limits: each limit lies between what the request needs as it is and what
its leanest form needs. What `engine.memory.fit` accepts is trained for two steps under the meter,
and its tensors have to stay under the limit, less what the forecast leaves for the runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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

from benchmarks.forecast import CPU
from benchmarks.forecast_cases import SETTINGS, Case, random_cases
from engine.contract.durable import write_whole
from engine.contract.spec import RunSpec
from engine.data.batching import Batch
from engine.inspect_model import shape_of
from engine.live_tensors import live_tensors
from engine.memory.devices import Device
from engine.memory.estimate import RUNTIME_BAND, RUNTIME_BYTES
from engine.memory.fit import Fitting, fit
from engine.memory.model_shape import ModelShape
from engine.memory.ways import Ways
from engine.methods import METHODS
from engine.model_switches import recompute_activations
from engine.model_traits import traits_of
from engine.tensor_meter import LiveTensorMeter
from engine.trace_activations import trace_activations

RUNTIME = round((1 + RUNTIME_BAND) * RUNTIME_BYTES["cpu"])
PER_METHOD = 8
# How far above the least that its forecasts allow a limit may lie.
ROOM = 0.05


@dataclass(frozen=True)
class Request:
    """A case, in batches, on a device with so much free memory.

    Attributes:
        case: Its checkpointing is what the request asks for.
        share: Where the limit lies: 0 is what the leanest form needs, 1 what the request needs. The
            next forecast below is sought, so that nothing fits with room to spare.
        room: By which share the limit is above that forecast, the runtime apart.
        may_shorten: Whether conversations may be cut.
    """

    case: Case
    share: float
    room: float
    may_shorten: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a request; sizes in bytes, all of tensors only."""

    request: Request
    changes: tuple[str, ...]
    limit_bytes: int
    forecast_bytes: int
    peak_bytes: int

    @property
    def is_under(self) -> bool:
        """Whether it stayed under its limit."""
        return self.peak_bytes <= self.limit_bytes


def random_requests(per_method: int, seed: int) -> Iterator[Request]:
    """The same requests for the same seed."""
    draw = random.Random(f"fit {seed}")
    for case in random_cases(per_method, seed, list(SETTINGS)):
        batched = replace(
            case,
            batch_size=draw.choice((4, 6, 8)),
            sequence_length=min(case.sequence_length, 128),
            vocab_size=min(case.vocab_size, 8192),
            checkpointing=draw.random() < 0.3,
        )
        share, room = draw.random(), draw.uniform(0, ROOM)
        yield Request(batched, share, room, draw.random() < 0.5)


def fitted(request: Request, shape: ModelShape) -> tuple[Fitting, Device]:
    """What `fit` makes of it, on a device that is as small as its own answer allows."""
    case, spec = request.case, request.case.spec()
    length = case.sequence_length

    def on(free_bytes: int) -> Fitting:
        device = Device("cpu", "cpu", "a limit", free_bytes, free_bytes)
        return fit(spec, shape, device, length, may_shorten=request.may_shorten, cases=())

    nothing = on(1)
    cut = [one for one in nothing.further if one.field == "train.sequence_length"]
    leanest = cut[0] if cut and request.may_shorten else nothing.after
    most, least = nothing.before.high_bytes, leanest.high_bytes
    tight = on(round(least + request.share * (most - least))).after.high_bytes
    free = RUNTIME + round((tight - RUNTIME) * (1 + request.room))
    return on(free), Device("cpu", "cpu", "a limit", free, free)


def outcome_of(request: Request) -> Outcome | None:
    """Two steps of what was accepted; None if nothing was."""
    torch.manual_seed(0)
    case = request.case
    model = case.model()
    adapter = SETTINGS[case.method]["kind"] in ("lora", "qlora")
    traces = trace_activations(case.config(), ("float32",), (adapter,))
    shape = shape_of(model, "random").model_copy(update={"traces": traces})
    fitting, device = fitted(request, shape)
    if not fitting.fits:
        return None
    forecast = Ways(shape, device, case.sequence_length, ()).forecast(fitting.spec)
    assert forecast.high_bytes <= device.free_bytes
    return Outcome(
        request,
        tuple(f"{s.field} {s.before} -> {s.after}" for c in fitting.changes for s in c.settings),
        device.free_bytes - RUNTIME,
        forecast.tensor_bytes,
        metered_peak(model, fitting.spec, case),
    )


def metered_peak(model: Any, spec: RunSpec, case: Case) -> int:
    """Of all tensors, in two steps of batches as wide as there can be."""
    train = spec.train
    if train.activation_checkpointing:
        recompute_activations(model)
    method = METHODS[spec.method.kind]()
    method.prepare(model, spec, CPU)
    model.train()
    traits_of(model)  # looked at before the first step, as a run does
    width = min(train.sequence_length, case.sequence_length)
    batches: list[Batch] = []
    for _ in range(train.grad_accumulation):
        tokens = torch.randint(3, case.vocab_size, (train.batch_size, width))
        batches.append(Batch(tokens, torch.ones_like(tokens), tokens.clone()))
    peak = 0
    for step in (1, 2):
        with LiveTensorMeter(live_tensors(model, method, spec)) as meter:
            method.step(batches, 1e-4, step)
        peak = max(peak, meter.peak_bytes)
    return peak


def summary(outcomes: Sequence[Outcome], refused: int) -> dict[str, Any]:
    """How many stayed under their limits, and what was changed."""
    under = sum(one.is_under for one in outcomes)
    fields = Counter(change.split()[0] for one in outcomes for change in one.changes)
    return {
        "requests": len(outcomes) + refused,
        "accepted": len(outcomes),
        "changed": sum(bool(one.changes) for one in outcomes),
        "settings": dict(fields),
        "under_the_limit": under,
        "under_the_limit_percent": round(100 * under / len(outcomes), 1),
        "largest_peak_of_limit_percent": round(
            max(100 * one.peak_bytes / one.limit_bytes for one in outcomes), 1
        ),
    }


def write_result(path: Path, outcomes: Sequence[Outcome], refused: int, seed: int) -> None:
    """One request to a line."""
    head = {
        "benchmark": "fit_requests",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "transformers": version("transformers"),
        "seed": seed,
        **summary(outcomes, refused),
    }
    lines = [json.dumps(asdict(one)) for one in outcomes]
    text = json.dumps(head, indent=1).removesuffix("\n}")
    requests = ",\n  ".join(lines)
    write_whole(path, f'{text},\n "outcomes": [\n  {requests}\n ]\n}}\n'.encode())


def main() -> None:
    """Try every request and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-method", type=int, default=PER_METHOD)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    refused = 0
    started = time.monotonic()
    for request in random_requests(options.per_method, options.seed):
        one = outcome_of(request)
        if one is None:
            refused += 1
            continue
        outcomes.append(one)
        if not one.is_under:
            print(f"{100 * one.peak_bytes / one.limit_bytes:.1f} % of the limit: {one}", flush=True)
    print(json.dumps(summary(outcomes, refused), indent=1))
    print(f"{time.monotonic() - started:.0f} s")
    if options.save:
        write_result(options.save, outcomes, refused, options.seed)


if __name__ == "__main__":
    main()
