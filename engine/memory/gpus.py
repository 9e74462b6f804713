"""Which GPU would hold a run: NVIDIA's cards with their memory, and a forecast on an empty one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from engine.contract.bundled import ASSETS
from engine.contract.spec import RunSpec
from engine.memory.devices import Device
from engine.memory.estimate import Forecast, estimate
from engine.memory.model_shape import ModelShape
from engine.memory.resolve import resolve_for_device
from engine.memory.units import GIB, MIB

# Not measured here: idle cards report between 0.2 and 1 GiB as used, which is what the driver keeps
# for itself and what a desktop draws on.
HELD_SHARE, HELD_AT_LEAST_BYTES = 0.04, round(0.4 * GIB)
_BFLOAT16_FROM = 8.0


@dataclass(frozen=True)
class Gpu:
    """One line of `assets/gpus.json`.

    Attributes:
        memory_gib: As it is sold.
        driver_mib: As NVIDIA's driver reports it: less where the card corrects errors.
        compute_capability: NVIDIA's number for what the card can do.
    """

    name: str
    memory_gib: int
    driver_mib: int
    kind: Literal["desktop", "laptop", "workstation", "server"]
    compute_capability: float

    @property
    def bfloat16(self) -> bool:
        """Whether it multiplies 16-bit numbers of the kind that training here uses."""
        return self.compute_capability >= _BFLOAT16_FROM

    def empty(self) -> Device:
        """The card with nothing on it but driver and desktop."""
        total = self.driver_mib * MIB
        held = max(HELD_AT_LEAST_BYTES, round(HELD_SHARE * total))
        return Device("cuda", "cuda", self.name, total, total - held)


@dataclass(frozen=True)
class GpuFit:
    """A card that holds a run, and the forecast on it."""

    gpu: Gpu
    forecast: Forecast

    @property
    def size(self) -> str:
        """How large a card has to be, for people."""
        return f"{self.gpu.memory_gib} GiB or more, such as the {self.gpu.name}"

    @property
    def sentence(self) -> str:
        """What is needed, for people."""
        return f"Needs a GPU with {self.size}."


NO_GPU_HOLDS_IT = "Needs more than any single GPU in the list has."


@cache
def known_gpus() -> tuple[Gpu, ...]:
    """All cards, the smallest memory first; of one size desktop cards first, as listed."""
    entries = json.loads((ASSETS / "gpus.json").read_text(encoding="utf-8"))
    kinds = ("desktop", "laptop", "workstation", "server")
    cards = [Gpu(**entry) for entry in entries]
    return tuple(sorted(cards, key=lambda card: (card.memory_gib, kinds.index(card.kind))))


def would_fit(
    spec: RunSpec, shape: ModelShape, longest_tokens: int | None = None
) -> tuple[GpuFit, ...]:
    """Every card that would hold this request, the smallest first; none if it is too large.

    Args:
        spec: With presets resolved. What it leaves open to the device is decided on each card.
        shape: The model's.
        longest_tokens: Longest conversation of the data, if known.

    Raises:
        RequestError: The model has no layer that an adapter could be put on.
    """
    return tuple(_fits(spec, shape, longest_tokens))


def smallest_gpu(
    spec: RunSpec, shape: ModelShape, longest_tokens: int | None = None
) -> GpuFit | None:
    """The smallest card that would hold this request; None where no single one does.

    Raises:
        RequestError: The model has no layer that an adapter could be put on.
    """
    return next(_fits(spec, shape, longest_tokens), None)


def _fits(spec: RunSpec, shape: ModelShape, longest_tokens: int | None) -> Iterator[GpuFit]:
    forecasts: dict[int, Forecast] = {}
    for gpu in known_gpus():
        device = gpu.empty()
        if not gpu.bfloat16:
            continue
        if device.free_bytes not in forecasts:
            complete = resolve_for_device(spec, shape, device, longest_tokens)
            forecasts[device.free_bytes] = estimate(complete, shape, device, longest_tokens)
        if forecasts[device.free_bytes].verdict == "fits":
            yield GpuFit(gpu, forecasts[device.free_bytes])
