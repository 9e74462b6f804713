"""Proof that sides are the models they are said to be, before any answers.

Each is asked for its scores on a fixed text, and its weight files are looked at. A base has to be
what its run recorded before the first step, a result or a checkpoint what was recorded when it was
written: samples of the files exactly, the scores within rounding. Since a model that was tuned a
little is within rounding of its base, each side is also told from what it could be mistaken for;
and two sides that are two models on record must not give the same scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from engine.chat_side import Hashes
from engine.contract.errors import RequestError
from engine.fingerprint import (
    SAME_RECORD,
    TOLERANCE,
    Fingerprint,
    recorded_base,
    recorded_result,
)
from engine.memory.answering import FOUR_BIT
from engine.target import Target, same_model

# What two sides are to each other: two models; the same scores, with or without records that say
# so; or a difference that rounding can make, with no record to decide.
Verdict = Literal["alone", "different", "unchanged", "alike", "unclear"]
# Nats. One device gives one model in one form the same scores each time.
_SAME_SCORES = 1e-4
# Nats, root mean square over all words. What 4 bits change: 0.43 in the starter, 1.43 in
# stories260K, whose 260 thousand weights are as few as a model has.
_FOUR_BIT_ROUNDING = 3.0


@dataclass(frozen=True)
class Probed:
    """One side, asked.

    Attributes:
        target: What it is said to be.
        beside_adapter: Whether it is in the form that an adapter was trained beside.
        form: How its weights are kept.
        files: As `engine.chat_side.Side.files_now` gives them.
        scores: As `engine.fingerprint.probe_scores` gives them.
    """

    target: Target
    beside_adapter: bool
    form: str
    files: Hashes
    scores: Tensor


@dataclass(frozen=True)
class Record:
    """What was written down of one side.

    Attributes:
        fingerprint: Itself.
        said_by: What it is of, such as `the model that RUN began with`.
        is_exact: Whether the model had the digits that it is stored in. One that was trained whole
            had more: storing it can take back most of what little it learned.
    """

    fingerprint: Fingerprint
    said_by: str
    is_exact: bool = True


@dataclass(frozen=True)
class SideProof:
    """What is known of one side.

    Attributes:
        record: What it was compared with, and is; None without a record.
        difference: From that, in nats, root mean square.
        told_apart: Whether it is nearer to its record than to all that it could be mistaken for;
            None if there is nothing to tell it from.
    """

    record: str | None = None
    difference: float | None = None
    told_apart: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """As the `loaded` event carries it."""
        return {**vars(self), "same_as_recorded": True if self.record else None}


@dataclass(frozen=True)
class IdentityProof:
    """What was found.

    Attributes:
        verdict: What the sides are to each other.
        largest_difference: Of the sides' log-probabilities, in nats; 0 for a single side, None
            for two vocabularies, whose words cannot be compared.
        sides: By side.
    """

    verdict: Verdict
    largest_difference: float | None
    sides: Mapping[str, SideProof]

    @property
    def same_as_recorded(self) -> bool | None:
        """Whether every side is what was recorded of it; None where one has no record."""
        return True if all(side.record for side in self.sides.values()) else None

    def as_json(self) -> dict[str, Any]:
        """As the `loaded` event carries it."""
        return {
            "same_as_recorded": self.same_as_recorded,
            "largest_difference": self.largest_difference,
            "verdict": self.verdict,
            "different": self.verdict == "different",
            "tolerance": TOLERANCE,
            "sides": {name: side.as_json() for name, side in self.sides.items()},
        }


def prove(probed: Mapping[str, Probed]) -> IdentityProof:
    """Compare sides with their records and with each other.

    Args:
        probed: One or two sides by name.

    Raises:
        RequestError: One is not what was recorded of it, or is another than it is said to be.
    """
    records = {name: _record_of(name, probed) for name in probed}
    sides: dict[str, SideProof] = {}
    for name, one in probed.items():
        record = records[name]
        if record is None:
            sides[name] = SideProof()
            continue
        _refuse_other_files(name, one, record)
        difference = _refuse_other_scores(name, one, record)
        told = _told_apart(name, one, record, _foils(name, one, records))
        sides[name] = SideProof(record.said_by, difference, told)
    apart = _apart(probed)
    far = None if apart is None else float(apart.abs().max())
    return IdentityProof(_verdict(probed, records, sides, apart), far, sides)


def _record_of(name: str, probed: Mapping[str, Probed]) -> Record | None:
    one, target = probed[name], probed[name].target
    if target.kind != "model":
        return _result_record(target)
    others = (other.target for key, other in probed.items() if key != name)
    runs = [other.run for other in others if other.run is not None and _began(other, target)]
    if target.original_of is not None:
        # An original is that of its own run, but under an adapter it has the form of that one's.
        runs.insert(len(runs) if one.beside_adapter else 0, target.original_of)
    for run in runs:
        recorded = recorded_base(run, as_trained=one.beside_adapter)
        if recorded is not None:
            return Record(recorded, f"the model that {run.name} began with")
    return _result_record(target)


def _began(tuned: Target, base: Target) -> bool:
    try:
        return same_model(tuned.base(), base)
    except RequestError:  # what it was made from is gone, so this is another
        return False


def _result_record(target: Target) -> Record | None:
    found = recorded_result(target.folder) if target.folder is not None else None
    if found is None:
        return None
    said = "the result that its run wrote"
    if target.step is not None:
        said = f"what its run held at step {target.step}"
    return Record(found, said, is_exact=target.is_adapter)


def _foils(name: str, one: Probed, records: Mapping[str, Record | None]) -> list[Record]:
    """What it could be mistaken for: the other side, and what it was made from."""
    found = [record for key, record in records.items() if key != name and record is not None]
    run = one.target.run
    if run is not None:
        base = recorded_base(run, as_trained=one.target.is_adapter)
        if base is not None:
            found.append(Record(base, f"the model that {run.name} began with"))
    return found


def _refuse_other_files(name: str, one: Probed, record: Record) -> None:
    target, run = one.target, one.target.run
    if record.fingerprint.files != one.files.own:
        raise RequestError(
            name,
            f"{target.name} is not {record.said_by}: its weight files are others.",
            "Get them anew, or train again.",
        )
    base = recorded_base(run, as_trained=False) if run is not None else None
    if run is not None and base is not None and one.files.base not in (None, base.files):
        raise RequestError(
            name,
            f"the model under {target.name} is not the model that {run.name} began with: its "
            "weight files are others.",
            "Get them anew, or train again.",
        )


def _refuse_other_scores(name: str, one: Probed, record: Record) -> float:
    difference = record.fingerprint.distance(one.scores)
    if not difference <= TOLERANCE:
        raise RequestError(
            name,
            f"{one.target.name} is not {record.said_by}: on a fixed text its scores are "
            f"{difference:.2f} nats away in root mean square, where {TOLERANCE:g} can be rounding.",
            "Load it again; if that does not help, get its files anew.",
        )
    return difference


def _told_apart(name: str, one: Probed, record: Record, foils: Sequence[Record]) -> bool | None:
    """Whether it is nearer to its own record than to each of these; None if there are none.

    Raises:
        RequestError: It is another one.
    """
    near = record.fingerprint.distance(one.scores)
    told: list[bool] = []
    for foil in foils:
        far = foil.fingerprint.distance(one.scores)
        apart = record.fingerprint.apart(foil.fingerprint)
        # Noise is spread over many words: it hides only a difference that is much smaller. Records
        # of the same files differ by the devices that wrote them.
        are_two = record.fingerprint.files != foil.fingerprint.files
        decided = are_two and apart > max(SAME_RECORD, min(near, far) / 2)
        # The files are its own: only what is plainly another one outweighs them.
        if decided and far < near / 2 and record.is_exact:
            raise RequestError(
                name,
                f"{one.target.name} answers as {foil.said_by}: on a fixed text its scores are "
                f"{far:.3f} nats from that, and {near:.3f} from its own record.",
                "Load it again; if that does not help, get its files anew.",
            )
        told.append(decided and near < far)
    return all(told) if told else None


def _apart(probed: Mapping[str, Probed]) -> Tensor | None:
    """Scores of one side less the other's, zero for a single one; None for two vocabularies."""
    scores = [side.scores for side in probed.values()]
    return scores[0] - scores[-1] if scores[0].shape == scores[-1].shape else None


