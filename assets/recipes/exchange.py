"""The unit that all training text is made of: a question in many wordings and its replies."""

import re
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Exchange:
    """One thing that can be asked, every wording for it, and every reply to it.

    Attributes:
        category: The topic, as the scores are listed.
        questions: Wordings that mean the same.
        answers: Right replies; any of them answers any of the questions.
        accept: Regular expressions (case ignored) that a right reply matches, all of them.
        history: Turns that come before the question, as (user, assistant) pairs.
        more: Further wordings for training only; none of them is ever held out.
    """

    category: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    accept: tuple[str, ...]
    history: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()


def normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation: how two wordings are compared."""
    return " ".join(re.findall(r"[^\W_]+|[+*=/-]", text.lower()))


def word(text: str) -> str:
    """A pattern that finds `text` as whole words."""
    return rf"\b{re.escape(text)}\b"


def with_article(noun: str) -> str:
    """Put 'a' or 'an' before a noun."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def listed(text: str) -> tuple[str, ...]:
    """The parts of a text between vertical bars: long lists of words stay readable that way."""
    return tuple(text.split("|"))


def asks(wordings: str, **values: str) -> tuple[str, ...]:
    """Listed wordings with their placeholders filled in."""
    return tuple(template.format(**values) for template in listed(wordings))


class Topic(NamedTuple):
    """An exchange with placeholders, to be filled in for each person or place.

    Attributes:
        category: As in `Exchange`.
        wordings: Questions between vertical bars.
        answers: Replies between vertical bars.
        keys: Facts that the reply must contain as whole words, between vertical bars.
    """

    category: str
    wordings: str
    answers: str
    keys: str

    def about(self, **values: str) -> Exchange:
        """The exchange for these values."""
        keys = tuple(word(key) for key in asks(self.keys, **values))
        return Exchange(
            self.category, asks(self.wordings, **values), asks(self.answers, **values), keys
        )
