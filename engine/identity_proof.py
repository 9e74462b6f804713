"""Proof that two sides are the models they are said to be, before either answers.

Each is asked for its scores after a fixed text. A base has to give those that its run recorded
before the first step, a result those that were recorded when it was written; and the two sides are
compared with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.contract.errors import RequestError
from engine.fingerprint import (
    TOLERANCE,
    Fingerprint,
    hash_of_tensors,
    recorded_base,
    recorded_result,
)
from engine.result import model_folder
from engine.target import Target, same_model


@dataclass(frozen=True)
class Probed:
    """One side, asked.

    Attributes:
        target: What it is said to be.
        beside_adapter: Whether it is in the form that an adapter was trained beside.
        scores: As `engine.fingerprint.probe_scores` gives them.
    """

    target: Target
    beside_adapter: bool
    scores: Tensor


@dataclass(frozen=True)
class SideProof:
    """Whether one side is what was recorded of it; `difference` in nats; None without a record."""

    same_as_recorded: bool | None
    difference: float | None


@dataclass(frozen=True)
class IdentityProof:
    """What was found.

    Attributes:
        same_as_recorded: Every side that has a record is what it was; None if none has one.
        largest_difference: Of the sides' log-probabilities, in nats; 0 for a single side, None
            for two vocabularies, whose words cannot be compared.
        sides: By side.
    """

    same_as_recorded: bool | None
    largest_difference: float | None
    sides: Mapping[str, SideProof]

    @property
    def different(self) -> bool:
        """Whether there are two sides, and two models."""
        return self.largest_difference != 0

    def as_json(self) -> dict[str, Any]:
        """As the `loaded` event carries it."""
        return {
            "same_as_recorded": self.same_as_recorded,
            "largest_difference": self.largest_difference,
            "different": self.different,
            "tolerance": TOLERANCE,
            "sides": {name: dict(vars(side)) for name, side in self.sides.items()},
        }


def prove(probed: Mapping[str, Probed]) -> IdentityProof:
    """Compare sides with their records and with each other.

    Args:
        probed: One or two sides by name.

    Raises:
        RequestError: One is not what was recorded of it.
    """
    others = {name: [one for key, one in probed.items() if key != name] for name in probed}
    sides = {name: _side(name, one, others[name]) for name, one in probed.items()}
    known = [side.same_as_recorded for side in sides.values() if side.same_as_recorded is not None]
    return IdentityProof(all(known) if known else None, _largest_difference(probed), sides)


def _side(name: str, one: Probed, others: list[Probed]) -> SideProof:
    recorded, said_by = _record_of(one, others)
    if recorded is None:
        return SideProof(None, None)
    folder = one.target.folder if one.target.kind != "model" else model_folder(one.target)
    assert folder is not None
    difference = recorded.difference(one.scores)
    if recorded.tensors != hash_of_tensors(folder) or not difference <= TOLERANCE:
        raise RequestError(
            name,
            f"{one.target.name} is not {said_by}: on a fixed text its scores differ by "
            f"{difference:.2f} nats, where up to {TOLERANCE:g} would be rounding.",
            "Its files were changed; get them anew, or train again.",
        )
    return SideProof(True, difference)


def _record_of(one: Probed, others: list[Probed]) -> tuple[Fingerprint | None, str]:
    target = one.target
    if target.step is not None:
        return None, ""
    if target.kind != "model":
        assert target.folder is not None
        return recorded_result(target.folder), "the result that its run wrote"
    for other in others:
        run = other.target.run
        if run is not None and same_model(other.target.base(), target):
            recorded = recorded_base(run, as_trained=one.beside_adapter)
            return recorded, f"the model that {run.name} began with"
    folder = target.folder
    recorded = recorded_result(folder) if folder is not None else None
    return recorded, "the result that its run wrote"


def _largest_difference(probed: Mapping[str, Probed]) -> float | None:
    if len(probed) < 2:
        return 0.0
    one, other = (side.scores for side in probed.values())
    return float((one - other).abs().max()) if one.shape == other.shape else None
