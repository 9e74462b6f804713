"""The frame's own line: the device and its free memory."""

from __future__ import annotations

from typing import Any

from engine.memory.devices import Device
from qft_gui.view.numbers import gib


def gauge(device: Device) -> dict[str, Any]:
    """How much memory there is, and how much of it is free now."""
    used = device.total_bytes - device.free_bytes
    return {
        "name": device.name,
        "free": gib(device.free_bytes),
        "total": gib(device.total_bytes),
        "used_percent": round(100 * used / max(1, device.total_bytes)),
    }
