"""How strong three models or more are, from votes between pairs of them: Bradley and Terry's model.

A model of strength s wins against one of strength t with probability s / (s + t) ("Rank analysis of
incomplete block designs", Bradley and Terry, 1952). The likeliest strengths are found by the MM
algorithm ("MM algorithms for generalized Bradley-Terry models", Hunter, 2004, equation 3). Unlike
Elo's numbers they do not depend on the order of the votes.

A tie is half a win for each. Votes against both say nothing about which is better and are left out.
Where some models won everything against the others the likeliest strengths are infinite; then every
pair is taken to have had one more vote, half of it for each, and `has_prior` says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.contract.preferences import Z
from engine.contract.votes import Vote

PRIOR = 0.5  # votes each way
_ITERATIONS = 100_000
_TOLERANCE = 1e-9
Matrix = list[list[float]]


@dataclass(frozen=True)
class Strength:
    """One model among those that were compared.

    Attributes:
        model: Its name.
        log_strength: Natural logarithm of its strength; all of them have the mean zero.
        low: Where that lies with 95 % confidence.
        high: As above.
        wins: Votes for it, a tie counting half.
        votes: Votes that it took part in, without those against both.
    """

    model: str
    log_strength: float
    low: float
    high: float
    wins: float
    votes: int

    def as_json(self) -> dict[str, Any]:
        """For programs; `share` is its chance against a model of mean strength, from 0 to 1."""
        return {
            "model": self.model,
            "log_strength": self.log_strength,
            "low": self.low,
            "high": self.high,
            "share": _chance(self.log_strength),
            "share_low": _chance(self.low),
            "share_high": _chance(self.high),
            "wins": self.wins,
            "votes": self.votes,
        }


@dataclass(frozen=True)
class Strengths:
    """All models that were compared, the strongest first.

    Attributes:
        models: At least three.
        has_prior: Whether a vote was added to every pair, half of it for each.
        ties: Votes that counted half for each.
        both_bad: Votes that were left out.
    """

    models: tuple[Strength, ...]
    has_prior: bool
    ties: int
    both_bad: int

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the numbers, for people."""
        notes = [f"A tie counts half for each ({self.ties} here)."] if self.ties else []
        if self.both_bad:
            notes.append(f"Votes against both are left out ({self.both_bad} here).")
        if self.has_prior:
            notes.append(
                "Some models won, or lost, everything against the others: to keep their strength "
                "finite, half a vote each way is added to every pair."
            )
        return tuple(notes)


def strengths(votes: Iterable[Vote]) -> Strengths | None:
    """The strengths of all models that were compared; None if these are fewer than three.

    Args:
        votes: In any order. A model beside itself is passed over.
    """
    compared = [vote for vote in votes if vote.left.model != vote.right.model]
    counted = [vote for vote in compared if vote.choice != "both_bad"]
    names = sorted({side.model for vote in counted for side in (vote.left, vote.right)})
    if len(names) < 3:
        return None
    wins = _wins(counted, names)
    has_prior = not _has_finite_fit(wins)
    fitted = fit(_with_prior(wins) if has_prior else wins)
    taken = [sum(name in (vote.left.model, vote.right.model) for vote in counted) for name in names]
    models = [
        Strength(name, value, value - Z * error, value + Z * error, sum(won), count)
        for name, (value, error), won, count in zip(names, fitted, wins, taken, strict=True)
    ]
    models.sort(key=lambda one: (-one.log_strength, one.model))
    ties = sum(vote.choice == "tie" for vote in counted)
    return Strengths(tuple(models), has_prior, ties, len(compared) - len(counted))


def fit(wins: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """The likeliest strengths, with their standard errors.

    Args:
        wins: How often each model (row) won against each other (column); every model has won and
            lost, if by way of others, against every other one.

    Returns:
        For each model the logarithm of its strength, with mean zero over all, and its standard
        error by the Fisher information.
    """
    size = len(wins)
    strength = [1.0] * size
    for _ in range(_ITERATIONS):
        expected = [
            sum(
                (wins[i][j] + wins[j][i]) / (strength[i] + strength[j])
                for j in range(size)
                if j != i
            )
            for i in range(size)
        ]
        own = [sum(row) for row in wins]
        if all(
            abs(own[i] - strength[i] * expected[i]) <= _TOLERANCE * max(1.0, own[i])
            for i in range(size)
        ):
            break
        strength = [own[i] / expected[i] for i in range(size)]
        centre = math.exp(sum(map(math.log, strength)) / size)
        strength = [value / centre for value in strength]
    errors = _standard_errors(wins, strength)
    return [(math.log(value), error) for value, error in zip(strength, errors, strict=True)]


def _wins(votes: Sequence[Vote], names: Sequence[str]) -> Matrix:
    place = {name: number for number, name in enumerate(names)}
    # Halves add up exactly, so the order of the votes cannot matter.
    wins: Matrix = [[0.0] * len(names) for _ in names]
    for vote in votes:
        left, right = place[vote.left.model], place[vote.right.model]
        of_left = {"left": 1.0, "right": 0.0}.get(vote.choice, 0.5)
        wins[left][right] += of_left
        wins[right][left] += 1.0 - of_left
    return wins


def _with_prior(wins: Matrix) -> Matrix:
    return [
        [won if i == j else won + PRIOR for j, won in enumerate(row)] for i, row in enumerate(wins)
    ]


def _has_finite_fit(wins: Matrix) -> bool:
    """Whether every model beat every other one, if by way of others (Hunter, assumption 1)."""
    size = range(len(wins))
    beats = [[won > 0 for won in row] for row in wins]
    for middle in size:
        for i in size:
            for j in size:
                beats[i][j] = beats[i][j] or (beats[i][middle] and beats[middle][j])
    return all(beats[i][j] for i in size for j in size if i != j)


def _standard_errors(wins: Sequence[Sequence[float]], strength: Sequence[float]) -> list[float]:
    """Of the logarithms, relative to their mean.

    The information of these is singular, since only differences matter. With 1 / n added to every
    element it is regular, and the inverse, with 1 / n taken away again, is its pseudoinverse.
    """
    size = len(wins)
    information: Matrix = [[1.0 / size] * size for _ in range(size)]
    for i in range(size):
        for j in range(size):
            if i != j:
                both = strength[i] * strength[j] / (strength[i] + strength[j]) ** 2
                told = (wins[i][j] + wins[j][i]) * both
                information[i][i] += told
                information[i][j] -= told
    inverse = _inverse(information)
    return [math.sqrt(max(0.0, inverse[i][i] - 1.0 / size)) for i in range(size)]


def _inverse(matrix: Matrix) -> Matrix:
    """Of a symmetric positive definite matrix, by Gauss and Jordan."""
    size = len(matrix)
    rows = [[*row, *(1.0 if i == j else 0.0 for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        head = rows[column][column]
        rows[column] = [value / head for value in rows[column]]
        for other in range(size):
            if other != column:
                factor = rows[other][column]
                rows[other] = [
                    value - factor * taken
                    for value, taken in zip(rows[other], rows[column], strict=True)
                ]
    return [row[size:] for row in rows]


def _chance(log_strength: float) -> float:
    """Of winning against strength 1, without overflow."""
    if log_strength < 0:
        return math.exp(log_strength) / (1.0 + math.exp(log_strength))
    return 1.0 / (1.0 + math.exp(-log_strength))
