"""Making a request fit: which settings to change, in what order, and what each change costs.

What leaves the training as it is comes first, and is all that is changed without being asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from engine.contract.spec import RunSpec
from engine.memory.cases import Case, read_cases
from engine.memory.changes import Change, Setting, with_changes
from engine.memory.devices import Device
from engine.memory.estimate import Forecast
from engine.memory.gpus import GpuFit, smallest_gpu
from engine.memory.model_shape import ModelShape
from engine.memory.ways import Ways

__all__ = ["Change", "Fitting", "Setting", "fit"]


@dataclass(frozen=True)
class Fitting:
    """What became of a request.

    Attributes:
        spec: The request with the changes.
        changes: In the order they were made. Where it does not fit, all that helps without consent.
        before: The forecast of the request.
        after: The forecast of `spec`.
        fits: Whether its upper end is within what is free.
        further: Ways that need consent, each by itself on top of the changes; only where it does
            not fit.
        gpu: The smallest that would hold `spec`, where it does not fit; None if none would.
    """

    spec: RunSpec
    changes: tuple[Change, ...]
    before: Forecast
    after: Forecast
    fits: bool
    further: tuple[Change, ...] = ()
    gpu: GpuFit | None = None

    @property
    def slower(self) -> float:
        """A step's time with all changes, as a multiple of that without them."""
        return prod(change.slower for change in self.changes)


def fit(
    spec: RunSpec,
    shape: ModelShape,
    device: Device,
    longest_tokens: int | None = None,
    *,
    may_shorten: bool = False,
    cases: tuple[Case, ...] | None = None,
) -> Fitting:
    """Change as little as makes a request fit into what is free on a device.

    Activations are recomputed first; then a batch is taken in several micro-batches, where the
    method can add up gradients. Both leave the updates as they are. Where that is not enough, and
    with consent, conversations are cut shorter, if it fits then. Where it does not fit, all else
    that would help is in `further`.

    Args:
        spec: A complete spec.
        shape: The model's shapes.
        device: Where it will run.
        longest_tokens: Longest conversation of the data, if known; else the sequence length.
        may_shorten: Whether conversations may be cut shorter.
        cases: By which forecasts are corrected; those of this computer if None.
    """
    ways = Ways(shape, device, longest_tokens, read_cases() if cases is None else cases)
    before = ways.forecast(spec)
    changes: list[Change] = []
    if not ways.holds(before):
        changes = ways.automatic(spec)
    if may_shorten and not _fits(changes, ways.holds(before)):
        shorter = ways.shorten(with_changes(spec, changes))
        changes.extend([shorter] if shorter and shorter.fits else [])
    changed = with_changes(spec, changes)
    after = ways.forecast(changed)
    if ways.holds(after):
        return Fitting(changed, tuple(changes), before, after, fits=True)
    further = tuple(ways.further(changed))
    gpu = smallest_gpu(changed, shape, longest_tokens)
    return Fitting(changed, tuple(changes), before, after, False, further, gpu)


def _fits(changes: list[Change], at_once: bool) -> bool:
    return changes[-1].fits if changes else at_once
