"""A question and its replies, and what of them may be seen yet."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.contract.votes import Choice
from qft_gui.answers import Reply, Settings, Side


@dataclass
class Turn:
    """A question and its replies.

    Attributes:
        number: Of the turn in its conversation; never used again.
        question: What both were asked.
        order: Who is shown first; drawn by lot where the turn is blind.
        names: What people call the sides.
        settings: What they were asked with last.
        is_blind: Whether names and speeds are hidden until the vote.
        replies: By side, as far as they are written.
        asked: What each reply was asked with, with its own seed.
        generation: Raised when replies are written anew, or brought back.
        rewrites: How often a reply was written anew; each time with another seed.
        changed: Version of the conversation at the last change.
        vote: What the person preferred, by place.
        is_revealed: Whether the person had the names shown without a vote.
        ended: Why it was ended by nobody's wish; empty where it was not.
    """

    number: int
    question: str
    order: tuple[Side, ...]
    names: Mapping[Side, str]
    settings: Settings
    is_blind: bool
    replies: dict[Side, Reply] = field(default_factory=dict[Side, Reply])
    asked: dict[Side, Settings] = field(default_factory=dict[Side, Settings])
    generation: int = 0
    rewrites: int = 0
    changed: int = 0
    vote: Choice | None = None
    is_revealed: bool = False
    is_answering: bool = True
    ended: str = ""

    def text(self, side: Side) -> str:
        """A reply as far as it is written; empty for nothing but white space."""
        text = self.replies.get(side, Reply()).text
        return text if text.strip() else ""

    @property
    def is_hidden(self) -> bool:
        """Whether nobody may know yet who said what."""
        return self.is_blind and self.vote is None and not self.is_revealed

    @property
    def is_whole(self) -> bool:
        """Whether every reply has its end."""
        return all(self.replies.get(side, Reply()).is_done for side in self.order)

    @property
    def shows_text(self) -> bool:
        """Whether replies can be read: those of a hidden turn appear together.

        Who wrote first, or as the only one, would tell who it was.
        """
        return not self.is_hidden or self.is_whole

    @property
    def awaits_vote(self) -> bool:
        """Whether both replies are there and nobody voted."""
        return self.is_hidden and not self.is_answering and self.is_whole

    @property
    def can_be_revealed(self) -> bool:
        """Whether the names may be shown without a vote."""
        return self.is_hidden and not self.is_answering

    def bring_back(self, former: Turn) -> None:
        """Undo what was to be written anew and was not; of a blind turn both replies or none."""
        missing = [side for side in self.order if not self.replies.get(side, Reply()).is_done]
        if missing and self.is_blind:
            self.order, self.settings = former.order, former.settings
            self.vote, self.is_revealed = former.vote, former.is_revealed
            missing = list(self.order)
        if missing:
            self.generation += 1  # a page holds pieces of the other texts
        if missing == list(self.order):
            self.rewrites = former.rewrites
        for side in missing:
            if side in former.replies:
                self.replies[side], self.asked[side] = former.replies[side], former.asked[side]


def drawn_order(secret: bytes, what: str) -> tuple[Side, Side]:
    """Who is shown on the left, decided by a secret and the name of what is shown."""
    first = hmac.new(secret, what.encode(), hashlib.sha256).digest()[0] & 1
    return ("b", "a") if first else ("a", "b")
