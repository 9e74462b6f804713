"""How long a step and a run take: what they have to do, over the rates that were measured here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.contract.bundled import known_longest_tokens
from engine.memory.passes import Pass
from engine.memory.plans import plan_for
from engine.memory.step_work import Work, evaluation_work, step_work

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec
    from engine.memory.devices import Device
    from engine.memory.machine_rates import MachineRates
    from engine.memory.model_shape import ModelShape

# A step takes up to so many times what was forecast, or as many times less: see
# benchmarks/results/step_forecast_cpu.json. On a GPU nobody has compared yet.
BAND_CPU, BAND_UNMEASURED = 1.4, 2.0
# Two steps that were tried: what other programs take from one moment to the next.
BAND_TRIED = 1.2
# Tokens of a typical row, as a share of those of the longest; the least that is likely.
TYPICAL_SHARE, LEAST_SHARE = 0.65, 0.4
FROM_RATES = "From the arithmetic of a step and this computer's measured rate."
FROM_STEPS = "From two steps that were tried."
_SAMPLES, _SAMPLE_TOKENS = 3, 48
# A generated token reads every weight once; calls of one block in it.
_CALLS_PER_TOKEN = 40
_DISK_BYTES_PER_S = 500e6
_RARELY = 2.0  # evaluations, samples and checkpoints: counted, and never compared


@dataclass(frozen=True)
class StepTime:
    """One optimizer step.

    Attributes:
        seconds: On a typical batch.
        low: It is unlikely to take less.
        high: It is unlikely to take more.
        source: One plain sentence: where this comes from.
    """

    seconds: float
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class TotalTime:
    """A whole run, without loading the model and exporting the result.

    Attributes:
        steps: Optimizer steps.
        seconds: For all of them, with evaluations, samples and checkpoints.
        low: It is unlikely to take less.
        high: It is unlikely to take more.
    """

    steps: int
    seconds: float
    low: float
    high: float


def step_time(
    spec: RunSpec,
    shape: ModelShape,
    device: Device,
    rates: MachineRates | None,
    longest_tokens: int | None = None,
    *,
    typical_tokens: int | None = None,
) -> StepTime | None:
    """Forecast the time of a step.

    Args:
        spec: A complete spec.
        shape: The model's shapes.
        device: Where it will run.
        rates: That device's.
        longest_tokens: Longest conversation of the data, if known; else the sequence length.
        typical_tokens: Tokens in a row of a typical batch, padding included, if known; else a share
            of the longest, and the band is wider.

    Returns:
        The forecast; None where the device was not measured.
    """
    if rates is None:
        return None
    longest = longest_tokens or known_longest_tokens(spec.model.source, spec.data.source)
    widest = _pass(spec, shape, device, longest)
    width = widest.tokens // spec.train.batch_size

    def seconds_with(tokens: int) -> float:
        one_pass = _pass(spec, shape, device, min(width, max(1, tokens)))
        return seconds_for(step_work(spec, shape, one_pass), one_pass, device, rates)

    known = typical_tokens is not None or spec.train.batching == "packed"
    typical = typical_tokens or (width if known else round(TYPICAL_SHARE * width))
    least, most = (typical, typical) if known else (round(LEAST_SHARE * width), width)
    band = BAND_CPU if device.kind == "cpu" else BAND_UNMEASURED
    return StepTime(
        seconds=seconds_with(typical),
        low=seconds_with(least) / band,
        high=seconds_with(most) * band,
        source=FROM_RATES,
    )


def tried_step_time(seconds: float, steps_differ: float = 1.0) -> StepTime:
    """From steps that ran.

    Args:
        seconds: Their middle.
        steps_differ: The slowest over the fastest of them, if that is more than the usual band.
    """
    band = max(BAND_TRIED, steps_differ)
    return StepTime(seconds, seconds / band, seconds * band, FROM_STEPS)


def total_time(
    spec: RunSpec,
    shape: ModelShape,
    device: Device,
    step: StepTime,
    rates: MachineRates | None = None,
    num_rows: int | None = None,
    num_steps: int | None = None,
) -> TotalTime | None:
    """The whole run: steps, evaluations, samples and checkpoints.

    Args:
        spec: A complete spec.
        shape: The model's shapes.
        device: Where it will run.
        step: One step, forecast or tried.
        rates: The device's; without them only the steps and the evaluations are counted.
        num_rows: Rows of the data, for a length in epochs and for evaluations.
        num_steps: Steps of the run, where that is known better than by counting rows.

    Returns:
        None where the number of steps is not known: the spec counts epochs, and there are no rows.
    """
    steps = num_steps or _num_steps(spec, num_rows)
    if steps is None:
        return None
    one_pass = _pass(spec, shape, device, None)
    evaluations = 1 + -(-steps // spec.train.eval_every)
    held_out = (num_rows or 0) * spec.data.eval_percent / 100 / spec.train.batch_size
    per_batch = _forward_share(spec, shape, one_pass) * step.seconds
    rest = evaluations * held_out * per_batch
    if rates is not None:
        rest += evaluations * _sample_seconds(shape, one_pass, device, rates)
    rest += steps // spec.train.checkpoint_every * _state_bytes(shape, one_pass) / _DISK_BYTES_PER_S
    return TotalTime(
        steps,
        steps * step.seconds + rest,
        steps * step.low + rest / _RARELY,
        steps * step.high + rest * _RARELY,
    )


def seconds_for(work: Work, one_pass: Pass, device: Device, rates: MachineRates) -> float:
    """Work over rates.

    What is computed and what is moved take turns, and add up. Calls do too on a CPU; to a GPU they
    are sent ahead, and cost time only where it would wait for them.
    """
    busy = work.flops / rates.flops(one_pass.compute_bytes) + work.moved_bytes / rates.bytes_per_s
    called = work.calls * rates.seconds_per_operation
    return max(busy, called) if device.kind == "cuda" else busy + called


def _pass(spec: RunSpec, shape: ModelShape, device: Device, tokens: int | None) -> Pass:
    return Pass.of(spec, shape, plan_for(spec.method), device.kind, tokens)


def _num_steps(spec: RunSpec, num_rows: int | None) -> int | None:
    train = spec.train
    if train.steps is not None:
        return train.steps
    if train.epochs is None or num_rows is None:
        return None
    rows = train.epochs * num_rows * (1 - spec.data.eval_percent / 100)
    return max(1, -(-round(rows) // (train.batch_size * train.grad_accumulation)))


def _forward_share(spec: RunSpec, shape: ModelShape, one_pass: Pass) -> float:
    """Time of a forward pass over one batch, as a share of a step's."""
    forward = evaluation_work(spec, shape, one_pass).flops
    return forward / step_work(spec, shape, one_pass).flops


def _sample_seconds(
    shape: ModelShape, one_pass: Pass, device: Device, rates: MachineRates
) -> float:
    """A few short replies, token by token, each of which needs every weight."""
    moved = 2.0 * shape.num_parameters * one_pass.compute_bytes
    work = Work(2.0 * shape.num_parameters, moved, _CALLS_PER_TOKEN * shape.num_layers)
    return _SAMPLES * _SAMPLE_TOKENS * seconds_for(work, one_pass, device, rates)


def _state_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """What a checkpoint holds: every weight that is trained, with its moments."""
    plan = one_pass.plan
    if plan.adapter is not None:
        kept = (plan.adapter.tensor.weight, *plan.adapter.tensor.moments)
        sizes = plan.adapter.matrices(shape)
        return sum(layout.nbytes(size) * count for size, count in sizes for layout in kept)
    return sum(
        layout.nbytes(tensor.stored_shape) * tensor.repeat
        for tensor in shape.tensors
        for layout in (plan.of(tensor.role).weight, *plan.of(tensor.role).moments)
    )
