"""What memory there is and how much is free now: NVML for GPUs, the system for RAM. No CUDA."""

# NVML ships without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import pynvml

from engine.contract.errors import RequestError


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
        RequestError: That GPU is not there.
    """
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
    """NVIDIA GPUs that CUDA programs may see; empty without a driver."""
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return [_gpu(index) for index in range(count) if _is_visible(index)]
    except pynvml.NVMLError:
        return []


def _gpu(index: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    text = name.decode() if isinstance(name, bytes) else str(name)
    return Device(
        f"cuda:{index}",
        "cuda",
        text.removeprefix("NVIDIA "),
        int(memory.total),
        int(memory.free),
    )


def _is_visible(index: int) -> bool:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible is None or str(index) in visible.split(",")


def this_computer() -> Device:
    """Main memory, within the limit that a container may set."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit = _container_limit()
    if limit is not None and limit < total:
        used = total - free
        total, free = limit, max(0, limit - used)
    return Device("cpu", "cpu", f"{os.cpu_count() or 1} CPU cores", total, free)


def _container_limit() -> int | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
