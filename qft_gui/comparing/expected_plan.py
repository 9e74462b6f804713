"""How two models will sit in memory, said before anything is loaded, and who holds the GPU."""

from __future__ import annotations

from engine.contract.device_lock import DeviceHolder, holder_of
from engine.contract.errors import RequestError
from engine.memory.device_key import device_key
from engine.memory.devices import Device, choose_device
from qft_gui.comparing.pair import BASE, Pair
from qft_gui.comparing.sides import Sides
from qft_gui.view.numbers import gib

ADAPTERS = ("lora", "qlora")
# What the worker keeps free beside the weights of both.
ROOM_BESIDE = 1.2


def expected_plan(sides: Sides, pair: Pair, device: Device | None = None) -> list[str]:
    """Sentences about a pair that is not loaded yet.

    Args:
        sides: Who can be asked.
        pair: Who will be.
        device: Where; by default what `auto` means now.
    """
    if not pair.right:
        return []
    device = device or choose_device("auto")
    lines = _holder_line(device)
    if not pair.left:
        return [*lines, _alone(sides, pair, device)]
    method = _shared_method(sides, pair)
    if method is not None:
        lines.append("One set of weights will be in memory; the adapter is switched per answer.")
        if method == "qlora":
            lines.append("The original answers from its weights in 4 bits, as in training.")
        return lines
    sizes = [sides.weight_bytes(value) for value in (pair.left, pair.right)]
    known = [size for size in sizes if size is not None]
    if len(known) < 2:
        lines.append("What is not on this computer has to be downloaded before it can answer.")
        return lines
    needed, free = sum(known), device.free_bytes
    if ROOM_BESIDE * needed <= free:
        lines.append(f"Both will be in memory: about {gib(needed)} of {gib(free)} GiB free.")
    else:
        lines.append(
            f"Both need about {gib(needed)} GiB and {gib(free)} are free: each is loaded when it "
            "is asked. How long that takes is said once the first is there."
        )
    return lines


def _alone(sides: Sides, pair: Pair, device: Device) -> str:
    size = sides.weight_bytes(pair.right)
    if size is None:
        return "One model will be in memory."
    return f"One model will be in memory: about {gib(size)} of {gib(device.free_bytes)} GiB free."


def _shared_method(sides: Sides, pair: Pair) -> str | None:
    """The method of an adapter that shares the weights of the other side."""
    for value, other in ((pair.right, pair.left), (pair.left, pair.right)):
        method = sides.method_of(value)
        if method in ADAPTERS:
            base = sides.name(f"{BASE}{sides.run_of(value)}")
            run = sides.run_of(other)
            has_same_base = base == sides.name(f"{BASE}{run}" if run else other)
            has_same_form = run is None or sides.method_of(other) == method
            return method if has_same_base and has_same_form else None
    return None


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
