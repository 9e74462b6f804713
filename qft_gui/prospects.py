"""What more can be said of a request than its memory: its time, what would make it fit, and where.

The window does here what `python -m engine estimate` does, for one row of the page at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

from engine.contract.bundled import sample_datasets
from engine.contract.spec import RunSpec
from engine.memory.calibration import narrowed
from engine.memory.cases import read_cases
from engine.memory.changes import Change, with_changes
from engine.memory.devices import Device
from engine.memory.estimate import Forecast, Verdict, estimate
from engine.memory.fit import Fitting
from engine.memory.gpus import Gpu, known_gpus
from engine.memory.machine_rates import MachineRates
from engine.memory.model_shape import ModelShape
from engine.memory.resolve import resolve_for_device
from engine.memory.step_time import StepTime, TotalTime, step_time, total_time
from engine.memory.ways import Way, Ways


@dataclass(frozen=True)
class Prospect:
    """One complete request on one device.

    Attributes:
        forecast: Corrected by what runs like it needed on this computer.
        is_corrected: Whether there were such runs.
        step: Time of a step; None where the device was not measured.
        total: Time of the whole run; None where it is not known.
        changes: For one that does not fit, the fewest changes of settings that would make it fit;
            None if none would, or where it fits.
    """

    spec: RunSpec
    forecast: Forecast
    is_corrected: bool = False
    step: StepTime | None = None
    total: TotalTime | None = None
    changes: tuple[Change, ...] | None = None


@dataclass(frozen=True)
class CardSize:
    """GPUs of one memory size, and what the request would be on them.

    Attributes:
        forecast: On the card of that size with the least free.
    """

    memory_gib: int
    cards: tuple[Gpu, ...]
    forecast: Forecast

    @property
    def verdict(self) -> Verdict:
        """Whether it fits there."""
        return self.forecast.verdict


def prospect(
    spec: RunSpec,
    shape: ModelShape,
    device: Device,
    rates: MachineRates | None,
    num_rows: int | None,
) -> Prospect:
    """Memory and time of a complete spec.

    Args:
        spec: Complete.
        shape: The model's.
        device: Where it would run.
        rates: The device's, if they were measured.
        num_rows: Rows of the data, if they are known.
    """
    estimated = estimate(spec, shape, device)
    forecast = narrowed(estimated, spec, shape, device, read_cases())
    step = step_time(spec, shape, device, rates)
    total = total_time(spec, shape, device, step, rates, num_rows) if step else None
    return Prospect(spec, forecast, forecast is not estimated, step, total)


def enough_of(fitting: Fitting) -> tuple[Change, ...] | None:
    """The fewest changes that make a request fit, of all that was found; None if none do."""
    if fitting.fits:
        return fitting.changes
    way = next((change for change in fitting.further if change.fits), None)
    return (*fitting.changes, way) if way else None


def fewest_changes(found: Prospect, shape: ModelShape, device: Device) -> tuple[Change, ...] | None:
    """What `engine.memory.fit` would find, ended at the first way that is enough.

    Args:
        found: The request.
        shape: The model's.
        device: What it has to fit on.
    """
    spec, forecast, ways = found.spec, found.forecast, Ways(shape, device, None)
    lighter = ways.lighter(spec)
    lasting = forecast.states_bytes + forecast.terms.get("runtime", 0)
    if lasting > device.free_bytes and not lighter:
        return None  # no pass is small enough beside weights that are too large
    changes = ways.automatic(spec)
    if changes and changes[-1].fits:
        return tuple(changes)
    changed = with_changes(spec, changes)
    helping: list[Way] = []
    for way in (ways.learn_from_fewer, *lighter, ways.shorten):
        change = way(changed)
        if change is not None and change.fits:
            return (*changes, change)
        helping.extend([way] if change else [])
    together = ways.together(changed, helping) if len(helping) > 1 else None
    return (*changes, together) if together and together.fits else None


def change_key(change: Change) -> str:
    """A change as the page asks for it: what it sets."""
    return ",".join(f"{one.field}={one.after}" for one in change.settings)


def lasting_advice(spec: RunSpec, shape: ModelShape, device: Device) -> tuple[str, ...]:
    """What is to be said of a request whether it fits or not: ways to fit have buttons."""
    roomy = replace(device, free_bytes=1 << 62)
    return narrowed(estimate(spec, shape, roomy), spec, shape, roomy, read_cases()).advice


def num_rows(source: str, rows_of_file: int | None) -> int | None:
    """Rows of the data that a request names.

    Args:
        source: As the spec names it.
        rows_of_file: Of a person's own file, if it was read.
    """
    sample = sample_datasets().get(source)
    return sample.rows if sample else rows_of_file


def card_sizes(asked: RunSpec, shape: ModelShape) -> tuple[CardSize, ...]:
    """Every size of GPU that trains in 16 bits, the smallest first.

    Args:
        asked: With presets resolved; what it leaves open to the device is decided on each card.
        shape: The model's.
    """
    usable = [gpu for gpu in known_gpus() if gpu.bfloat16]
    sizes: list[CardSize] = []
    for memory_gib, group in groupby(usable, key=lambda gpu: gpu.memory_gib):
        cards = tuple(group)
        device = min((gpu.empty() for gpu in cards), key=lambda one: one.free_bytes)
        complete = resolve_for_device(asked, shape, device)
        sizes.append(CardSize(memory_gib, cards, estimate(complete, shape, device)))
    return tuple(sizes)
