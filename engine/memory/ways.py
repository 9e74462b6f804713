"""Ways to need less memory: each by itself, and in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from math import prod
from typing import Any

from engine.contract.bundled import known_longest_tokens
from engine.contract.method_settings import QFT_PRESETS, MethodKind
from engine.contract.spec import RunSpec
from engine.memory.calibration import narrowed
from engine.memory.cases import Case, read_cases
from engine.memory.changes import Change, Setting, with_changes, with_settings
from engine.memory.devices import Device
from engine.memory.estimate import Forecast, estimate
from engine.memory.model_shape import ModelShape

# A forward pass more, where a step has a forward pass and a backward pass of one or two such. On a
# 2-core CPU it was less: 18 % of a step of full tuning, 30 % of one of LoRA.
RECOMPUTING_TRAINED, RECOMPUTING_FROZEN = 4 / 3, 3 / 2
# For each doubling of the micro-batches. On a 2-core CPU eight times one conversation of 128 tokens
# took 14 to 17 % longer than once eight.
MICRO_BATCH_SHARE = 0.05
# Tokens in a pass that keep a GPU busy; an assumption.
_BUSY_TOKENS = 512
SHORTEST_TOKENS = 64
_SHORTER = 3 / 4
_WHOLE_TOKENS = 8
# By method, settings that take less memory, and what they give up.
_LIGHTER: dict[MethodKind, tuple[tuple[dict[str, Any], str], ...]] = {
    "qft": (
        (
            {"preset": "lean", **QFT_PRESETS["lean"]},
            "QFT's lean preset keeps no residual, and moments in 4 bits: less exact updates.",
        ),
    ),
    "full": (
        ({"optimizer": "adamw_8bit"}, "Moments of AdamW in 8 bits: slightly less exact updates."),
        ({"precision": "bf16"}, "Weights and gradients in 16 bits, rounded stochastically."),
    ),
}

Way = Callable[[RunSpec], Change | None]


@dataclass(frozen=True)
class Ways:
    """Ways to need less of one device."""

    shape: ModelShape
    device: Device
    longest_tokens: int | None
    cases: tuple[Case, ...] = field(default_factory=read_cases)

    def forecast(self, spec: RunSpec) -> Forecast:
        """Corrected by what runs like it needed on this computer."""
        estimated = estimate(spec, self.shape, self.device, self.longest_tokens)
        return narrowed(estimated, spec, self.shape, self.device, self.cases)

    def holds(self, forecast: Forecast) -> bool:
        """Whether even its upper end is within what is free."""
        return forecast.high_bytes <= self.device.free_bytes

    def change(
        self, spec: RunSpec, settings: tuple[Setting, ...], slower: float, why: str, consent: bool
    ) -> Change | None:
        """One change; None where the method cannot do that, or nothing would be won."""
        changed = with_settings(spec, *settings)
        if changed is None:
            return None
        forecast = self.forecast(changed)
        if forecast.high_bytes >= self.forecast(spec).high_bytes:
            return None
        total, high, fits = forecast.total_bytes, forecast.high_bytes, self.holds(forecast)
        return Change(settings, total, high, fits, slower, consent, why)

    def automatic(self, spec: RunSpec) -> list[Change]:
        """What leaves the training as it is."""
        recomputed = self.recompute(spec)
        changes = [recomputed] if recomputed else []
        if recomputed and recomputed.fits:
            return changes
        divided = self.divide(with_changes(spec, changes))
        if divided is None:
            return changes
        alone = self.divide(spec) if recomputed else None
        if alone and alone.fits and self._keeps_busy(with_changes(spec, [alone])):
            return [alone]  # they cost less time than recomputing does
        return [*changes, divided]

    def _keeps_busy(self, spec: RunSpec) -> bool:
        """Whether micro-batches are large enough that many of them take no more time than one."""
        tokens = spec.train.batch_size * self._widest(spec)
        return self.device.kind == "cpu" or tokens >= _BUSY_TOKENS

    def _widest(self, spec: RunSpec) -> int:
        """Tokens in the longest row."""
        longest = self.longest_tokens
        if longest is None:
            longest = known_longest_tokens(spec.model.source, spec.data.source)
        limits = (spec.train.sequence_length, self.shape.max_position, longest)
        packed = spec.train.batching == "packed"
        return min(limit for limit in limits[: 2 if packed else 3] if limit)

    def recompute(self, spec: RunSpec) -> Change | None:
        """Activations that are computed twice and kept once."""
        now = spec.train.activation_checkpointing
        if now is True:
            return None
        frozen = spec.method.kind in ("lora", "qlora")
        return self.change(
            spec,
            (Setting("train.activation_checkpointing", now, True),),
            RECOMPUTING_FROZEN if frozen else RECOMPUTING_TRAINED,
            "Activations are computed again in the backward pass; the updates stay the same.",
            consent=False,
        )

    def divide(self, spec: RunSpec) -> Change | None:
        """A batch in the fewest micro-batches that fit, or in single conversations."""
        size, times = spec.train.batch_size, spec.train.grad_accumulation
        return _best(self._divided(spec, size, times, part) for part in _divisors(size))

    def _divided(self, spec: RunSpec, size: int, times: int, part: int) -> Change | None:
        return self.change(
            spec,
            (
                Setting("train.batch_size", size, part),
                Setting("train.grad_accumulation", times, times * size // part),
            ),
            1 + MICRO_BATCH_SHARE * ((size // part).bit_length() - 1),
            f"Gradients of {size // part} smaller batches add up to one update; each update still "
            f"learns from {size * times} conversations.",
            consent=False,
        )

    def further(self, spec: RunSpec) -> Iterator[Change]:
        """What makes the training another: each way by itself, or all where none is enough."""
        ways = [self.learn_from_fewer, *self.lighter(spec), self.shorten]
        alone = [change for change in (way(spec) for way in ways) if change]
        yield from alone
        if len(alone) > 1 and not any(change.fits for change in alone):
            together = self.together(spec, ways)
            if together.high_bytes < min(change.high_bytes for change in alone):
                yield together

    def together(self, spec: RunSpec, ways: list[Way]) -> Change:
        """Several ways, one on top of the other, until it fits or nothing is left."""
        changes: list[Change] = []
        for way in ways:
            change = way(with_changes(spec, changes))
            changes.extend([change] if change else [])
            if change and change.fits:
                break
        last = changes[-1]
        return Change(
            tuple(chain.from_iterable(change.settings for change in changes)),
            last.total_bytes,
            last.high_bytes,
            last.fits,
            prod(change.slower for change in changes),
            needs_consent=True,
            why=" ".join(change.why for change in changes),
        )

    def learn_from_fewer(self, spec: RunSpec) -> Change | None:
        """A smaller batch, where gradients cannot be added up."""
        size = spec.train.batch_size
        return _best(
            self.change(
                spec,
                (Setting("train.batch_size", size, part),),
                part / size,
                f"Each update learns from {part} instead of {size} conversations.",
                consent=True,
            )
            for part in _divisors(size)
        )

    def lighter(self, spec: RunSpec) -> list[Way]:
        """Settings of the method that take less memory."""
        return [
            partial(self._set, wanted=wanted, why=why)
            for wanted, why in _LIGHTER.get(spec.method.kind, ())
        ]

    def _set(self, spec: RunSpec, *, wanted: dict[str, Any], why: str) -> Change | None:
        now = {name: getattr(spec.method, name) for name in wanted}
        settings = tuple(
            Setting(f"method.{name}", now[name], value)
            for name, value in wanted.items()
            if now[name] != value
        )
        return self.change(spec, settings, 1.0, why, consent=True) if settings else None

    def shorten(self, spec: RunSpec) -> Change | None:
        """Conversations cut to the greatest length that fits, or to the shortest."""
        now, widest = spec.train.sequence_length, self._widest(spec)
        return _best(
            self.change(
                spec,
                (Setting("train.sequence_length", now, length),),
                length / widest,
                f"What is beyond {length:,} tokens of a conversation is cut off and not learned.",
                consent=True,
            )
            for length in _lengths(widest)
        )


def _best(found: Iterator[Change | None]) -> Change | None:
    """The first that fits; else the last, which needs least."""
    last = None
    for change in filter(None, found):
        last = change
        if change.fits:
            break
    return last


def _divisors(size: int) -> Iterator[int]:
    """Smaller parts that a batch can be taken in, the largest first.

    >>> list(_divisors(12)), list(_divisors(7)), list(_divisors(1))
    ([6, 4, 3, 2, 1], [1], [])
    """
    yield from (part for part in range(size // 2, 0, -1) if size % part == 0)


def _lengths(tokens: int) -> Iterator[int]:
    """Shorter and shorter, by a quarter each time.

    >>> list(_lengths(256)), list(_lengths(64))
    ([192, 144, 104, 72, 64], [])
    """
    while tokens > SHORTEST_TOKENS:
        whole = int(tokens * _SHORTER) // _WHOLE_TOKENS * _WHOLE_TOKENS
        tokens = max(SHORTEST_TOKENS, whole)
        yield tokens
