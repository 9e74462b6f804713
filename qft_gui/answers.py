"""What a question becomes: the replies of both sides so far, and what is known of who answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from engine.contract.errors import RequestError

# `a` is the one that is compared with, by default the original.
Side = Literal["a", "b"]
SIDES: tuple[Side, ...] = ("a", "b")


@dataclass(frozen=True)
class Proof:
    """What the worker found of the two sides before they answered.

    Attributes:
        different: Whether they are two models.
        largest_difference: Of their log-probabilities on a fixed text, in nats; None for two
            vocabularies.
        same_as_recorded: Whether each is what was recorded of it; None without a record.
        notes: What a person should know, in sentences.
        plan: How the sides share memory: `shared`, `resident`, `swapped` or `alone`.
        forms: How each side's weights are kept, such as `4-bit`.
        waits_s: How long each side takes to come into memory, where they take turns.
        base_difference: Of a base in 4 bits from its files, on the fixed text, in nats.
        adapters: The sides that answer with an adapter.
        verdict: What the two are to each other, as `engine.identity_proof.Verdict` has it.
        recorded: The sides that have a record, and are what it says.
    """

    different: bool
    largest_difference: float | None
    same_as_recorded: bool | None = None
    notes: tuple[str, ...] = ()
    plan: str = ""
    device: str = ""
    forms: Mapping[Side, str] = field(default_factory=dict[Side, str])
    waits_s: Mapping[Side, float | None] = field(default_factory=dict[Side, float | None])
    base_difference: float | None = None
    adapters: frozenset[Side] = frozenset()
    verdict: str = ""
    recorded: tuple[Side, ...] = ()


@dataclass(frozen=True)
class Reply:
    """One side's answer so far; times in seconds.

    Attributes:
        fingerprint: Of the weights that gave it, if they have a record.
    """

    text: str = ""
    seconds: float | None = None
    first_token_s: float | None = None
    num_tokens: int | None = None
    tokens_per_s: float | None = None
    stopped: str | None = None
    prompt_tokens: int | None = None
    dropped_turns: int = 0
    is_done: bool = False
    fingerprint: str | None = None


@dataclass(frozen=True)
class Settings:
    """How both sides are asked: the same for both."""

    temperature: float = 0.0
    max_new_tokens: int = 200
    seed: int = 0
    system: str = ""
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from what a page sends; an empty field is the default.

        Whether a number is in its range is the worker's to say.

        Raises:
            RequestError: One is no number.
        """
        found: dict[str, Any] = {"system": str(values.get("system") or "")[:MOST_SYSTEM]}
        for name, (label, kind) in _FIELDS.items():
            value = values.get(name)
            if value is None or str(value).strip() == "":
                continue
            number = _number(str(value).strip().replace(",", "."))
            if number is None or (kind is int and number != int(number)):
                what = "a whole number" if kind is int else "a number"
                shown = str(value).strip()[:40]
                raise RequestError(name, f"{label}: {shown} is not {what}.", f"Write {what}.")
            found[name] = kind(number)
        return cls(**found)

    def with_seed(self, seed: int) -> Settings:
        """The same with another seed."""
        return replace(self, seed=seed)

    def as_json(self) -> dict[str, Any]:
        """Without what was not set, and without the system prompt."""
        own = {name: value for name, value in vars(self).items() if name != "system"}
        return {name: value for name, value in own.items() if value is not None}


def _number(text: str) -> int | float | None:
    """As it was typed: a whole one keeps all its digits."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(text) if text.lstrip("+-").isdecimal() else number


def label_of(name: str) -> str:
    """What the page calls a setting; empty for what is none."""
    return _FIELDS[name][0] if name in _FIELDS else ""


MOST_SYSTEM = 1 << 20
_FIELDS: dict[str, tuple[str, type[int] | type[float]]] = {
    "temperature": ("Temperature", float),
    "top_p": ("Top p", float),
    "top_k": ("Top k", int),
    "repetition_penalty": ("Repetition penalty", float),
    "seed": ("Seed", int),
    "max_new_tokens": ("Longest answer", int),
}


@dataclass(frozen=True)
class Answer:
    """The state of one question; yielded again and again until it is done.

    Attributes:
        loading_s: Since when models are being loaded; None while none are.
        expected_s: How long the one that is being loaded now is expected to take, if known.
        fetching: The side that comes into memory between two answers.
        waiting: What is answered before it, in a sentence.
    """

    replies: dict[str, Reply] = field(default_factory=dict[str, Reply])
    proof: Proof | None = None
    loading_s: int | None = None
    expected_s: float | None = None
    fetching: Side | None = None
    waiting: str = ""
    problem: str = ""

    def signed(self, prints: Mapping[Side, str | None]) -> Answer:
        """The same, with what tells the weights that gave each reply."""
        replies = {
            side: replace(self.replies[side], fingerprint=prints.get(side))
            for side in SIDES
            if side in self.replies
        }
        return replace(self, replies={**self.replies, **replies})
