"""The difference of two models has the interval that its name promises."""

from __future__ import annotations

import doctest
import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import paired_difference
from engine.paired_difference import (
    LEAST_ROWS,
    RESAMPLES,
    Difference,
    difference_of_means,
    difference_of_shares,
    tail_share,
)


def test_the_bootstrap_is_what_a_plain_loop_computes() -> None:
    """Eight examples of five rows: a row comes with all of its examples or with none."""
    before = np.array([3.0, 10.0, 2.0, 8.0, 5.0, 6.0, 7.0, 4.0])
    after = np.array([1.0, 9.0, 2.5, 3.0, 5.5, 4.0, 6.0, 4.5])
    sizes, rows = np.array([2, 5, 1, 4, 3, 3, 6, 2]), np.array([4, 1, 4, 2, 9, 1, 7, 4])
    found = difference_of_means(before, after, sizes, rows, seed=3)
    assert found.value == pytest.approx((35.5 - 45) / 26)
    generator = np.random.Generator(np.random.PCG64(3))
    names = sorted(set(rows.tolist()))
    means: list[float] = []
    for draw in generator.integers(0, 5, size=(RESAMPLES, 5)).tolist():
        chosen = [place for one in draw for place in range(8) if rows[place] == names[one]]
        moved = sum(float(after[place] - before[place]) for place in chosen)
        means.append(moved / sum(int(sizes[place]) for place in chosen))
    # Student's t of 4 degrees of freedom is 2.776, and the variance of 5 rows is 4 / 5 too small.
    tail = NormalDist().cdf(-2.776 * math.sqrt(5 / 4))
    assert found.interval is not None
    assert [found.interval.low, found.interval.high] == pytest.approx(
        [np.quantile(means, tail), np.quantile(means, 1 - tail)], rel=1e-3
    )


def test_the_tails_are_as_documented() -> None:
    assert doctest.testmod(paired_difference).failed == 0
    # Student's 97.5 % quantiles, as tables have them.
    for freedom, quantile in ((4, 2.7764), (9, 2.2622), (30, 2.0423), (1000, 1.9623)):
        share = NormalDist().cdf(-quantile * math.sqrt((freedom + 1) / freedom))
        assert tail_share(freedom + 1) == pytest.approx(share, rel=5e-3)


@pytest.mark.parametrize("num_rows", [5, 12, 60])
def test_the_interval_of_rows_covers_the_truth(num_rows: int) -> None:
    """Examples of one row move together. Drawing examples covers the truth far too seldom."""
    generator = np.random.default_rng(num_rows)
    trials, by_row, by_example = 250, 0, 0
    for _ in range(trials):
        rows = np.repeat(np.arange(num_rows), generator.integers(1, 9, num_rows))
        sizes = generator.integers(5, 60, len(rows))
        own = generator.normal(0, 1, num_rows)[rows] + generator.normal(0, 0.3, len(rows))
        before = generator.normal(3, 1, len(rows)) * sizes
        for of_rows in (True, False):
            names = rows if of_rows else np.arange(len(rows))
            found = difference_of_means(before, before + own * sizes, sizes, names)
            assert found.interval is not None
            hit = found.interval.low <= 0 <= found.interval.high
            by_row, by_example = by_row + (of_rows and hit), by_example + (not of_rows and hit)
    assert 0.88 <= by_row / trials <= 0.99
    assert by_example / trials < 0.8


def test_many_rows_are_drawn_in_blocks() -> None:
    """More than are held at once, and the interval is the normal one."""
    generator = np.random.default_rng(0)
    before = generator.normal(20, 4, 5000)
    moved = generator.normal(-1, 2, 5000)
    sizes, rows = np.full(5000, 10), np.arange(5000)
    found = difference_of_means(before, before + moved, sizes, rows, seed=3)
    assert difference_of_means(before, before + moved, sizes, rows, seed=3) == found
    assert difference_of_means(before, before + moved, sizes, rows, seed=4) != found
    assert found.interval is not None
    half = 1.96 * moved.std() / math.sqrt(5000) / 10
    assert found.interval.low == pytest.approx(found.value - half, abs=half / 20)
    assert found.interval.high == pytest.approx(found.value + half, abs=half / 20)
    assert found.is_clear


