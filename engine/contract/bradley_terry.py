"""The likeliest strengths in Bradley and Terry's model, with their standard errors.

A model of strength s wins against one of strength t with probability s / (s + t) ("Rank analysis of
incomplete block designs", Bradley and Terry, 1952): a logistic regression on the logarithms, done
by Newton's method. In plain Python, since the window has no numpy: fifty models take some 20 ms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

_MOST_STEPS = 100
_TOLERANCE = 1e-10
Matrix = list[list[float]]
_Pair = tuple[int, int, float, float]  # two places, wins of the first, votes between them


def fit(wins: Sequence[Sequence[float]], prior: float = 0.0) -> list[tuple[float, float]]:
    """The likeliest strengths, with their standard errors.

    Args:
        wins: How often each model (row) won against each other (column).
        prior: Votes each way that are added for each model, against one of mean strength. Without
            them every model has to have won and lost, if by way of others, against every other.

    Returns:
        For each model the logarithm of its strength, with mean zero over all, and its standard
        error by the Fisher information of the votes in `wins`; infinite where these do not
        connect all models.
    """
    pairs = _pairs(wins)
    values = [0.0] * len(wins)
    likely = _log_likelihood(pairs, prior, values)
    for _ in range(_MOST_STEPS):
        step, rise = _newton_step(pairs, prior, values)
        moved = [value + one for value, one in zip(values, step, strict=True)]
        if rise <= _TOLERANCE:  # a step doubles the digits, so that this was the last one
            values = moved
            break
        # Far from the top a whole step may lead down.
        least = likely - _TOLERANCE * abs(likely)
        while (found := _log_likelihood(pairs, prior, moved)) < least:
            step = [one / 2 for one in step]
            moved = [value + one for value, one in zip(values, step, strict=True)]
        values, likely = moved, found
    centre = sum(values) / len(values)
    values = [value - centre for value in values]
    return list(zip(values, _standard_errors(pairs, values), strict=True))


def all_reach_all(leads: Sequence[Sequence[bool]]) -> bool:
    """Whether every place leads to every other one, if by way of others.

    Where `leads` says who beat whom, only then is the fit finite ("MM algorithms for generalized
    Bradley-Terry models", Hunter, 2004, assumption 1).
    """
    size = len(leads)
    reached = [sum(1 << j for j in range(size) if row[j]) for row in leads]
    for middle in range(size):
        through = reached[middle]
        reached = [set | through if set >> middle & 1 else set for set in reached]
    return all(set | 1 << place == (1 << size) - 1 for place, set in enumerate(reached))


def _pairs(wins: Sequence[Sequence[float]]) -> list[_Pair]:
    return [
        (i, j, wins[i][j], wins[i][j] + wins[j][i])
        for i in range(len(wins))
        for j in range(i)
        if wins[i][j] or wins[j][i]
    ]


def _log_likelihood(pairs: Sequence[_Pair], prior: float, values: Sequence[float]) -> float:
    """Of what is decided; what all strengths share is left out."""
    found = 0.0
    for i, j, won, votes in pairs:
        # log p for a win, and log (1 - p) = log p - difference for a loss.
        difference = values[i] - values[j]
        found += votes * _log_chance(difference) - (votes - won) * difference
    return found + prior * sum(_log_chance(value) + _log_chance(-value) for value in values)


def _newton_step(
    pairs: Sequence[_Pair], prior: float, values: Sequence[float]
) -> tuple[list[float], float]:
    """The step, and how far the log-likelihood would rise by it, twice over."""
    chances = [chance_of(value) for value in values]
    gradient = [prior * (1 - 2 * chance) for chance in chances]
    for i, j, won, votes in pairs:
        more = won - votes * chance_of(values[i] - values[j])
        gradient[i] += more
        gradient[j] -= more
    information = _information(pairs, values)
    if prior:
        for i, chance in enumerate(chances):
            information[i][i] += 2 * prior * chance * (1 - chance)
    else:
        information = _pinned(information)
    step = _solved(_cholesky(information), gradient)
    return step, sum(map(mul, gradient, step))


def _information(pairs: Sequence[_Pair], values: Sequence[float]) -> Matrix:
    """Fisher's, of the logarithms. Only differences matter, so that it is singular."""
    information: Matrix = [[0.0] * len(values) for _ in values]
    for i, j, _, votes in pairs:
        chance = chance_of(values[i] - values[j])
        told = votes * chance * (1 - chance)
        information[i][i] += told
        information[j][j] += told
        information[i][j] = information[j][i] = -told
    return information


def _pinned(information: Matrix) -> Matrix:
    """Regular by 1 / n in every element, which fixes the mean and leaves the differences."""
    size = len(information)
    return [[told + 1.0 / size for told in row] for row in information]


def _standard_errors(pairs: Sequence[_Pair], values: Sequence[float]) -> list[float]:
    """Of the logarithms, relative to their mean: the inverse less 1 / n is the pseudoinverse."""
    size = len(values)
    try:
        lower = _cholesky(_pinned(_information(pairs, values)))
    except ArithmeticError:
        return [math.inf] * size
    inverse: Matrix = []  # of `lower`, row by row
    squares = [0.0] * size
    for i in range(size):
        row = [
            -sum(lower[i][k] * inverse[k][j] for k in range(j, i)) / lower[i][i] for j in range(i)
        ]
        inverse.append([*row, 1.0 / lower[i][i]])
        for j, value in enumerate(inverse[i]):
            squares[j] += value * value
    return [math.sqrt(max(0.0, square - 1.0 / size)) for square in squares]


def _cholesky(matrix: Matrix) -> Matrix:
    """The lower triangle whose product with its transpose is a matrix.

    Raises:
        ArithmeticError: The matrix is not positive definite.
    """
    lower: Matrix = []
    for i, row in enumerate(matrix):
        own: list[float] = []
        for j in range(i):
            own.append((row[j] - sum(map(mul, own, lower[j]))) / lower[j][j])
        square = row[i] - sum(map(mul, own, own))
        if square <= _TOLERANCE * row[i]:
            raise ArithmeticError("not positive definite")
        lower.append([*own, math.sqrt(square)])
    return lower


def _solved(lower: Matrix, right: Sequence[float]) -> list[float]:
    """What the product of a triangle with its transpose has to be multiplied by."""
    size = len(right)
    found = [0.0] * size
    for i in range(size):
        found[i] = (right[i] - sum(map(mul, lower[i][:i], found))) / lower[i][i]
    for i in reversed(range(size)):
        below = sum(lower[j][i] * found[j] for j in range(i + 1, size))
        found[i] = (found[i] - below) / lower[i][i]
    return found


def chance_of(log_strength: float) -> float:
    """Of winning against strength 1, without overflow."""
    if log_strength < 0:
        return math.exp(log_strength) / (1.0 + math.exp(log_strength))
    return 1.0 / (1.0 + math.exp(-log_strength))


def _log_chance(log_strength: float) -> float:
    """Logarithm of the above, exact where it is small."""
    return min(0.0, log_strength) - math.log1p(math.exp(-abs(log_strength)))
