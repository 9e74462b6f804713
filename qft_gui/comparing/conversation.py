"""One conversation with one or two models: its turns, and what of them a page has not seen yet."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.contract.votes import Choice
from qft_gui.answers import Answer, Proof, Settings, Side
from qft_gui.chat_floor import Asker
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.turn import Turn, drawn_order

Messages = dict[Side, list[dict[str, str]]]


class Conversation:
    """The turns so far. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.pair = Pair()
        self.turns: list[Turn] = []
        self.epoch = 1
        self.version = 1
        self.seen = time.monotonic()
        self.proof: Proof | None = None
        self.loading = ""
        self.problem = ""
        self.returned = ""
        self.asker: Asker | None = None
        self._former: Turn | None = None
        self._before: list[Turn] = []
        self._cleared: tuple[Pair, list[Turn]] | None = None
        self._secret = secrets.token_bytes(32)
        self._numbers = 0
        self._lock = threading.RLock()

    @property
    def is_answering(self) -> bool:
        """Whether a reply is being written."""
        with self._lock:
            return any(turn.is_answering for turn in self.turns)

    def choose(self, pair: Pair) -> None:
        """Talk to others; what was said to those before goes, until it is brought back."""
        with self._lock:
            if pair != self.pair and not self.is_answering:
                self._start_anew()
                self.pair, self.proof = pair, None

    def begin(
        self,
        question: str,
        sides: tuple[Side, ...],
        settings: Settings,
        names: Mapping[Side, str],
        *,
        is_blind: bool,
        instead_of: int | None = None,
    ) -> tuple[Turn, Messages]:
        """Add a turn that waits for its replies.

        Args:
            question: What is asked.
            sides: Who is.
            settings: With what.
            names: What people call the sides.
            is_blind: Whether it is voted on before the names are shown.
            instead_of: The turn that was edited: it goes, and all that came after it.

        Returns:
            The turn, and what each side is sent, those shown first at first.
        """
        with self._lock:
            self._numbers += 1
            order: tuple[Side, ...] = sides
            if is_blind and len(sides) > 1:
                order = drawn_order(self._secret, str(self._numbers))
            turn = Turn(self._numbers, question, order, dict(names), settings, is_blind)
            turn.asked = dict.fromkeys(order, settings)
            self._before = list(self.turns)
            if self.turn(instead_of) is not None:
                self.turns[:] = [one for one in self.turns if one.number < (instead_of or 0)]
                self.epoch += 1
            self.turns.append(turn)
            self.seen = time.monotonic()
            self.problem = self.returned = ""
            self._touch(turn)
            return turn, self._messages(turn, order)

    def begin_again(self, sides: tuple[Side, ...], settings: Settings) -> tuple[Turn, Messages]:
        """Have the last question answered anew by one side or both.

        Where nothing comes of it, the replies are what they were before.
        """
        with self._lock:
            turn = self.turns[-1]
            self._former = replace(turn, replies=dict(turn.replies), asked=dict(turn.asked))
            if turn.is_blind and not turn.is_hidden:
                self._numbers += 1
                turn.order = drawn_order(self._secret, str(self._numbers))
            turn.settings, turn.vote, turn.is_revealed = settings, None, False
            turn.is_answering, turn.ended = True, ""
            turn.generation += 1
            turn.rewrites += 1
            for side in sides:
                turn.replies.pop(side, None)
                turn.asked[side] = settings.with_seed(settings.seed + turn.rewrites)
            self.seen = time.monotonic()
            self.problem = ""
            self._touch(turn)
            return turn, self._messages(turn, tuple(s for s in turn.order if s in sides))

    def update(self, turn: Turn, answer: Answer, loading: str) -> None:
        """Take over what is written so far.

        Args:
            turn: Whose replies these are.
            answer: As the room yields it.
            loading: What is said while models come into memory.
        """
        with self._lock:
            self.proof = answer.proof or self.proof
            self.loading, self.problem = loading, answer.problem or self.problem
            before = dict(turn.replies)
            for side in turn.order:
                if side in answer.replies:
                    turn.replies[side] = answer.replies[side]
            if turn.replies != before:
                self._touch(turn)

    def finish(self, turn: Turn, problem: str = "") -> None:
        """Nothing more comes. A question that nobody answered is taken back.

        One that was answered ends the vote on those before it.
        """
        with self._lock:
            turn.is_answering, self.loading = False, ""
            self.problem = problem or self.problem
            said_nothing = not any(reply.text or reply.is_done for reply in turn.replies.values())
            if self._former is not None:
                turn.bring_back(self._former)
                self._former = None
            elif self.problem and said_nothing and turn in self.turns:
                self.turns[:] = self._before
                self.problem, self.returned = turn.ended or self.problem, turn.question
                self.epoch += 1
            else:
                self._cleared = None
                self._end_votes_before(turn)
            self._touch(turn)

    def _end_votes_before(self, turn: Turn) -> None:
        for one in self.turns:
            if one is not turn and one.is_hidden:
                one.is_revealed = True
                self._touch(one)

    def clear(self) -> None:
        """Put all turns away; not while one is being answered."""
        with self._lock:
            if not self.is_answering:
                self._start_anew()

    @property
    def can_be_brought_back(self) -> bool:
        """Whether turns were put away, and nothing was answered since."""
        return self._cleared is not None and not self.is_answering

    def bring_back(self) -> None:
        """Show again what was put away last, between those who said it."""
        with self._lock:
            if self._cleared is not None and not self.is_answering:
                (pair, turns), self.proof = self._cleared, None
                self._start_anew()
                self.pair, self.turns[:], self._cleared = pair, turns, None

    def vote(self, number: int, choice: Choice) -> Turn | None:
        """Take a vote on the last turn, once; None where there is nothing to vote on."""
        with self._lock:
            turn = self.turn(number)
            if turn is None or turn is not self.turns[-1] or not turn.awaits_vote:
                return None
            turn.vote = choice
            self._touch(turn)
            return turn

    def take_back_vote(self, turn: Turn) -> None:
        """It could not be kept, so it may be cast again."""
        with self._lock:
            turn.vote = None
            self._touch(turn)

    def reveal(self, number: int) -> None:
        """Show who is who without a vote."""
        with self._lock:
            turn = self.turn(number)
            if turn is not None and turn.can_be_revealed:
                turn.is_revealed = True
                self._touch(turn)

    def turn(self, number: int | None) -> Turn | None:
        """One turn."""
        with self._lock:
            return next((turn for turn in self.turns if turn.number == number), None)

    def changed_since(self, version: int) -> tuple[int, list[Turn]]:
        """The version now, and the turns that changed after another one."""
        with self._lock:
            self.seen = time.monotonic()
            return self.version, [turn for turn in self.turns if turn.changed > version]

    def take_returned(self) -> str:
        """A question that nobody answered, to be written in the page's field; told once."""
        with self._lock:
            question, self.returned = self.returned, ""
            return question

    def earlier(self, turn: Turn, side: Side) -> list[Turn]:
        """The turns before one that a side is told of: those that it replied to."""
        with self._lock:
            return [one for one in self.turns if one.number < turn.number and one.text(side)]

    def prompt_messages(self, side: Side) -> list[dict[str, str]] | None:
        """What a side read for its last reply; None before the first."""
        with self._lock:
            turns = [turn for turn in self.turns if side in turn.order]
            return self._messages(turns[-1], (side,))[side] if turns else None

    def as_json(self) -> dict[str, Any]:
        """How much there is, for a page."""
        return {"version": self.version, "epoch": self.epoch, "problem": self.problem}

    def _messages(self, turn: Turn, sides: tuple[Side, ...]) -> Messages:
        found: Messages = {}
        for side in sides:
            said: list[dict[str, str]] = []
            for one in self.earlier(turn, side):
                said.append({"role": "user", "content": one.question})
                said.append({"role": "assistant", "content": one.text(side)})
            found[side] = [*said, {"role": "user", "content": turn.question}]
        return found

    def _start_anew(self) -> None:
        if self.turns:
            self._cleared = (self.pair, list(self.turns))
        self.turns.clear()
        self.problem = self.returned = ""
        self.epoch += 1
        self._touch()

    def _touch(self, turn: Turn | None = None) -> None:
        self.version += 1
        if turn is not None:
            turn.changed = self.version
