"""How long a model takes into memory: by the last one that was loaded here, read without torch."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_dir

from engine.contract.durable import read_json, write_json
from engine.memory.devices import Device
from engine.memory.machine_rates import device_key, positive_number

# Of a common solid-state disk, until something was loaded.
ASSUMED_BYTES_PER_S = 500_000_000.0
# What a load takes however small the model is; smaller models tell nothing of the speed.
_START_S = 1.0
_LEAST_TELLING_BYTES = 100_000_000


def expected_load_s(num_bytes: int, device: Device) -> float:
    """Seconds that weights take from the disk to a device, roughly.

    Args:
        num_bytes: Of the weights as they are kept.
        device: Where to.
    """
    document = read_json(_path(device)) or {}
    rate = positive_number(document.get("bytes_per_s")) or ASSUMED_BYTES_PER_S
    return _START_S + num_bytes / rate


def keep_load_speed(num_bytes: int, seconds: float, device: Device) -> None:
    """Note how long a load took, for those to come; one that tells nothing is passed over.

    Args:
        num_bytes: Of the weights as they are kept.
        seconds: That it took.
        device: Where to.
    """
    if num_bytes < _LEAST_TELLING_BYTES:
        return
    path = _path(device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"bytes_per_s": num_bytes / max(seconds - _START_S, seconds / 2, 1e-3)})
    except OSError:
        # An estimate less; the models are loaded all the same.
        path.unlink(missing_ok=True)


def _path(device: Device) -> Path:
    return Path(user_cache_dir("qft-workbench")) / "loading" / f"{device_key(device)}.json"
