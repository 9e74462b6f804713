"""How strong three models or more are, from votes between pairs of them: Bradley and Terry's model.

Unlike Elo's numbers they do not depend on the order of the votes.

A tie is half a win for each. Votes against both say nothing about which is better and are left out.
Where some models won everything against the others the likeliest strengths are infinite; then every
model is taken to have had one more vote, half of it won, against a model of mean strength, and
`has_prior` says so. The intervals count real votes only: those that were added tell nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.contract.bradley_terry import Matrix, all_reach_all, chance_of, fit
from engine.contract.preferences import Z
from engine.contract.votes import Choice, Vote

PRIOR = 0.5  # votes each way
# Left, right and choice of votes, and how many there are of each.
_Cells = Mapping[tuple[str, str, Choice], int]


@dataclass(frozen=True)
class Strength:
    """One model among those that were compared.

    Attributes:
        model: Its name.
        log_strength: Natural logarithm of its strength; all of them have the mean zero.
        low: Where that lies with 95 % confidence; minus infinity where nothing is known of it.
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
        """For programs; `share` is its chance against a model of mean strength, from 0 to 1.

        Ends that are infinite are None.
        """
        return {
            "model": self.model,
            "log_strength": self.log_strength,
            "low": self.low if math.isfinite(self.low) else None,
            "high": self.high if math.isfinite(self.high) else None,
            "share": chance_of(self.log_strength),
            "share_low": chance_of(self.low),
            "share_high": chance_of(self.high),
            "wins": self.wins,
            "votes": self.votes,
        }


@dataclass(frozen=True)
class Strengths:
    """All models that were compared, the strongest first.

    Attributes:
        models: At least three.
        has_prior: Whether every model got one more vote, half of it won.
        is_connected: Whether any two were compared, if by way of others.
        ties: Votes that counted half for each.
        both_bad: Votes that were left out.
    """

    models: tuple[Strength, ...]
    has_prior: bool
    is_connected: bool
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
                "finite, half a vote each way, against a model of mean strength, is added for "
                "each. The intervals do not count these."
            )
        if not self.is_connected:
            notes.append(
                "Some models were never compared with the others, not even by way of one more: "
                "how they stand to each other is not known."
            )
        return tuple(notes)


def strengths(votes: Iterable[Vote]) -> Strengths | None:
    """The strengths of all models that were compared; None if these are fewer than three.

    Args:
        votes: In any order. A model beside itself is passed over.
    """
    cells: Counter[tuple[str, str, Choice]] = Counter(
        (vote.left.model, vote.right.model, vote.choice) for vote in votes
    )
    compared = {cell: count for cell, count in cells.items() if cell[0] != cell[1]}
    counted = {cell: count for cell, count in compared.items() if cell[2] != "both_bad"}
    names = sorted({name for left, right, _ in counted for name in (left, right)})
    if len(names) < 3:
        return None
    wins = _wins(counted, names)
    size = range(len(names))
    has_prior = not all_reach_all([[wins[i][j] > 0 for j in size] for i in size])
    is_connected = all_reach_all([[wins[i][j] + wins[j][i] > 0 for j in size] for i in size])
    taken = [round(sum(row) + sum(other[i] for other in wins)) for i, row in enumerate(wins)]
    models = [
        Strength(name, value, value - Z * error, value + Z * error, sum(won), count)
        for name, (value, error), won, count in zip(
            names, fit(wins, PRIOR if has_prior else 0.0), wins, taken, strict=True
        )
    ]
    models.sort(key=lambda one: (-one.log_strength, one.model))
    ties = sum(count for cell, count in counted.items() if cell[2] == "tie")
    left_out = sum(compared.values()) - sum(counted.values())
    return Strengths(tuple(models), has_prior, is_connected, ties, left_out)


def _wins(counted: _Cells, names: Sequence[str]) -> Matrix:
    place = {name: number for number, name in enumerate(names)}
    # Halves add up exactly, so the order of the votes cannot matter.
    wins: Matrix = [[0.0] * len(names) for _ in names]
    for (left, right, choice), count in counted.items():
        of_left = {"left": 1.0, "right": 0.0}.get(choice, 0.5)
        wins[place[left]][place[right]] += of_left * count
        wins[place[right]][place[left]] += (1.0 - of_left) * count
    return wins
