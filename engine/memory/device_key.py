"""What a GPU is known by on this computer, whatever CUDA shows of it to which program. No CUDA."""

# NVML ships without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import os

import pynvml

from engine.memory.devices import visible_indices


def device_key(device: str) -> str | None:
    """The UUID of a GPU, or its number where the driver tells none; None for what is no GPU.

    Args:
        device: As torch calls it: `cuda`, `cuda:1`, `cpu`.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    ordinal = int(number or 0)
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        uuids = [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except pynvml.NVMLError:
        return f"cuda-{ordinal}"
    names = [[str(index), uuid] for index, uuid in enumerate(uuids)]
    visible = visible_indices(os.environ.get("CUDA_VISIBLE_DEVICES"), names)
    return uuids[visible[ordinal]] if ordinal < len(visible) else f"cuda-{ordinal}"


def _text(value: str | bytes) -> str:
    """Older drivers answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
