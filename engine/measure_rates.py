"""How fast this computer computes: short pieces of what a training step does, the best of each."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from engine.memory.devices import Device
from engine.memory.machine_rates import MachineRates, device_key

Clock = Callable[[], float]
# Tokens, inputs, outputs. A GPU needs more at once to be busy.
_SHAPES = {
    "cpu": ((512, 512, 1536), (512, 1536, 512), (256, 320, 1024)),
    "cuda": ((4096, 2048, 5632), (4096, 5632, 2048), (2048, 2048, 2048)),
}
_FORMATS = {"cpu": ("float32",), "cuda": ("bfloat16", "float32")}
# Elements of one tensor in a streaming pass: those of one product, or of one update.
_STREAMED = {"cpu": 1 << 22, "cuda": 1 << 26}
_OPERATIONS = 200
_LEAST, _MOST, _SECONDS = 5, 60, 0.15  # repetitions of a piece, and how long it may go on


def measure_rates(device: Device, clock: Clock = time.perf_counter) -> MachineRates:
    """Measure in about two seconds, or less.

    Args:
        device: As `engine.memory.devices` names it.
        clock: Seconds; a benchmark on a busy computer may count those of its own thread.

    Raises:
        torch.OutOfMemoryError: The device has no room for some megabytes.
    """
    place = torch.device(device.id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flops = {name: _flops_per_s(place, name, clock) for name in _FORMATS[device.kind]}
        return MachineRates(
            device_key(device),
            flops,
            _bytes_per_s(place, clock),
            _seconds_per_operation(place, clock),
        )


def _flops_per_s(place: torch.device, name: str, clock: Clock) -> float:
    """Of forward product, gradient of the inputs and gradient of the weight, all shapes alike."""
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    flops = seconds = 0.0
    for tokens, inputs, outputs in _SHAPES[place.type]:
        taken = torch.randn(tokens, inputs, device=place).to(dtype)
        weight = torch.randn(outputs, inputs, device=place).to(dtype)
        gradient = torch.randn(tokens, outputs, device=place).to(dtype)

        def products(
            taken: Tensor = taken, weight: Tensor = weight, gradient: Tensor = gradient
        ) -> tuple[Tensor, Tensor, Tensor]:
            return functional.linear(taken, weight), gradient @ weight, gradient.T @ taken

        flops += 3 * 2 * tokens * inputs * outputs
        seconds += _best_seconds(products, place, clock)
    return flops / seconds


def _bytes_per_s(place: torch.device, clock: Clock) -> float:
    """A tensor read and a new one written, as activations are made."""
    tensor = torch.randn(_STREAMED[place.type], device=place)
    return 2 * tensor.nbytes / _best_seconds(lambda: tensor * 1.5, place, clock)


def _seconds_per_operation(place: torch.device, clock: Clock) -> float:
    """Of a chain of small operations with its backward pass."""
    start = torch.ones(64, device=place, requires_grad=True)

    def chain() -> None:
        value = start
        for _ in range(_OPERATIONS):
            value = value * 1.01
        value.sum().backward()

    return _best_seconds(chain, place, clock) / (2 * _OPERATIONS)


def _best_seconds(piece: Callable[[], object], place: torch.device, clock: Clock) -> float:
    """Of several repetitions after a first one: whatever other programs do, they only slow it."""
    wait = torch.cuda.synchronize if place.type == "cuda" else lambda: None
    times: list[float] = []
    piece()
    wait()
    end = time.perf_counter() + _SECONDS
    while len(times) < _LEAST or (time.perf_counter() < end and len(times) < _MOST):
        started = clock()
        piece()
        wait()
        times.append(clock() - started)
    return min(times)