@given(
    before=st.lists(st.floats(0, 100), min_size=LEAST_ROWS, max_size=20),
    moved=st.floats(-10, 10),
    seed=st.integers(0, 2**32),
)
def test_the_same_change_everywhere_is_certain(
    before: list[float], moved: float, seed: int
) -> None:
    sizes = np.arange(1, len(before) + 1)
    losses, rows = np.array(before), np.arange(len(before))
    found = difference_of_means(losses, losses + moved * sizes, sizes, rows, seed)
    assert found.interval is not None
    ends = (found.value, found.interval.low, found.interval.high)
    assert ends == pytest.approx((moved,) * 3, abs=1e-9)
    other = difference_of_means(losses + moved * sizes, losses, sizes, rows, seed)
    assert other.interval is not None
    assert (other.value, other.interval.low) == pytest.approx(
        (-found.value, -found.interval.high), abs=1e-9
    )


def test_of_few_rows_there_is_no_interval() -> None:
    one = np.ones(1)
    assert difference_of_means(2 * one, one, 4 * one, one) == Difference(-0.25, None)
    many, rows = np.ones(100), np.arange(100) % (LEAST_ROWS - 1)
    found = difference_of_means(2 * many, many, 4 * many, rows)
    assert found == Difference(-0.25, None)
    assert found.bounds() == {"low": None, "high": None}
    assert not found.is_clear


def cells(both: int, lost: int, won: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits before and after: so many prompts of each of the four kinds."""
    counts = (both, lost, won, neither)
    before = np.repeat([True, True, False, False], counts)
    after = np.repeat([True, False, True, False], counts)
    return before, after


@pytest.mark.parametrize(
    "chances", [(0.1, 0.05, 0.5, 0.35), (0.02, 0.01, 0.9, 0.07), (0.4, 0.1, 0.1, 0.4)]
)
def test_newcombes_interval_covers_the_truth(chances: tuple[float, ...]) -> None:
    """Over every outcome of 20 prompts, each with its probability."""
    total, truth, covered = 20, chances[2] - chances[1], 0.0
    for both, lost, won in itertools.product(range(total + 1), repeat=3):
        neither = total - both - lost - won
        if neither < 0:
            continue
        counts = (both, lost, won, neither)
        ways = math.factorial(total) / math.prod(map(math.factorial, counts))
        likely = ways * math.prod(p**n for p, n in zip(chances, counts, strict=True))
        interval = difference_of_shares(*cells(*counts)).interval
        assert interval is not None
        covered += likely * (interval.low <= truth <= interval.high)
    assert 0.93 <= covered <= 0.995


@given(counts=st.tuples(*[st.integers(0, 30)] * 4).filter(any))
def test_swapping_before_and_after_mirrors(counts: tuple[int, int, int, int]) -> None:
    before, after = cells(*counts)
    one, other = difference_of_shares(before, after), difference_of_shares(after, before)
    assert one.interval is not None
    assert other.interval is not None
    assert one.value == pytest.approx(-other.value)
    assert one.interval.low == pytest.approx(-other.interval.high)
    assert -1 <= one.interval.low <= one.value + 1e-12
    assert one.value - 1e-12 <= one.interval.high <= 1


def test_hitting_everything_is_not_certainty() -> None:
    found = difference_of_shares(*cells(0, 0, 43, 0))
    assert found.interval is not None
    assert found.value == found.interval.high == 1.0
    assert 0.8 < found.interval.low < 0.95
    assert found.bounds(100.0)["high"] == 100.0
