"""All that the Compare page shows, as far as the page does not have it yet."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from engine.contract.errors import RequestError
from engine.contract.run_dir import default_runs
from qft_gui.answers import Proof
from qft_gui.chat_room import ChatRoom
from qft_gui.comparing.ballots import Ballots
from qft_gui.comparing.conversation import Conversation
from qft_gui.comparing.downloads import Downloads
from qft_gui.comparing.errands import Errands
from qft_gui.comparing.expected_plan import expected_plan
from qft_gui.comparing.lists import Lists, sample_prompts
from qft_gui.comparing.pair import BASE, Pair
from qft_gui.comparing.prompt_list import PromptList
from qft_gui.comparing.sides import Sides
from qft_gui.comparing.turn import Turn
from qft_gui.service import Service
from qft_gui.view.chat import memory_lines, proof_mark, turn_frame
from qft_gui.view.comparison import (
    errand_frame,
    export_frame,
    judgement_frame,
    list_frame,
    standing_frame,
)

NUM_CHIPS = 3
NOTHING_TRAINED = "Nothing is trained yet. Open Setup, press Start, and come back when it is done."
Request = Mapping[str, Any]


class Frames:
    """Builds answers to the page's looks."""

    def __init__(
        self,
        service: Service,
        room: ChatRoom,
        sides: Sides,
        ballots: Ballots,
        lists: Lists,
        errands: Errands,
        downloads: Downloads,
    ) -> None:
        self._service = service
        self._room = room
        self._sides = sides
        self._ballots = ballots
        self._lists = lists
        self._errands = errands
        self._downloads = downloads

    def first_pair(self) -> Pair:
        """The newest result beside its original; without one the starter alone."""
        for one in self._service.snapshots():
            if one.has_export:
                return self._sides.usual(one.name)
        return Pair()

    def since(self, talk: Conversation, wish: Request) -> dict[str, Any]:
        """What changed since the version that a page has.

        Args:
            talk: Its conversation.
            wish: With `since`, `epoch`, `held`, and `cards` where the slower parts are wanted.
        """
        is_new = wish.get("epoch") != talk.epoch
        since = wish.get("since")
        version, turns = talk.changed_since(since if isinstance(since, int) and not is_new else 0)
        is_answering = talk.is_answering
        # Whoever just asked has the question in its field still, and empties that.
        is_look = wish.get("op") == "look" and not is_answering
        frame: dict[str, Any] = {
            "version": version,
            "epoch": talk.epoch,
            "reset": is_new,
            "turns": [
                turn_frame(turn, talk.proof, None if is_new else _held(turn, wish))
                for turn in turns
            ],
            "answering": is_answering,
            "loading": talk.loading,
            "problem": talk.problem,
            "can_be_brought_back": talk.can_be_brought_back,
            "returned": talk.take_returned() if is_look else "",
        }
        if wish.get("cards") or wish.get("op") != "look":
            frame["cards"] = self._cards(talk, str(wish.get("stamp") or ""))
        return frame

    def _cards(self, talk: Conversation, stamp: str) -> dict[str, Any]:
        pair = talk.pair
        choices = self._choices(pair)
        known = hashlib.sha256(json.dumps(choices).encode()).hexdigest()[:16]
        run = self._sides.ballot_run(pair)
        chosen = self._lists.of(pair)
        sample = sample_prompts(run)
        at_work = self._lists.is_at_work(chosen)
        name, subject = run.name if run else "", self._sides.subject(pair) or ""
        return {
            "stamp": known,
            **({"choices": choices} if known != stamp else {}),
            "left": pair.left,
            "right": pair.right,
            "empty": "" if pair.right else NOTHING_TRAINED,
            "proof": self._mark(talk),
            "memory": self._memory(talk),
            "download": self._downloads.frame(pair),
            "loaded": self._room.is_loaded,
            "why_not_blind": self._ballots.why_not(pair),
            "chips": list(sample[1][:NUM_CHIPS]) if sample else [],
            "sample": sample[0] if sample else "",
            "standing": standing_frame(self._ballots.standing(pair)),
            "list": list_frame(chosen, self._lists.problem, is_at_work=at_work),
            "data": errand_frame(self._errands.of("check", name), "Looking into the data,"),
            "run": name,
            "subject": subject,
            "judged": judgement_frame(self._errands.of("eval", subject)),
            "exported": export_frame(
                self._errands.of("export", subject),
                self._errands.usual(subject),
                may_type=self._errands.may_type,
            ),
            "serve": _serve_line(pair, self._sides, self._service.runs),
        }

    def _choices(self, pair: Pair) -> list[dict[str, Any]]:
        run = self._sides.ballot_run(pair)
        found = self._sides.choices(run.name if run else None)
        return [
            {"label": group, "items": [[one.value, one.label] for one in items]}
            for group, items in groupby(found, key=lambda one: one.group)
        ]

    def _proof_of(self, pair: Pair) -> Proof | None:
        """What was found of a pair that is in memory now, whoever asked it."""
        try:
            return self._room.proof_of(self._sides.targets(pair))
        except (RequestError, FileNotFoundError):
            return None

    def _mark(self, talk: Conversation) -> dict[str, str] | None:
        proof = self._proof_of(talk.pair)
        return None if proof is None else vars(proof_mark(proof))

    def _memory(self, talk: Conversation) -> list[str]:
        proof = self._proof_of(talk.pair)
        if proof is not None:
            return memory_lines(proof, self._sides.names(talk.pair))
        plan = expected_plan(self._sides, talk.pair, worker=self._room.worker_pid)
        return [*self._others(talk), *plan]

    def _others(self, talk: Conversation) -> list[str]:
        """Who is in memory instead, since they will leave it."""
        lines = ["Your models left memory; a question loads them again."] if talk.proof else []
        other = self._room.loaded_for
        if other is None:
            return lines
        whose = "" if other.owner is talk else " for another tab"
        then = f"unloads {'them' if ' and ' in other.names else 'it'}"
        if other.gives_way:
            whose = " for a list of prompts"
        if isinstance(other.owner, PromptList) and self._lists.is_at_work(other.owner):
            then = "is answered in between"
        return [*lines, f"In memory{whose}: {other.names}. A question here {then}."]


def _held(turn: Turn, wish: Request) -> tuple[int, ...] | None:
    """Characters of a turn's replies that the page has, if it said so of this very turn."""
    held = wish.get("held")
    if not isinstance(held, dict):
        return None
    told = cast("Request", held)
    if told.get("turn") != turn.number or told.get("generation") != turn.generation:
        return None
    lengths = told.get("lengths")
    if not isinstance(lengths, list):
        return None
    known = cast("list[object]", lengths)
    return tuple(one if isinstance(one, int) and one >= 0 else 0 for one in known)


def _serve_line(pair: Pair, sides: Sides, runs: Path) -> str:
    if not pair.right:
        return ""
    try:
        named = [sides.targets(Pair("", pair.right))[0] or ""]
    except (RequestError, FileNotFoundError):
        return ""
    is_of_run = pair.right.startswith(BASE) or sides.run_of(pair.right)
    if is_of_run and runs != default_runs().resolve():
        named += ["--runs", str(runs)]
    return f"python -m engine serve {shlex.join(named)}"
