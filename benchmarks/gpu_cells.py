"""One job of the GPU suite, in a process of its own: `benchmarks.gpu_suite` starts it.

Each finished measurement is one line of JSON in the job's file, so that a process that dies takes
only what it was at.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from transformers.utils import logging

from benchmarks.gpu_checks import run_checks
from benchmarks.gpu_geometry import model_with, random_batch, random_weights, shape_for
from benchmarks.gpu_jobs import Job, Line
from benchmarks.gpu_settings import METHODS, plain_spec
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.memory.estimate import Forecast, estimate
from engine.methods import METHODS as ENGINE_METHODS
from engine.methods.protocol import Method
from engine.model_traits import traits_of
from engine.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from engine.memory.devices import Device

WARM_UP, LEAST_STEPS, MOST_STEPS = 2, 3, 9
_SECONDS_PER_CELL = 4.0


class Hardware:
    """The device's memory and clock. On a CPU there is no peak to read, and no limit.

    Args:
        name: Of the device, for torch.
    """

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        self._cuda = self.device.type == "cuda"

    def limit(self, gib: float | None) -> None:
        """Let this process have no more than so much; None for everything."""
        if self._cuda:
            fraction = 1.0 if gib is None else gib * 2**30 / self.total_bytes
            torch.cuda.set_per_process_memory_fraction(min(1.0, fraction))

    @property
    def total_bytes(self) -> int:
        """Of the card; 0 on a CPU."""
        return torch.cuda.get_device_properties(self.device).total_memory if self._cuda else 0

    def forget_peak(self) -> None:
        """Free what is free, and count anew."""
        gc.collect()
        if self._cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> dict[str, int | None]:
        """Bytes since `forget_peak`: of tensors, of the allocator, and of the card just now.

        The last counts every process on the card, and the CUDA context.
        """
        if not self._cuda:
            return {"allocated_bytes": None, "reserved_bytes": None, "card_bytes": None}
        free, total = torch.cuda.mem_get_info()
        return {
            "allocated_bytes": torch.cuda.max_memory_allocated(),
            "reserved_bytes": torch.cuda.max_memory_reserved(),
            "card_bytes": total - free,
        }

    def seconds(self, step: Callable[[], object]) -> float:
        """How long a step takes until the device is done."""
        self._wait()
        started = time.perf_counter()
        step()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


@dataclass(frozen=True)
class _Prepared:
    """A method that has taken a model over, and what that took."""

    method: Method
    numbers: Line


def run_job(job: Job, emit: Callable[[Line], None]) -> None:
    """Measure everything that a job names, and tell each measurement as it is done."""
    hardware = Hardware(job.device)
    if job.kind == "checks":
        for check in run_checks(hardware.device):
            emit({"kind": "check", **check})
        emit({"kind": "checks", "outcome": "done"})
    elif job.kind == "claim":
        _claim(job, hardware, lambda line: emit({"kind": "claim", **line}))
    elif job.kind == "steps":
        _measure(job, hardware, None, lambda: _drawn(job, hardware), emit)
    else:
        # In main memory, where a run too has a model before its method takes it over.
        kept = dict(random_weights(job.geometry, hardware.device, torch.device("cpu")))
        for cap in job.caps_gib:
            _measure(job, hardware, cap, kept.items, emit)


def _drawn(job: Job, hardware: Hardware) -> Iterable[tuple[str, Tensor]]:
    """Weights on the device from the start, which saves the way there."""
    return random_weights(job.geometry, hardware.device, hardware.device)


def _measure(
    job: Job,
    hardware: Hardware,
    cap: float | None,
    weights: Callable[[], Iterable[tuple[str, Tensor]]],
    emit: Callable[[Line], None],
) -> None:
    """One model under one limit, and each size in turn."""
    hardware.limit(cap)
    places = [place for place in job.places if place.get("cap_gib") == cap]
    prepared: _Prepared | None = None
    too_many: float = math.inf  # tokens that memory ran out for
    for place, size in zip(places, job.sizes, strict=True):
        forecast = _forecast(job, size, hardware)
        found: Line = {**place, "forecast_bytes": forecast.tensor_bytes}
        if math.prod(size) >= too_many:
            emit({**found, "outcome": "out of memory", "reason": "as for fewer tokens"})
            continue
        if cap is None and 0 < hardware.total_bytes < forecast.low_bytes:
            need = forecast.low_bytes / 2**30
            emit({**found, "outcome": "skipped", "reason": f"forecast of at least {need:.1f} GiB"})
            continue
        try:
            prepared = prepared or _prepare(job, size, hardware, weights())
            emit({**found, **prepared.numbers, **_steps(job, size, hardware, prepared, cap)})
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            emit({**found, "outcome": "out of memory", **hardware.peak()})
            prepared, too_many = None, math.prod(size)  # half a step has been taken


def _prepare(
    job: Job, size: tuple[int, int], hardware: Hardware, weights: Iterable[tuple[str, Tensor]]
) -> _Prepared:
    method = METHODS[job.method]
    hardware.forget_peak()  # what is left of a model before this one must go first
    started = time.perf_counter()
    model = model_with(job.geometry, weights)
    owner: Method = ENGINE_METHODS[method.filled["kind"]]()
    owner.prepare(model, plain_spec(method, *size), hardware.device)
    model.train()
    traits_of(model)
    numbers: Line = {"prepare_s": time.perf_counter() - started}
    if job.kind == "caps":  # otherwise the whole model was on the device before
        numbers["prepare_peak_bytes"] = hardware.peak()["allocated_bytes"]
    return _Prepared(owner, numbers)


def _steps(
    job: Job, size: tuple[int, int], hardware: Hardware, prepared: _Prepared, cap: float | None
) -> Line:
    """Peaks and the median time of steps of one size. Under a limit, two steps say enough."""
    batch = random_batch(job.geometry, *size, hardware.device)
    hardware.forget_peak()
    losses: list[float] = []

    def step() -> None:
        rate = METHODS[job.method].learning_rate
        report = prepared.method.step([batch], rate, len(losses) + 1)
        losses.append(report.loss_nats / report.num_target_tokens)

    warm_up = [hardware.seconds(step) for _ in range(WARM_UP)]
    timed: list[float] = []
    while cap is None and len(timed) < MOST_STEPS:
        if len(timed) >= LEAST_STEPS and sum(timed) + warm_up[-1] > _SECONDS_PER_CELL:
            break
        timed.append(hardware.seconds(step))
    median = statistics.median(timed or warm_up[-1:])
    return {
        "outcome": "done" if cap is None else "fits",
        **hardware.peak(),
        "step_s": median,
        "num_timed": len(timed),
        "tokens_per_s": math.prod(size) / median,
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }


def _forecast(job: Job, size: tuple[int, int], hardware: Hardware) -> Forecast:
    kind = hardware.device.type
    device = SimpleNamespace(kind=kind, free_bytes=hardware.total_bytes or None)
    spec = plain_spec(METHODS[job.method], *size)
    shape = shape_for(job.geometry, spec, kind)
    return estimate(spec, shape, cast("Device", device))


def _claim(job: Job, hardware: Hardware, emit: Callable[[Line], None]) -> None:
    """QFT's peak alone, then its steps in turns with those of AdamW on weights in bfloat16.

    AdamW is torch's own, fused, with both moments in bfloat16: eight bytes for each weight with its
    gradient, and no rounding by chance. Both recompute activations.
    """
    (size,) = job.sizes
    batch = random_batch(job.geometry, *size, hardware.device)
    owner = _prepare(job, size, hardware, _drawn(job, hardware)).method
    rate, count = METHODS[job.method].learning_rate, 0

    def qft() -> None:
        nonlocal count
        count += 1
        owner.step([batch], rate, count)

    hardware.forget_peak()
    for _ in range(WARM_UP):
        qft()
    peak = {f"qft_{name}": value for name, value in hardware.peak().items()}
    place = {"geometry": job.geometry, "batch_size": size[0], "length": size[1], **peak}
    emit({**place, "outcome": "peak only"})
    try:
        adamw = _plain_adamw(model_with(job.geometry, _drawn(job, hardware)), batch, hardware)
        for _ in range(WARM_UP):
            adamw()
        rounds = [(hardware.seconds(qft), hardware.seconds(adamw)) for _ in range(MOST_STEPS)]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        emit({**place, "outcome": "peak only", "reason": "AdamW beside it does not fit"})
        return
    ours, theirs = (statistics.median(times) for times in zip(*rounds, strict=True))
    times = {"qft_step_s": ours, "adamw_step_s": theirs, "ratio": ours / theirs}
    emit({**place, "outcome": "done", **times, "rounds": len(rounds)})


def _plain_adamw(model: nn.Module, batch: Batch, hardware: Hardware) -> Callable[[], None]:
    model.to(hardware.device).train()  # its buffers; the weights are there
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)

    def step() -> None:
        (summed_loss(model, batch) / batch.num_target_tokens).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    """`python -m benchmarks.gpu_cells JOB FILE`: append what is measured to the file."""
    job, path = Job.from_json(sys.argv[1]), Path(sys.argv[2])
    logging.set_verbosity_error()
    with path.open("a", encoding="utf-8") as file:

        def emit(line: Line) -> None:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()

        run_job(job, emit)


if __name__ == "__main__":
    main()
