"""How far two models differ on the same examples, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from engine.contract.preferences import Interval, wilson

RESAMPLES = 10_000
LEAST_ROWS = 5  # of fewer the intervals hold the truth far less often than they say
_DRAWS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Difference:
    """After minus before.

    Attributes:
        value: The difference itself.
        interval: Where it lies with 95 % confidence; None where there are too few rows.
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
    before: np.ndarray, after: np.ndarray, sizes: np.ndarray, rows: np.ndarray, seed: int = 0
) -> Difference:
    """Difference of two mean losses, with the interval of the paired bootstrap over rows.

    Rows are drawn again, each with all of its examples, both of their losses and their sizes.
    Paired, so that what makes an example hard for both models cancels ("An introduction to the
    bootstrap", Efron and Tibshirani, 1993, chapters 8 and 13). Whole rows, since the examples of
    one are alike: drawing examples would take ten pieces of a text for ten texts ("Bootstrap-based
    improvements for inference with clustered errors", Cameron, Gelbach and Miller, 2008, the pairs
    cluster bootstrap). The percentiles lie further out than 2.5 and 97.5, as far as Student's t is
    wider than the normal distribution, since of few rows the plain ones are too narrow ("What
    teachers should know about the bootstrap", Hesterberg, 2015, the expanded percentile interval).

    Args:
        before: Summed loss of each example, float64.
        after: As above, in the same order.
        sizes: Over how many tokens each was summed.
        rows: What tells the row of each example from others.
        seed: Decides the draws: the same seed, the same interval.
    """
    _, places = np.unique(rows, return_inverse=True)
    moved, counted = np.bincount(places, after - before), np.bincount(places, sizes)
    value, count = float(moved.sum() / counted.sum()), len(moved)
    if count < LEAST_ROWS:
        return Difference(value, None)
    generator = np.random.Generator(np.random.PCG64(seed))
    found = np.empty(RESAMPLES)
    at_once = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, RESAMPLES, at_once):
        stop = min(start + at_once, RESAMPLES)
        drawn = generator.integers(0, count, size=(stop - start, count))
        found[start:stop] = moved[drawn].sum(axis=1) / counted[drawn].sum(axis=1)
    tail = tail_share(count)
    low, high = np.quantile(found, (tail, 1 - tail))
    return Difference(value, Interval(float(low), float(high)))


def tail_share(count: int) -> float:
    """Share of resamples below the interval of so many rows; 2.5 % in the limit.

    >>> [round(100 * tail_share(count), 2) for count in (5, 20, 1000)]
    [0.1, 1.59, 2.48]
    """
    normal = NormalDist()
    return normal.cdf(-math.sqrt(count / (count - 1)) * _student(normal.inv_cdf(0.975), count - 1))


def _student(normal: float, freedom: int) -> float:
    """Student's quantile from the normal one ("Handbook of mathematical functions", 26.7.5)."""
    terms = (
        (normal**3 + normal) / 4,
        (5 * normal**5 + 16 * normal**3 + 3 * normal) / 96,
        (3 * normal**7 + 19 * normal**5 + 17 * normal**3 - 15 * normal) / 384,
        (79 * normal**9 + 776 * normal**7 + 1482 * normal**5 - 1920 * normal**3 - 945 * normal)
        / 92160,
    )
    return normal + sum(term / freedom**power for power, term in enumerate(terms, 1))


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
