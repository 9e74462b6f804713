"""How fast a device computes, as it was measured here: kept for this user, read without torch."""

from __future__ import annotations

import math
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from platformdirs import user_cache_dir

from engine.contract.durable import as_object, read_json, write_json

if TYPE_CHECKING:
    from engine.memory.devices import Device

SCHEMA = 1


@dataclass(frozen=True)
class MachineRates:
    """What `python -m engine measure` found.

    Attributes:
        device: Key of the device; see `device_key`.
        flops_per_s: Floating-point operations in a second, in the products of a training step, by
            the format that is computed in.
        bytes_per_s: Bytes read and written in a second, by operations that make a new tensor.
        seconds_per_operation: What the smallest operation takes, autograd's part included.
    """

    device: str
    flops_per_s: dict[str, float]
    bytes_per_s: float
    seconds_per_operation: float

    def flops(self, compute_bytes: int) -> float:
        """Operations in a second in the format of that many bytes; the slowest if it is unknown."""
        wanted = self.flops_per_s.get({2: "bfloat16", 4: "float32"}.get(compute_bytes, ""))
        return wanted or min(self.flops_per_s.values())


def device_key(device: Device) -> str:
    """A file's name for a device: a home folder may be shared by several computers.

    Two GPUs of one model have the same rates, so its number is no part of it.
    """
    where = f"{device.kind} {device.name} {platform.node()}"
    return re.sub(r"[^a-z0-9]+", "-", where.lower()).strip("-")[:120]


def rates_path(key: str) -> Path:
    """Where a device's rates are kept for this user."""
    return Path(user_cache_dir("qft-workbench")) / "rates" / f"{key}.json"


def rates_of(device: Device) -> MachineRates | None:
    """What was measured on this device; None if nothing was, or the file cannot be read."""
    document = read_json(rates_path(device_key(device)))
    return None if document is None else _from_json(document)


def save_rates(rates: MachineRates) -> Path:
    """Keep rates for forecasts to come; returns the file.

    Raises:
        OSError: The user's cache cannot be written to.
    """
    path = rates_path(rates.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema_version": SCHEMA, **asdict(rates)})
    return path


def _from_json(document: dict[str, Any]) -> MachineRates | None:
    flops = as_object(document.get("flops_per_s"))
    bytes_per_s = positive_number(document.get("bytes_per_s"))
    per_operation = positive_number(document.get("seconds_per_operation"))
    device = document.get("device")
    if document.get("schema_version") != SCHEMA or not isinstance(device, str) or not flops:
        return None
    by_format = {name: positive_number(value) for name, value in flops.items()}
    if bytes_per_s is None or per_operation is None or None in by_format.values():
        return None
    return MachineRates(device, cast("dict[str, float]", by_format), bytes_per_s, per_operation)


def positive_number(value: object) -> float | None:
    """A number that can be divided by; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None
