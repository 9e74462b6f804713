"""Rates are what others publish and compute, whatever the order and the side."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contract.preferences import changed_models, wilson, win_rate
from engine.contract.strengths import strengths
from engine.contract.votes import Vote
from tests.ballots import swapped, vote, votes_among


def test_the_interval_is_wilsons() -> None:
    found = wilson(14, 20)
    assert found is not None
    assert (round(found.low, 3), round(found.high, 3)) == (0.481, 0.855)
    assert wilson(0, 0) is None
    none, every = wilson(0, 10), wilson(10, 10)
    assert none is not None
    assert every is not None
    assert (none.low, every.high) == (0.0, 1.0)
    # Wilson's upper end without a win is z^2 / (n + z^2).
    assert none.high == pytest.approx(1.96**2 / (10 + 1.96**2))
    assert every.low == pytest.approx(1 - none.high)


@given(total=st.integers(1, 2000), share=st.floats(0, 1))
def test_the_interval_solves_the_score_equation(total: int, share: float) -> None:
    wins = round(share * total)
    found = wilson(wins, total)
    assert found is not None
    assert 0 <= found.low <= wins / total <= found.high <= 1
    for end in (found.low, found.high):
        deviation = math.sqrt(end * (1 - end) / total)
        away = abs(wins / total - end)
        assert away == pytest.approx(1.96 * deviation, abs=1e-9)


def test_a_rate_counts_ties_beside_it() -> None:
    votes = [vote("tuned", "base", "left")] * 9 + [vote("base", "tuned", "right")] * 5
    votes += [vote("base", "tuned", "left")] * 6 + [vote("tuned", "base", "tie")] * 3
    votes += [vote("tuned", "base", "both_bad"), vote("tuned", "third", "right")]
    found = win_rate(votes, "tuned", "base")
    assert (found.wins, found.losses, found.ties, found.both_bad) == (14, 6, 3, 1)
    assert found.winner is None
    assert found.sentence == (
        "tuned won 14 of 20 votes: 70.0%, with 95 % confidence 48.1% to 85.5%; no clear winner "
        "yet (3 ties, 1 with both bad)."
    )
    clear = win_rate([*votes, *[vote("tuned", "base", "left")] * 6], "base", "tuned")
    assert (clear.wins, clear.winner) == (6, "tuned")
    assert "tuned is preferred" in clear.sentence


def test_without_a_decisive_vote_there_is_no_number() -> None:
    found = win_rate([vote("a", "b", "tie")], "a", "b")
    assert (found.rate, found.interval, found.winner) == (None, None, None)
    assert found.sentence == "No vote has preferred one of the two yet (1 tie, 0 with both bad)."


def test_a_model_may_have_any_name() -> None:
    votes = [vote("tie", "both_bad", "left"), vote("tie", "both_bad", "tie")]
    found = win_rate(votes, "tie", "both_bad")
    assert (found.wins, found.losses, found.ties, found.both_bad) == (1, 0, 1, 0)


def test_one_name_for_two_states_is_noticed() -> None:
    votes = [vote("a", "b", "left", "1"), vote("a", "c", "left", "2"), vote("b", "c", "left")]
    assert changed_models(votes) == ("a",)


@given(votes=votes_among("abc"), chance=st.randoms())
def test_order_and_side_do_not_matter(votes: list[Vote], chance: random.Random) -> None:
    other = [swapped(one) if chance.random() < 0.5 else one for one in votes]
    chance.shuffle(other)
    for pair in itertools.combinations("abc", 2):
        assert win_rate(other, *pair) == win_rate(votes, *pair)
    assert strengths(other) == strengths(votes)


@given(votes=votes_among("ab"))
def test_the_other_models_rate_is_the_mirror(votes: list[Vote]) -> None:
    one, other = win_rate(votes, "a", "b"), win_rate(votes, "b", "a")
    assert (one.wins, one.losses, one.winner) == (other.losses, other.wins, other.winner)
    if one.interval and other.interval:
        assert one.interval.low == pytest.approx(1 - other.interval.high)
        assert one.interval.high == pytest.approx(1 - other.interval.low)
