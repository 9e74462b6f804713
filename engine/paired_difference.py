"""How far two models differ on the same examples, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.contract.preferences import Interval, wilson

RESAMPLES = 10_000
_DRAWS_AT_ONCE = 1 << 22
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Difference:
    """After minus before.

    Attributes:
        value: The difference itself.
        interval: Where it lies with 95 % confidence; None where there are too few examples.
    """

    value: float
    interval: Interval | None

    @property
    def is_clear(self) -> bool:
        """Whether zero lies outside."""
        return self.interval is not None and not self.interval.low <= 0 <= self.interval.high

    def bounds(self, factor: float = 1.0) -> dict[str, Any]:
        """`low` and `high` for programs."""
        interval = self.interval
        return {
            "low": interval.low * factor if interval else None,
            "high": interval.high * factor if interval else None,
        }


def difference_of_means(
    before: np.ndarray, after: np.ndarray, sizes: np.ndarray, seed: int = 0
) -> Difference:
    """Difference of two mean losses, with the percentile interval of the paired bootstrap.

    Whole examples are drawn again, each with both of its losses and its size, so that what makes
    an example hard for both models cancels ("An introduction to the bootstrap", Efron and
    Tibshirani, 1993, chapters 8 and 13).

    Args:
        before: Summed loss of each example, float64.
        after: As above, in the same order.
        sizes: Over how many tokens each was summed.
        seed: Decides the draws: the same seed, the same interval.
    """
    moved = after - before
    value = float(moved.sum() / sizes.sum())
    count = len(moved)
    if count < 2:
        return Difference(value, None)
    generator = np.random.Generator(np.random.PCG64(seed))
    found = np.empty(RESAMPLES)
    rows = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, RESAMPLES, rows):
        stop = min(start + rows, RESAMPLES)
        drawn = generator.integers(0, count, size=(stop - start, count))
        found[start:stop] = moved[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(found, _PERCENTILES)
    return Difference(value, Interval(float(low), float(high)))


def difference_of_shares(before: np.ndarray, after: np.ndarray) -> Difference:
    """Difference of two shares of hits on the same prompts, with Newcombe's interval.

    Unlike the bootstrap's it has a width where one of them hit everything ("Improved confidence
    intervals for the difference between binomial proportions based on paired data", Newcombe,
    1998, method 10).

    Args:
        before: Whether each prompt was hit, bool, at least one.
        after: As above, in the same order.
    """
    total = len(before)
    first, second = _Share(int(before.sum()), total), _Share(int(after.sum()), total)
    value = second.share - first.share
    phi = _correlation(before, after)
    low = _joined(second.below, first.above, phi)
    high = _joined(second.above, first.below, phi)
    return Difference(value, Interval(max(-1.0, value - low), min(1.0, value + high)))


class _Share:
    def __init__(self, hits: int, total: int) -> None:
        interval = wilson(hits, total)
        assert interval is not None
        self.share = hits / total
        self.below, self.above = self.share - interval.low, interval.high - self.share


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Of the hits, nearer to zero by a correction for continuity where it is positive."""
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    edges = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if not edges:
        return 0.0
    product = both * neither - lost * won
    corrected = max(0.0, product - len(before) / 2) if product > 0 else float(product)
    return corrected / math.sqrt(edges)
