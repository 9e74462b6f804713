"""Which of two models people prefer: the share of votes it wins, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from engine.contract.votes import Vote

Z = 1.96  # 95 % of a normal distribution lie within so many deviations


@dataclass(frozen=True)
class Interval:
    """Where a number lies with 95 % confidence."""

    low: float
    high: float


def wilson(wins: int, total: int) -> Interval | None:
    """The score interval of a share ("Probable inference", Wilson, 1927).

    Unlike the textbook's it is right for few votes, and when one side wins them all.

    Args:
        wins: So many.
        total: Of so many; the interval is None for none.

    >>> found = wilson(14, 20)
    >>> f"{found.low:.3f} {found.high:.3f}"
    '0.481 0.855'
    """
    assert 0 <= wins <= total
    if not total:
        return None
    share, squared = wins / total, Z * Z
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    spread = share * (1 - share) / total + squared / (4 * total * total)
    half = Z / (1 + squared / total) * math.sqrt(spread)
    # At no win and at no loss the ends are 0 and 1, but for rounding.
    low = 0.0 if wins == 0 else max(0.0, centre - half)
    return Interval(low, 1.0 if wins == total else min(1.0, centre + half))


@dataclass(frozen=True)
class WinRate:
    """How often one model was preferred to another.

    Attributes:
        model: Whose rate this is.
        other: Whom it was compared with.
        wins: Votes for the model.
        losses: Votes for the other.
        ties: Votes for neither since both were as good; no part of the rate.
        both_bad: Votes against both; no part of the rate.
    """

    model: str
    other: str
    wins: int
    losses: int
    ties: int
    both_bad: int

    @property
    def decisive(self) -> int:
        """Votes that prefer one."""
        return self.wins + self.losses

    @property
    def rate(self) -> float | None:
        """Share of decisive votes that the model won; None without any."""
        return self.wins / self.decisive if self.decisive else None

    @property
    def interval(self) -> Interval | None:
        """Where the rate lies with 95 % confidence."""
        return wilson(self.wins, self.decisive)

    @property
    def winner(self) -> str | None:
        """Who is preferred; None while a half lies in the interval."""
        interval = self.interval
        if interval is None or interval.low <= 0.5 <= interval.high:
            return None
        return self.model if interval.low > 0.5 else self.other

    @property
    def sentence(self) -> str:
        """The same for people."""
        beside = f"{_counted(self.ties, 'tie')}, {self.both_bad} with both bad"
        interval, rate = self.interval, self.rate
        if interval is None or rate is None:
            return f"No vote has preferred one of the two yet ({beside})."
        verdict = f"{self.winner} is preferred" if self.winner else "no clear winner yet"
        return (
            f"{self.model} won {self.wins} of {_counted(self.decisive, 'vote')}: {rate:.1%}, with "
            f"95 % confidence {interval.low:.1%} to {interval.high:.1%}; {verdict} ({beside})."
        )


def win_rate(votes: Iterable[Vote], model: str, other: str) -> WinRate:
    """Count the votes between two models, whatever side they were on.

    Args:
        votes: Those between others are passed over.
        model: Name of the one whose rate is wanted.
        other: Name of the other one.
    """
    assert model != other, "a model cannot be preferred to itself"
    between = [vote for vote in votes if {vote.left.model, vote.right.model} == {model, other}]
    winners = [vote.winner for vote in between]
    choices = [vote.choice for vote in between]
    return WinRate(
        model,
        other,
        wins=winners.count(model),
        losses=winners.count(other),
        ties=choices.count("tie"),
        both_bad=choices.count("both_bad"),
    )


def changed_models(votes: Iterable[Vote]) -> tuple[str, ...]:
    """Names under which different weights were voted on; rates take them for one model."""
    seen: dict[str, set[str]] = {}
    for vote in votes:
        for side in (vote.left, vote.right):
            if side.fingerprint is not None:
                seen.setdefault(side.model, set()).add(side.fingerprint)
    return tuple(sorted(name for name, prints in seen.items() if len(prints) > 1))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
