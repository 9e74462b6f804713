"""Does the device compute what a CPU computes? Small models, the same weights on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu_geometry import model_with, random_batch, random_weights
from benchmarks.gpu_settings import METHODS, missing_packages, plain_spec
from engine.contract.errors import RequestError
from engine.methods import METHODS as ENGINE_METHODS
from engine.methods.protocol import Method
from engine.quant.int8 import quantize_nearest, scales_of
from engine.quant.int8_product import product_int8
from engine.quant.randomness import RandomKey
from engine.quant.rounding import round_stochastic, stochastic_bfloat16

CPU = torch.device("cpu")
_DRAWS = 1 << 22
_SIGMAS = 6.0
_STEPS = 8
# Losses after a few steps: bfloat16 products against float32 ones, and rounding by other numbers.
_LOSS_TOLERANCE = 0.02
# So large that a tiny model learns a batch by heart, which the presets of large models would not.
_RATES = {"qft": 1e-3, "qlora": 1e-2, "lora": 1e-2, "lomo": 0.5, "adalomo": 2e-2, "full": 2e-3}
_RATE_OF_SGD = 0.5


class Finding(NamedTuple):
    """What a check found; `ok` is None where it could not be made."""

    ok: bool | None
    detail: str


def run_checks(device: torch.device) -> Iterator[dict[str, Any]]:
    """Every check, one after the other: `name`, `ok` and `detail` of each."""
    checks: dict[str, Callable[[], Finding]] = {
        "rounding to whole numbers is unbiased": lambda: whole_numbers_are_unbiased(device),
        "rounding to bfloat16 is unbiased": lambda: bfloat16_is_unbiased(device),
        "a key gives its own numbers, always the same": lambda: keys_decide(device),
        "8-bit codes and scales are those of a CPU": lambda: codes_agree(device),
        "8-bit products are those of a CPU": lambda: products_agree(device),
    }
    for name in METHODS:
        checks[f"{name} learns as on a CPU"] = lambda name=name: method_agrees(name, device)
    for name, check in checks.items():
        try:
            finding = check()
        except RequestError as error:  # what this hardware cannot do
            finding = Finding(None, str(error))
        except Exception as error:
            finding = Finding(False, f"{type(error).__name__}: {error}"[:300])
        yield {"name": name, **finding._asdict()}


def whole_numbers_are_unbiased(device: torch.device) -> Finding:
    """The mean of many roundings is the value, within what chance allows."""
    return _unbiased(0.3, 1.0, lambda values: round_stochastic(values, _key(1)), device)


def bfloat16_is_unbiased(device: torch.device) -> Finding:
    """As above; between 1 and 2 the numbers of bfloat16 are 2^-7 apart."""
    step = 2.0**-7
    value = 1 + 0.3 * step
    return _unbiased(value, step, lambda values: stochastic_bfloat16(values, _key(2)), device)


def _unbiased(
    value: float, step: float, round_all: Callable[[Tensor], Tensor], device: torch.device
) -> Finding:
    rounded = round_all(torch.full((_DRAWS // 64, 64), value, device=device)).double()
    error = (float(rounded.mean()) - value) / step
    # Of the mean of numbers that are one step higher with probability 0.3; on a CPU 64 neighbours
    # hang together by less than 2^-8.
    deviation = (0.3 * 0.7 / _DRAWS) ** 0.5 + 2.0**-16
    return Finding(abs(error) < _SIGMAS * deviation, f"off by {error:+.1e} steps")


def keys_decide(device: torch.device) -> Finding:
    """Resume relies on it."""
    one, again, other = (
        round_stochastic(torch.full((64, 64), 0.5, device=device), key)
        for key in (_key(3), _key(3), _key(4))
    )
    same, different = torch.equal(one, again), not torch.equal(one, other)
    return Finding(same and different, f"same key {same}, another key differs {different}")


def codes_agree(device: torch.device) -> Finding:
    """Quantizing a matrix of normal numbers."""
    matrix = torch.randn(256, 512, generator=torch.Generator().manual_seed(5)) * 0.02

    def quantized(where: torch.device) -> tuple[Tensor, Tensor]:
        placed = matrix.to(where)
        scales = scales_of(placed, 1, torch.bfloat16, 1.05)
        return scales.cpu(), quantize_nearest(placed, scales).cpu()

    (scales, codes), (their_scales, their_codes) = quantized(device), quantized(CPU)
    apart = int((codes.int() - their_codes.int()).abs().max())
    differing = int((codes != their_codes).sum())
    # A quotient on the edge between two codes may fall to either.
    ok = torch.equal(scales, their_scales) and apart <= 1 and differing <= codes.numel() // 10_000
    return Finding(ok, f"{differing} of {codes.numel()} codes differ, by {apart} at most")


def products_agree(device: torch.device) -> Finding:
    """Of 8-bit numbers: the sums are exact, so only the rounding of activations may differ."""
    generator = torch.Generator().manual_seed(6)
    inputs = torch.randn(32, 512, generator=generator)
    codes = torch.randint(-127, 128, (256, 512), generator=generator, dtype=torch.int8)
    scales = torch.rand(256, 1, generator=generator)
    ours = product_int8(inputs.to(device), codes.to(device), scales.to(device)).cpu()
    theirs = product_int8(inputs, codes, scales)
    error = float((ours - theirs).norm() / theirs.norm())
    return Finding(error < 1e-3, f"relative error {error:.1e}")


def method_agrees(name: str, device: torch.device) -> Finding:
    """A few steps on one batch, here and on a CPU: both learn, and come to the same loss."""
    missing = missing_packages(METHODS[name])
    if missing:
        return Finding(None, f"needs {', '.join(missing)}")
    here = _losses(name, device)
    # The reference multiplies dequantized weights, which every CPU can.
    exact = {"matmul": "dequantize"} if METHODS[name].filled.get("matmul") == "int8" else {}
    there = _losses(name, CPU, **exact)
    furthest = max(abs(a - b) / b for a, b in zip(here, there, strict=True))
    fell = here[-1] < 0.99 * here[0]
    detail = f"{here[0]:.3f} to {here[-1]:.3f} nats, CPU {there[-1]:.3f}"
    return Finding(furthest < _LOSS_TOLERANCE and fell, detail)


def _losses(name: str, device: torch.device, **method_settings: Any) -> list[float]:
    method = METHODS[name]
    kind, optimizer = method.filled["kind"], method.filled.get("optimizer")
    rate = _RATE_OF_SGD if optimizer == "sgd" else _RATES[kind]
    model = model_with("tiny", random_weights("tiny", CPU, CPU))  # the same everywhere
    owner: Method = ENGINE_METHODS[kind]()
    owner.prepare(model, plain_spec(method, 4, 32, **method_settings), device)
    model.train()
    batch = random_batch("tiny", 4, 32, device)
    reports = [owner.step([batch], rate, step) for step in range(1, _STEPS + 1)]
    return [report.loss_nats / report.num_target_tokens for report in reports]


def _key(number: int) -> RandomKey:
    return RandomKey(seed=0, step=1, tensor=number)
