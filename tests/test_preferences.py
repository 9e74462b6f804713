"""Rates and strengths are what others publish and compute, whatever the order and the side."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract.preferences import changed_models, models_in, wilson, win_rate
from engine.contract.strengths import fit, strengths
from engine.contract.votes import Choice, Message, Vote, VotedSide

CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "both_bad")
SWAPPED: dict[Choice, Choice] = {"left": "right", "right": "left"}
# American League East, 1987: games that row won against column ("Categorical Data Analysis",
# Agresti, 2002, table 10.10).
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
GAMES = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]


def vote(left: str, right: str, choice: Choice, fingerprint: str | None = None) -> Vote:
    sides = (VotedSide(model=name, fingerprint=fingerprint, reply="") for name in (left, right))
    first, second = sides
    question = (Message(role="user", content="Hi"),)
    return Vote(time=0, left=first, right=second, messages=question, seed=0, choice=choice)


def swapped(one: Vote) -> Vote:
    choice = SWAPPED.get(one.choice, one.choice)
    return one.model_copy(update={"left": one.right, "right": one.left, "choice": choice})


def votes_among(names: str, most: int = 30) -> st.SearchStrategy[list[Vote]]:
    pairs = [pair for pair in itertools.permutations(names, 2)]
    one = st.builds(lambda pair, choice: vote(pair[0], pair[1], choice), st.sampled_from(pairs),
                    st.sampled_from(CHOICES))  # fmt: skip
    return st.lists(one, max_size=most)


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
    assert models_in(votes) == ("tuned", "base", "third")
    clear = win_rate([*votes, *[vote("tuned", "base", "left")] * 6], "base", "tuned")
    assert (clear.wins, clear.winner) == (6, "tuned")
    assert "tuned is preferred" in clear.sentence


def test_without_a_decisive_vote_there_is_no_number() -> None:
    found = win_rate([vote("a", "b", "tie")], "a", "b")
    assert (found.rate, found.interval, found.winner) == (None, None, None)
    assert found.sentence == "No vote has preferred one of the two yet (1 tie, 0 with both bad)."
    assert found.as_json() == {
        **{"model": "a", "other": "b", "wins": 0, "losses": 0, "ties": 1, "both_bad": 0},
        **{"rate": None, "low": None, "high": None, "winner": None},
    }


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


def test_the_strengths_of_seven_teams_are_the_published_ones() -> None:
    found = fit(GAMES)
    last = found[-1][0]
    # Of R's BradleyTerry2 for the same table, Baltimore being zero.
    assert [round(value - last, 3) for value, _ in found] == [
        *(1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0.0)
    ]
    assert sum(value for value, _ in found) == pytest.approx(0, abs=1e-9)
    expected = np.linalg.pinv(information(np.array([value for value, _ in found]), GAMES))
    np.testing.assert_allclose([error for _, error in found], np.sqrt(np.diag(expected)), rtol=1e-9)


def information(values: np.ndarray, wins: list[list[int]]) -> np.ndarray:
    """Minus the second derivatives of the likelihood, in numpy."""
    games = np.array(wins) + np.array(wins).T
    chance = 1 / (1 + np.exp(values[None, :] - values[:, None]))
    told = games * chance * (1 - chance)
    return np.diag(told.sum(axis=1)) - told


def likelihood(values: np.ndarray, wins: np.ndarray) -> float:
    return float((wins * -np.log1p(np.exp(values[None, :] - values[:, None]))).sum())


@settings(max_examples=25)
@given(counts=st.lists(st.integers(1, 40), min_size=6, max_size=6))
def test_no_other_strengths_are_likelier(counts: list[int]) -> None:
    """Three models: every grid point around the fit is worse."""
    wins = [[0, *counts[:2]], [counts[2], 0, counts[3]], [*counts[4:], 0]]
    best = np.array([value for value, _ in fit(wins)])
    table = np.array(wins, dtype=float)
    for step in (1e-3, 0.1, 1.0):
        for moved in itertools.product((-step, 0.0, step), repeat=3):
            other = likelihood(best + np.array(moved), table)
            assert other <= likelihood(best, table) + 1e-9


def test_the_interval_covers_the_truth() -> None:
    """Of 400 tables drawn from known strengths about 95 % of intervals hold the true one."""
    generator = np.random.default_rng(0)
    truth = np.array([0.6, 0.1, -0.7])
    chance = 1 / (1 + np.exp(truth[None, :] - truth[:, None]))
    covered = total = 0
    for _ in range(400):
        upper = np.triu(generator.binomial(40, chance), 1)
        wins = upper + np.triu(40 - upper, 1).T
        for (value, error), true in zip(fit(wins.tolist()), truth, strict=True):
            covered += abs(value - true) <= 1.96 * error
            total += 1
    assert 0.93 <= covered / total <= 0.97


def test_ties_are_halves_and_both_bad_is_left_out() -> None:
    pairs = list(itertools.combinations("abc", 2))
    ties = [vote(one, other, "tie") for one, other in pairs]
    found = strengths([*ties, vote("a", "b", "both_bad")])
    assert found is not None
    assert [one.log_strength for one in found.models] == [0.0, 0.0, 0.0]
    assert (found.ties, found.both_bad, found.has_prior) == (3, 1, False)
    assert [(one.wins, one.votes) for one in found.models] == [(1.0, 2)] * 3
    assert len(found.notes) == 2
    assert found.models[0].as_json()["share"] == 0.5


@pytest.mark.parametrize("count", [1, 20])
def test_who_won_everything_stays_finite(count: int) -> None:
    beaten = [("a", "b"), ("a", "c"), ("b", "c")]
    votes = [vote(one, other, "left") for one, other in beaten] * count
    found = strengths(votes)
    assert found is not None
    assert found.has_prior
    assert "half a vote each way" in found.notes[0]
    assert [one.model for one in found.models] == ["a", "b", "c"]
    assert all(one.low < one.log_strength < one.high for one in found.models)
    expected = fit([[0, count + 0.5, count + 0.5], [0.5, 0, count + 0.5], [0.5, 0.5, 0]])
    assert [one.log_strength for one in found.models] == [value for value, _ in expected]
    assert 0 < found.models[2].as_json()["share_low"] < found.models[0].as_json()["share_high"] < 1


def test_two_models_have_a_rate_and_no_strengths() -> None:
    votes = [vote("a", "b", "left"), vote("a", "a", "left"), vote("a", "c", "both_bad")]
    assert strengths(votes) is None
    assert strengths([]) is None


def test_models_that_never_met_are_compared_by_way_of_others() -> None:
    votes = [vote("a", "b", "left")] * 3 + [vote("a", "b", "right")]
    votes += [vote("b", "c", "left")] * 3 + [vote("b", "c", "right")]
    found = strengths(votes)
    assert found is not None
    assert not found.has_prior
    values = {one.model: one.log_strength for one in found.models}
    assert values["a"] - values["c"] == pytest.approx(2 * math.log(3), abs=1e-6)
