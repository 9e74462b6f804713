"""What memory there is and how much is free now: NVML for GPUs, the system for RAM. No CUDA."""

# NVML ships without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import pynvml

from engine.contract.errors import RequestError

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Device:
    """One place to train on. Sizes in bytes; `name` is for people."""

    id: str
    kind: Literal["cuda", "cpu"]
    name: str
    total_bytes: int
    free_bytes: int


def choose_device(wish: str) -> Device:
    """The device that `train.device` means; `auto` takes the GPU with the most free memory.

    Raises:
        RequestError: That device is not there.
    """
    if wish == "mps" and sys.platform != "darwin":
        raise RequestError("train.device", "mps is for Apple computers.", "Use auto or cpu.")
    gpus = list_gpus()
    if wish in ("cpu", "mps") or (wish == "auto" and not gpus):
        return this_computer()
    if wish in ("auto", "cuda") and gpus:
        return max(gpus, key=lambda gpu: gpu.free_bytes)
    for gpu in gpus:
        if gpu.id == wish:
            return gpu
    found = ", ".join(gpu.id for gpu in gpus) or "no NVIDIA GPU"
    raise RequestError(
        "train.device", f"there is no {wish} here: found {found}.", "Use auto or cpu."
    )


def list_gpus() -> list[Device]:
    """NVIDIA GPUs that CUDA programs may see, in CUDA's order; empty without a driver.

    The engine's environment sets CUDA's order to that of the bus, which is NVML's.
    """
    try:
        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        names = [[str(i), _text(pynvml.nvmlDeviceGetUUID(h))] for i, h in enumerate(handles)]
        visible = visible_indices(os.environ.get("CUDA_VISIBLE_DEVICES"), names)
        return [_gpu(ordinal, handles[index]) for ordinal, index in enumerate(visible)]
    except pynvml.NVMLError:
        return []


def visible_indices(setting: str | None, names: list[list[str]]) -> list[int]:
    """Which GPUs CUDA shows, in its order: all, or those listed up to the first unknown one.

    Args:
        setting: The value of CUDA_VISIBLE_DEVICES, or None if it is not set.
        names: Of each GPU its index and its UUID; the setting may name a UUID's beginning.

    >>> visible_indices("1,0", [["0", "GPU-aa"], ["1", "GPU-bb"]])
    [1, 0]
    >>> visible_indices("GPU-b,7,0", [["0", "GPU-aa"], ["1", "GPU-bb"]])
    [1]
    """
    if setting is None:
        return list(range(len(names)))
    found: list[int] = []
    for wish in filter(None, (part.strip() for part in setting.split(","))):
        matches = [i for i, (index, uuid) in enumerate(names) if _names(wish, index, uuid)]
        if len(matches) != 1:
            break
        found.extend(matches)
    return found


def _names(wish: str, index: str, uuid: str) -> bool:
    return wish == index or (wish.startswith("GPU-") and uuid.startswith(wish))


def _gpu(ordinal: int, handle: Any) -> Device:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = _text(pynvml.nvmlDeviceGetName(handle)).removeprefix("NVIDIA ")
    return Device(f"cuda:{ordinal}", "cuda", name, int(memory.total), int(memory.free))


def _text(value: str | bytes) -> str:
    """Older drivers answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value


def this_computer() -> Device:
    """Main memory, within the limit that a container may set."""
    memory = psutil.virtual_memory()
    limit = _cgroup_bytes("memory.max")
    used = _cgroup_bytes("memory.current")
    total, free = memory.total, memory.available
    if limit is not None and used is not None and limit < total:
        total, free = limit, min(free, max(0, limit - used))
    return Device("cpu", "cpu", f"{os.cpu_count() or 1} CPU cores", total, free)


def _cgroup_bytes(name: str) -> int | None:
    """A number of this container's; None outside one, or where there is no limit."""
    try:
        text = (_CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
