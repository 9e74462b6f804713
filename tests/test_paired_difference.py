"""The difference of two models has the interval that its name promises."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.paired_difference import (
    RESAMPLES,
    Difference,
    difference_of_means,
    difference_of_shares,
)


def test_the_bootstrap_is_what_a_plain_loop_computes() -> None:
    before, after = np.array([3.0, 10.0, 2.0, 8.0]), np.array([1.0, 9.0, 2.5, 3.0])
    sizes = np.array([2, 5, 1, 4])
    found = difference_of_means(before, after, sizes, seed=3)
    assert found.value == pytest.approx((15.5 - 23) / 12)
    generator = np.random.Generator(np.random.PCG64(3))
    draws = generator.integers(0, 4, size=(RESAMPLES, 4))
    means = [
        sum(float(after[i] - before[i]) for i in one) / sum(int(sizes[i]) for i in one)
        for one in draws.tolist()
    ]
    assert found.interval is not None
    assert [found.interval.low, found.interval.high] == pytest.approx(
        [np.quantile(means, 0.025), np.quantile(means, 0.975)]
    )


def test_many_examples_are_drawn_in_blocks() -> None:
    """More than are held at once, and the interval is the normal one."""
    generator = np.random.default_rng(0)
    before = generator.normal(20, 4, 5000)
    moved = generator.normal(-1, 2, 5000)
    sizes = np.full(5000, 10)
    found = difference_of_means(before, before + moved, sizes, seed=3)
    assert difference_of_means(before, before + moved, sizes, seed=3) == found
    assert difference_of_means(before, before + moved, sizes, seed=4) != found
    assert found.interval is not None
    half = 1.96 * moved.std() / math.sqrt(5000) / 10
    assert found.interval.low == pytest.approx(found.value - half, abs=half / 20)
    assert found.interval.high == pytest.approx(found.value + half, abs=half / 20)
    assert found.is_clear


@given(
    before=st.lists(st.floats(0, 100), min_size=2, max_size=20),
    moved=st.floats(-10, 10),
    seed=st.integers(0, 2**32),
)
def test_the_same_change_everywhere_is_certain(
    before: list[float], moved: float, seed: int
) -> None:
    sizes = np.arange(1, len(before) + 1)
    losses = np.array(before)
    found = difference_of_means(losses, losses + moved * sizes, sizes, seed)
    assert found.interval is not None
    ends = (found.value, found.interval.low, found.interval.high)
    assert ends == pytest.approx((moved,) * 3, abs=1e-9)
    other = difference_of_means(losses + moved * sizes, losses, sizes, seed)
    assert other.interval is not None
    assert (other.value, other.interval.low) == pytest.approx(
        (-found.value, -found.interval.high), abs=1e-9
    )


def test_of_one_example_there_is_no_interval() -> None:
    found = difference_of_means(np.array([2.0]), np.array([1.0]), np.array([4]))
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
