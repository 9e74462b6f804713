"""How two models will sit in memory, said before anything is loaded, and who holds the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.contract.device_lock import DeviceHolder, holder_of
from engine.contract.errors import RequestError
from engine.memory.answering import FOUR_BIT, AnsweringModel, needed_bytes, needed_bytes_shared
from engine.memory.device_key import device_key
from engine.memory.devices import Device, choose_device
from engine.memory.holders import held_by
from engine.memory.load_speed import expected_load_s
from qft_gui.comparing.made_of import MadeOf
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.sides import Sides
from qft_gui.view.numbers import duration, gib
from qft_gui.view.sentences import sentence


def expected_plan(
    sides: Sides, pair: Pair, device: Device | None = None, *, worker: int | None = None
) -> list[str]:
    """Sentences about a pair that is not loaded yet.

    Args:
        sides: Who can be asked.
        pair: Who will be.
        device: Where; by default what `auto` means now.
        worker: The process of this window's chat, which empties its memory for them.
    """
    if not pair.right:
        return []
    device = device or choose_device("auto")
    lines = _holder_line(device)
    if worker is not None:
        device = _without(worker, device)
    try:
        made = [sides.made_of(value) for value in pair.values.values()]
        models = [one.memory for one in made]
        here = [one for one in models if one is not None]
        if len(here) < len(models):
            return [*lines, "How much memory it takes is known once the download is there."]
        if len(here) == 1:
            return [*lines, _fitting("One model", needed_bytes(here, device.kind), device)]
        if made[0].shares_weights_with(made[1]):
            return [*lines, *_shared(made, here, device)]
        return [*lines, _two(list(sides.names(pair).values()), here, device)]
    except RequestError as error:
        return [*lines, sentence(RequestError(error.field, error.message))]


def _fitting(what: str, needed: int, device: Device) -> str:
    """`what` is one thing."""
    free = gib(device.free_bytes)
    if needed <= device.free_bytes:
        return f"{what} will be in memory, about {gib(needed)} of {free} GiB free."
    return f"{what} needs about {gib(needed)} GiB and {free} are free: it may not fit."


def _shared(made: Sequence[MadeOf], models: Sequence[AnsweringModel], device: Device) -> list[str]:
    lines = [_fitting("One set of weights", needed_bytes_shared(models, device.kind), device)]
    lines.append("The adapter is switched for each answer.")
    forms = [one.base_form for one in made]
    if FOUR_BIT in forms and None in forms:
        lines.append("The original answers from its weights in 4 bits, as in training.")
    return lines


def _two(names: Sequence[str], models: Sequence[AnsweringModel], device: Device) -> str:
    needed, free = needed_bytes(models, device.kind), device.free_bytes
    if needed <= free:
        return f"Both will be in memory, about {gib(needed)} of {gib(free)} GiB free."
    waits = [
        f"{name} in about {duration(expected_load_s(one.weights_bytes, device))}"
        for name, one in zip(names, models, strict=True)
    ]
    return (
        f"Both need about {gib(needed)} GiB and {gib(free)} are free: each is loaded when it is "
        f"asked, {' and '.join(waits)}."
    )


def _without(process: int, device: Device) -> Device:
    """With as much free as there will be when a process holds nothing.

    That is the same before it loads, while it does and afterwards.
    """
    free = device.free_bytes + held_by(process, device)
    return replace(device, free_bytes=min(device.total_bytes, free))


def _holder_line(device: Device) -> list[str]:
    holder = gpu_holder(device)
    return [f"The GPU is held by {holder.words}."] if holder is not None else []


def gpu_holder(device: Device) -> DeviceHolder | None:
    """Who holds a GPU now; None for nobody, and for what is no GPU."""
    try:
        key = device_key(device.id)
        return holder_of(key) if key else None
    except RequestError:
        return None
