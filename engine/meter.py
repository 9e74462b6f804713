"""Measured memory: the peak of live tensors, the process, and the card."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pynvml
import torch
from torch import Tensor

from engine.tensor_meter import LiveTensorMeter

MEASURED_STEPS = 2


class StepPeak:
    """The peak of the first steps: live tensors on CPU, the allocator's own counter on CUDA.

    Args:
        device: Where the steps run.
        alive: Gives the tensors that exist between two steps.
        report: Called once, with the bytes.
        steps_done: Steps of the run before this attempt; after the first few nothing is measured.
        peak_bytes: What an earlier attempt measured.

    Attributes:
        peak_bytes: The most of all steps so far; None before the first.
        resting_bytes: What was alive before the step with the highest peak.
        reserved_bytes: The most that PyTorch held of the card; None on CPU.
    """

    def __init__(
        self,
        device: torch.device,
        alive: Callable[[], Iterable[Tensor]],
        report: Callable[[int], None],
        steps_done: int = 0,
        peak_bytes: int | None = None,
    ) -> None:
        self._device = device
        self._alive = alive
        self._report = report
        self._steps_left = max(0, MEASURED_STEPS - steps_done)
        self.peak_bytes = peak_bytes
        self.resting_bytes: int | None = None
        self.reserved_bytes: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether no further step is measured."""
        return not self._steps_left

    @contextmanager
    def around_step(self) -> Iterator[None]:
        """Measure one step; after the first few, do nothing."""
        if not self._steps_left:
            yield
            return
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            resting = torch.cuda.memory_allocated(self._device)
            yield
            peak = torch.cuda.max_memory_allocated(self._device)
            reserved = torch.cuda.max_memory_reserved(self._device)
            self.reserved_bytes = max(reserved, self.reserved_bytes or 0)
        else:
            with LiveTensorMeter(self._alive()) as meter:
                resting = meter.live_bytes
                yield
            peak = meter.peak_bytes
        # What a library keeps from the first step on, a workspace of cuBLAS, is no part of a step.
        if self.resting_bytes is None or peak >= (self.peak_bytes or 0):
            self.resting_bytes = resting
        self.peak_bytes = max(peak, self.peak_bytes or 0)
        self._steps_left -= 1
        if not self._steps_left:
            self._report(self.peak_bytes)


class MemorySampler(threading.Thread):
    """Tells of memory once a second until closed, from before the model is loaded.

    Args:
        device: Where the run computes.
        emit: Called in this thread with the fields of a `vram` event.
        period_s: Seconds between samples.
    """

    def __init__(
        self,
        device: torch.device,
        emit: Callable[[dict[str, int | None]], None],
        period_s: float = 1.0,
    ) -> None:
        super().__init__(name="memory-sampler", daemon=True)
        self._device = device
        self._emit = emit
        self._period_s = period_s
        self._closed = threading.Event()
        self._process = psutil.Process()

    def run(self) -> None:
        """Until closed."""
        self._emit(self.sample())
        while not self._closed.wait(self._period_s):
            self._emit(self.sample())
        self._emit(self.sample())

    def close(self) -> None:
        """Take the last sample and end."""
        self._closed.set()
        self.join()

    def sample(self) -> dict[str, int | None]:
        """Bytes now; None where this computer cannot tell."""
        rss = self._process.memory_info().rss
        if self._device.type != "cuda":
            return {
                "allocated_bytes": None,
                "reserved_bytes": None,
                "device_used_bytes": None,
                "host_rss_bytes": rss,
            }
        return {
            "allocated_bytes": torch.cuda.memory_allocated(self._device),
            "reserved_bytes": torch.cuda.memory_reserved(self._device),
            "device_used_bytes": _device_used(self._device),
            "host_rss_bytes": rss,
        }


def peak_resident_bytes() -> int | None:
    """The most main memory that this process ever held; None where the system does not say."""
    if sys.platform == "linux":
        # Not `getrusage`: there a child begins with what its parent held.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
        return None
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # only here: Windows has none

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def process_bytes(device: torch.device) -> int | None:
    """What this process holds of the card, its context included; None where NVML does not say."""
    if device.type != "cuda":
        return None
    try:
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(_handle(device))
    except pynvml.NVMLError:
        return None
    own = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    return own[0] if own else None


def _device_used(device: torch.device) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(_handle(device)).used)
    except pynvml.NVMLError:
        return None


def _handle(device: torch.device) -> Any:
    pynvml.nvmlInit()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)