def _verdict(
    probed: Mapping[str, Probed],
    records: Mapping[str, Record | None],
    sides: Mapping[str, SideProof],
    apart: Tensor | None,
) -> Verdict:
    if len(probed) < 2:
        return "alone"
    if apart is None:
        return "different"
    one, other = probed.values()
    first, second = records.values()
    if apart.abs().max() > _SAME_SCORES:
        if first is not None and second is not None:
            are_two = any(side.told_apart for side in sides.values())
        else:
            are_two = float(apart.square().mean().sqrt()) > _rounding(one.form, other.form)
        return "different" if are_two else "unclear"
    if first is None or second is None:
        return "alike"
    same_files = first.fingerprint.files == second.fingerprint.files
    if first.fingerprint.apart(second.fingerprint) <= SAME_RECORD:
        # Files of an adapter and of its base are never the same, though it may add nothing.
        of_one_kind = one.target.is_adapter == other.target.is_adapter
        return "unclear" if of_one_kind and not same_files else "unchanged"
    if same_files or not (first.is_exact and second.is_exact):
        return "unclear"
    raise RequestError(
        list(probed)[-1],
        f"{one.target.name} and {other.target.name} give the same scores on a fixed text, although "
        "they are two models on record.",
        "Load them again; if that does not help, get their files anew.",
    )


def _rounding(one: str, other: str) -> float:
    """Nats, root mean square, that two forms of one model may differ by."""
    if one == other:
        return 0.0
    return _FOUR_BIT_ROUNDING if FOUR_BIT in (one, other) else TOLERANCE
