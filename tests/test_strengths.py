"""Strengths are the likeliest ones, and their intervals hold the truth as often as they say."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract import bradley_terry
from engine.contract.bradley_terry import fit
from engine.contract.strengths import PRIOR, strengths
from engine.contract.votes import Vote
from tests.ballots import vote

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
    # At the top the slope of the penalised likelihood is zero; the votes added make no interval
    # shorter. The strengths are those of the votes and of a half each way against their mean.
    wins = np.triu(np.full((3, 3), float(count)), 1)
    phantom = np.array([value for value, _ in fit(wins.tolist(), PRIOR)])
    slopes = [
        sum(wins[i, j] - count * expit(phantom[i] - phantom[j]) for j in range(3) if j != i)
        for i in range(3)
    ]
    centre = next(shift for shift in np.linspace(-1, 1, 20001) if expit_sum(phantom + shift) >= 0)
    added = PRIOR * (1 - 2 * expit(phantom + centre))
    np.testing.assert_allclose(slopes + added, 0, atol=1e-3)
    assert [one.log_strength for one in found.models] == pytest.approx(phantom)
    real = np.linalg.pinv(information(phantom, wins.tolist()))
    widths = [(one.high - one.low) / (2 * 1.96) for one in found.models]
    np.testing.assert_allclose(widths, np.sqrt(np.diag(real)), rtol=1e-9)
    assert 0 < found.models[2].as_json()["share_low"] < found.models[0].as_json()["share_high"] < 1


def expit(value: Any) -> Any:
    return 1 / (1 + np.exp(-value))


def expit_sum(values: np.ndarray) -> float:
    """Rises with the values, and is zero where they are even around a mean opponent."""
    return float((expit(values) - 0.5).sum())


# Few votes and far strengths, where there seldom is a finite fit; and pairs that never met.
@pytest.mark.parametrize(
    ("size", "votes", "spread"),
    [(3, 3, 0.7), (3, 6, 2.0), (5, 3, 1.5), (10, 0.6, 1.5), (10, 2, 1.5)],
)
def test_intervals_of_few_votes_cover_the_truth(size: int, votes: float, spread: float) -> None:
    generator = np.random.default_rng(7)
    covered = total = with_prior = 0
    for _ in range(150):
        truth = generator.normal(0, spread, size)
        truth -= truth.mean()
        met = generator.poisson(votes, (size, size))
        cast: list[Vote] = []
        for i, j in itertools.combinations(range(size), 2):
            won = generator.binomial(met[i, j], expit(truth[i] - truth[j]))
            pair = (f"{i:02}", f"{j:02}")
            cast += [vote(*pair, "left")] * won + [vote(*pair, "right")] * (met[i, j] - won)
        found = strengths(cast)
        if found is None or not found.is_connected or len(found.models) < size:
            continue
        with_prior += found.has_prior
        for one in found.models:
            covered += one.low <= truth[int(one.model)] <= one.high
            total += 1
    assert total > 100 * size
    assert with_prior > 10
    assert covered / total >= 0.94


def test_models_that_nothing_connects_are_not_compared() -> None:
    votes = [vote("a", "b", "left"), vote("b", "a", "left")] * 20
    votes += [vote("c", "d", "left"), vote("d", "c", "left")] * 20
    found = strengths(votes)
    assert found is not None
    assert not found.is_connected
    assert "not known" in found.notes[-1]
    for one in found.models:
        document = one.as_json()
        assert (document["low"], document["high"]) == (None, None)
        assert (document["share_low"], document["share_high"]) == (0.0, 1.0)
        json.dumps(document, allow_nan=False)


@pytest.mark.parametrize("count", [200, 1000, 10_000])
def test_fifty_models_take_few_steps(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in the window's process: work is counted, since time is not the same twice."""
    generator = np.random.default_rng(count)
    truth = generator.normal(0, 1, 50)
    wins = np.zeros((50, 50))
    for i, j in generator.integers(0, 50, (count, 2)).tolist():
        if i != j:
            first, second = (i, j) if generator.random() < expit(truth[i] - truth[j]) else (j, i)
            wins[first, second] += 1
    solved: list[int] = []
    cholesky = bradley_terry._cholesky
    monkeypatch.setattr(
        bradley_terry, "_cholesky", lambda matrix: solved.append(len(matrix)) or cholesky(matrix)
    )
    found = fit(wins.tolist(), 0.0 if count == 10_000 else PRIOR)
    assert len(solved) <= 12
    values = np.array([value for value, _ in found])
    if count == 10_000:
        slopes = (wins - (wins + wins.T) * expit(values[:, None] - values[None, :])).sum(axis=1)
        np.testing.assert_allclose(slopes, 0, atol=1e-8)


@pytest.mark.parametrize("few", [1, 1000])
def test_far_strengths_are_found_too(few: int) -> None:
    """One win among a million: a plain Newton step from even strengths leads too far."""
    wins = [[0, 10**6, 10**6], [few, 0, 10**6], [few, few, 0]]
    values = np.array([value for value, _ in fit(wins)])
    table = np.array(wins, dtype=float)
    slopes = (table - (table + table.T) * expit(values[:, None] - values[None, :])).sum(axis=1)
    np.testing.assert_allclose(slopes, 0, atol=1e-3)


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
