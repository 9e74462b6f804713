"""Blind votes: written into the run's folder, and what all of them say so far."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.contract.durable import as_object, read_json
from engine.contract.errors import RequestError
from engine.contract.preferences import changed_models, win_rate
from engine.contract.run_dir import RunDir, list_runs
from engine.contract.strengths import strengths
from engine.contract.votes import Choice, Message, Vote, VotedSide, append_vote, read_votes
from qft_gui.answers import Reply, Settings, Side
from qft_gui.comparing.conversation import Conversation
from qft_gui.comparing.pair import BASE, Pair
from qft_gui.comparing.sides import Sides
from qft_gui.comparing.standing import Standing
from qft_gui.comparing.turn import Turn
from qft_gui.service import Service

FILE = "votes.jsonl"


@dataclass(frozen=True)
class Ballot:
    """What is voted on: two replies to the same messages, by side, and who was shown first.

    Attributes:
        id: Tells it from others that may be voted on after a restart; None where that cannot be.
    """

    pair: Pair
    names: Mapping[Side, str]
    order: tuple[Side, ...]
    replies: Mapping[Side, Reply]
    earlier: dict[Side, tuple[str, ...]]
    questions: tuple[str, ...]
    settings: Settings
    id: str | None = None


class Ballots:
    """Keeps votes and counts them.

    Args:
        service: The runs.
        sides: Who answers.
    """

    def __init__(self, service: Service, sides: Sides) -> None:
        self._service = service
        self._sides = sides
        self._counted: tuple[object, Standing] | None = None

    def why_not(self, pair: Pair) -> str:
        """Why there is no blind vote between these two; empty where there is one."""
        if len(pair.sides) < 2:
            return "A blind vote needs two models."
        names = self._sides.names(pair)
        if names["a"] == names["b"]:
            return "Both sides are called the same, so no vote could tell them apart."
        if self._sides.ballot_run(pair) is None:
            return "Votes are kept in a run's folder, and neither of these belongs to a run."
        return ""

    def cast(self, ballot: Ballot, choice: Choice) -> None:
        """Write one vote.

        Raises:
            RequestError: There is no run to keep it in, or the disk refuses.
        """
        run = self._sides.ballot_run(ballot.pair)
        if run is None:
            raise RequestError("votes", self.why_not(ballot.pair), "Choose a run on one side.")
        left, right = (_voted(ballot, side) for side in ballot.order)
        system = ballot.settings.system.strip()
        told = [Message(role="system", content=system)] if system else []
        told += [Message(role="user", content=question) for question in ballot.questions]
        vote = Vote(
            time=time.time(),
            left=left,
            right=right,
            messages=tuple(told),
            seed=ballot.settings.seed,
            settings=ballot.settings.as_json(),
            choice=choice,
            ballot=ballot.id,
        )
        append_vote(run.path / FILE, vote)

    def cast_before(self, ballot: Ballot) -> Choice | None:
        """How this was voted on already, by what the run's folder holds."""
        run = self._sides.ballot_run(ballot.pair)
        votes = read_votes(run.path / FILE).votes if run is not None and ballot.id else ()
        return next((vote.choice for vote in votes if vote.ballot == ballot.id), None)

    def prints(self, pair: Pair) -> dict[Side, str | None]:
        """What tells the weights of those who answer now from others of their name."""
        return {side: self._print(value) for side, value in pair.values.items()}

    def _print(self, value: str) -> str | None:
        """A short hash of what the engine recorded of these weights."""
        runs = self._service.runs
        if value.startswith(BASE):
            # What it was beside an adapter is of the run, not of the model.
            kept = RunDir(runs / value[len(BASE) :]).fingerprint or {}
            return _short(kept.get("base"))
        run = self._sides.run_of(value)
        if run is None:
            return None
        step = value[len(run) + 1 :]
        folder = runs / run / (f"checkpoints/step-{int(step):06d}" if step else "export")
        return _short((read_json(folder / "fingerprint.json") or {}).get("result"))

    def standing(self, pair: Pair) -> Standing:
        """Count all votes of all runs that began with the same model."""
        runs = self._related(pair)
        stamp = (pair, tuple((run.name, _size(run)) for run in runs))
        if self._counted is not None and self._counted[0] == stamp:
            return self._counted[1]
        read = [read_votes(run.path / FILE) for run in runs]
        votes = [vote for one in read for vote in one.votes]
        names = self._sides.names(pair)
        of_pair = None
        if len(names) == 2 and names["a"] != names["b"]:
            of_pair = win_rate(votes, names["b"], names["a"])
        bad = sum(one.bad_lines for one in read)
        found = Standing(of_pair, strengths(votes), changed_models(votes), bad, len(votes))
        self._counted = (stamp, found)
        return found

    def votes(self, pair: Pair) -> list[tuple[str, Vote]]:
        """Every vote of the runs with this base, with the run that keeps it."""
        return [
            (run.name, vote)
            for run in self._related(pair)
            for vote in read_votes(run.path / FILE).votes
        ]

    def _related(self, pair: Pair) -> Sequence[RunDir]:
        run = self._sides.ballot_run(pair)
        if run is None:
            return ()
        own = _base(run)
        return [one for one in list_runs(self._service.runs) if _base(one) == own]


def _short(record: object) -> str | None:
    """Of the weight files where their hash was recorded: scores differ a little by device."""
    found = as_object(record)
    if found is None:
        return None
    told = found.get("files") or found
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _voted(ballot: Ballot, side: Side) -> VotedSide:
    reply = ballot.replies[side]
    return VotedSide(
        model=ballot.names[side],
        fingerprint=reply.fingerprint,
        reply=reply.text,
        earlier=ballot.earlier[side],
    )


def ballot_of(conversation: Conversation, turn: Turn) -> Ballot:
    """A turn of a conversation as it is voted on."""
    before = {side: conversation.earlier(turn, side) for side in turn.order}
    numbers = {one.number for turns in before.values() for one in turns}
    read = [one for one in conversation.turns if one.number in numbers]
    return Ballot(
        pair=conversation.pair,
        order=turn.order,
        names=turn.names,
        replies={side: turn.replies[side] for side in turn.order},
        earlier={side: tuple(one.text(side) for one in read) for side in turn.order},
        questions=(*(one.question for one in read), turn.question),
        settings=turn.asked[turn.order[0]],
    )


def _base(run: RunDir) -> tuple[str, str | None] | None:
    document = read_json(run.spec_path) or {}
    model = document.get("model")
    return (str(model.get("source")), model.get("revision")) if isinstance(model, dict) else None


def _size(run: RunDir) -> int:
    try:
        return (run.path / FILE).stat().st_size
    except OSError:
        return 0
