"""Who may use a GPU: one process at a time, by a lock that the kernel frees on any death.

Training, chat, judging, serving and whatever tries or measures something share it; an export works
in main memory and needs none. Beside the lock a JSON file says who holds it; whoever finds the lock
taken names the holder, and nobody is ever put out of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
from platformdirs import user_data_dir

from engine.contract.durable import read_json, write_json
from engine.contract.errors import RequestError
from engine.contract.identity import Identity, current_identity, is_alive

Purpose = Literal["training", "chat", "judging", "serving", "a trial", "measuring"]
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class DeviceHolder:
    """Who holds a device.

    Attributes:
        identity: The process.
        purpose: What it does with the device.
        name: The run or the model that it does it with; may be empty.
    """

    identity: Identity
    purpose: Purpose
    name: str

    @property
    def words(self) -> str:
        """For people, to stand in a sentence."""
        what = f"{self.purpose} of {self.name}" if self.name else self.purpose
        return f"{what} (process {self.identity.pid})"


class DeviceBusyError(RequestError):
    """The device is in use; nothing was done to it.

    Attributes:
        holder: Who holds it; None in the moment before the holder has said who it is.
    """

    def __init__(self, holder: DeviceHolder | None) -> None:
        who = holder.words if holder else "another program of this app"
        advice = "Wait until it ends, or stop it."
        if holder is not None and holder.purpose == "chat":
            advice = "Unload the chat's models first."
        super().__init__("train.device", f"the GPU is in use by {who}.", advice)
        self.holder = holder

    def as_json(self) -> dict[str, str]:
        """As any mistake, of a class of its own."""
        return {**super().as_json(), "class": "device_busy"}


class DeviceClaim:
    """A device that is ours until `release`, or until this process ends in any way."""

    def __init__(self, lock: filelock.BaseFileLock | None, record: Path | None) -> None:
        self._lock = lock
        self._record = record

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        if self._lock is None or not self._lock.is_locked:
            return
        if self._record is not None:
            self._record.unlink(missing_ok=True)
        self._lock.release(force=True)

    def __enter__(self) -> DeviceClaim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def claim_device(key: str | None, purpose: Purpose, name: str = "") -> DeviceClaim:
    """Take a device, at once or not at all.

    Args:
        key: What the device is known by on this computer, such as a GPU's UUID; None for a CPU,
            which needs no lock.
        purpose: What for.
        name: Of the run or the model.

    Raises:
        DeviceBusyError: Someone else holds it.
        RequestError: The folder of the locks cannot be written to.
    """
    if key is None:
        return DeviceClaim(None, None)
    path = _lock_path(key)
    # Released by whichever thread ends the work.
    lock = filelock.FileLock(path, timeout=0, thread_local=False)
    record = path.with_suffix(".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()  # pyright: ignore[reportUnknownMemberType]
        write_json(record, {**current_identity().as_json(), "purpose": purpose, "name": name})
    except filelock.Timeout as error:
        raise DeviceBusyError(_recorded(record)) from error
    except OSError as error:
        lock.release(force=True)
        reason = error.strerror or "it fails"
        raise RequestError(
            "train.device", f"{path.parent} cannot be written to ({reason}).", "Free some space."
        ) from error
    return DeviceClaim(lock, record)


def holder_of(key: str) -> DeviceHolder | None:
    """Who holds a device now; None if nobody does, or nobody who is alive."""
    return _recorded(_lock_path(key).with_suffix(".json"))


def _recorded(path: Path, alive: Callable[[Identity], bool] = is_alive) -> DeviceHolder | None:
    document = read_json(path)
    identity = Identity.from_json(document) if document else None
    if document is None or identity is None or not alive(identity):
        return None
    return DeviceHolder(
        identity, document.get("purpose", "training"), str(document.get("name", ""))
    )


def _lock_path(key: str) -> Path:
    folder = Path(user_data_dir("qft-workbench")) / "locks"
    return folder / f"{_UNSAFE.sub('-', key)[:100]}.lock"
