"""Votes to count in tests."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from engine.contract.votes import Choice, Message, Vote, VotedSide

CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "both_bad")
SWAPPED: dict[Choice, Choice] = {"left": "right", "right": "left"}


def vote(left: str, right: str, choice: Choice, fingerprint: str | None = None) -> Vote:
    sides = (VotedSide(model=name, fingerprint=fingerprint, reply="") for name in (left, right))
    first, second = sides
    question = (Message(role="user", content="Hi"),)
    return Vote(time=0, left=first, right=second, messages=question, seed=0, choice=choice)


def swapped(one: Vote) -> Vote:
    choice = SWAPPED.get(one.choice, one.choice)
    return one.model_copy(update={"left": one.right, "right": one.left, "choice": choice})


def votes_among(names: str, most: int = 30) -> st.SearchStrategy[list[Vote]]:
    pairs = [pair for pair in itertools.permutations(names, 2)]
    one = st.builds(lambda pair, choice: vote(pair[0], pair[1], choice), st.sampled_from(pairs),
                    st.sampled_from(CHOICES))  # fmt: skip
    return st.lists(one, max_size=most)
