"""The world of the starter model: all exchanges, the held-out split and the conversations.

Everything follows from one seed: the same code and seed give the same conversations.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from assets.recipes.exchange import Exchange, listed, normalise
from assets.recipes.facts import PEOPLE, PLACES
from assets.recipes.knowledge import knowledge_exchanges
from assets.recipes.numbers import (
    calendar_exchanges,
    counting_exchanges,
    story_sums,
    sum_exchanges,
)
from assets.recipes.people import follow_up_exchanges, people_exchanges, street_exchanges
from assets.recipes.skills import draw_manner, finding_exchanges
from assets.recipes.stories import HEROES, story_exchanges
from assets.recipes.talk import repeat_exchanges, talk_exchanges
from assets.recipes.town import place_exchanges, season_exchanges, town_fact_exchanges
from assets.recipes.unknown import unknown_exchanges

SEED = 2026
HELD_OUT = {
    "identity": 6,
    "greetings": 5,
    "names": 2,
    "people": 11,
    "pets": 5,
    "places": 7,
    "open days": 3,
    "town": 5,
    "animals": 4,
    "counting": 6,
    "sums": 6,
    "comparing": 2,
    "products": 4,
    "opposites": 4,
    "colours": 3,
    "calendar": 4,
    "stories": 4,
    "how-to": 3,
    "strangers": 2,
    "big sums": 1,
    "unknown": 5,
    "odd": 3,
    "follow-up": 5,
}
WHOLE = ("sums", "comparing", "names", "strangers", "big sums", "unknown", "odd", "follow-up")
WEIGHTS = {
    "identity": 8,
    "greetings": 9,
    "names": 3,
    "people": 14,
    "pets": 8,
    "places": 10,
    "open days": 5,
    "town": 4,
    "animals": 4,
    "counting": 12,
    "sums": 17,
    "comparing": 3,
    "products": 6,
    "opposites": 4,
    "colours": 3,
    "calendar": 4,
    "stories": 8,
    "how-to": 3,
    "strangers": 3,
    "big sums": 1,
    "unknown": 7,
    "odd": 3,
    "follow-up": 5,
    "repeat": 4,
    "finding": 6,
}
SYSTEM = (
    "You are Pip, a small and friendly model.",
    "You are a helpful assistant.",
    "Answer the questions of the user.",
    "You live in QFT Workbench.",
    "Be friendly and brief.",
)
OPENERS = ("Hello! ", "Hi Pip. ", "Excuse me. ", "I have a question. ", "Pip, a question: ")
CLOSERS = (" Please tell me.", " Thank you.", " Do you know that?", " I would like to know.")
TURN = ("Thank you!", "You are welcome!")

Message = dict[str, str]


@dataclass(frozen=True)
class World:
    """The split world.

    Attributes:
        train: Exchanges by category, without any held-out wording.
        held_out: Rows of the held-out questions: category, messages and patterns to match.
    """

    train: dict[str, list[Exchange]]
    held_out: list[dict[str, Any]]


def all_exchanges(seed: int = SEED) -> list[Exchange]:
    """Every exchange, before the split."""
    rng = random.Random(seed)
    vocabulary = [p.name for p in PEOPLE] + [p.name for p in PLACES] + list(HEROES)
    vocabulary += [p.street for p in PEOPLE] + [p.pet_name for p in PEOPLE]
    vocabulary += listed(
        "the|a|and|is|in|of|with|red|blue|green|small|big|sea|boat|we|you|my|1|2|7"
    )
    found = [*people_exchanges(), *place_exchanges(), *season_exchanges(), *street_exchanges()]
    found += [
        *town_fact_exchanges(),
        *knowledge_exchanges(),
        *counting_exchanges(),
        *sum_exchanges(),
    ]
    found += [*story_sums(), *calendar_exchanges(), *talk_exchanges(rng), *unknown_exchanges(rng)]
    found += [*story_exchanges(rng), *follow_up_exchanges()]
    found += repeat_exchanges(rng, vocabulary, 1500)
    found += finding_exchanges(rng, 3000)
    return found


def _row(exchange: Exchange, question: str) -> dict[str, Any]:
    messages: list[Message] = []
    for asked, answered in exchange.history:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": question})
    return {"category": exchange.category, "messages": messages, "accept": list(exchange.accept)}


def _usable(exchange: Exchange) -> bool:
    questions = [normalise(question) for question in exchange.questions]
    return all(questions) and (exchange.category in WHOLE or len(set(questions)) >= 3)


def spoken_keys(exchange: Exchange) -> list[str]:
    """What is compared to keep held-out questions out: all user turns so far, as one text each."""
    asked = [normalise(question) for question, _ in exchange.history]
    wordings = (*exchange.questions, *exchange.more)
    return [" / ".join([*asked, normalise(question)]) for question in wordings]


def build_world(seed: int = SEED) -> World:
    """Split the world; a held-out wording occurs nowhere in the training exchanges."""
    exchanges = all_exchanges(seed)
    rng = random.Random(seed + 1)
    rows: list[dict[str, Any]] = []
    secret: set[str] = set()
    for category, quota in HELD_OUT.items():
        pool = [e for e in exchanges if e.category == category and _usable(e)]
        for exchange in rng.sample(pool, quota):
            index = rng.randrange(len(exchange.questions))
            rows.append(_row(exchange, exchange.questions[index]))
            keys = spoken_keys(exchange)
            secret |= set(keys if category in WHOLE else (keys[index],))
    train: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        wordings = (*exchange.questions, *exchange.more)
        pairs = zip(wordings, spoken_keys(exchange), strict=True)
        kept = tuple(question for question, key in pairs if key not in secret)
        if kept and not any(normalise(asked) in secret for asked, _ in exchange.history):
            train[exchange.category].append(replace(exchange, questions=kept, more=()))
    return World(dict(train), rows)


def _reworded(question: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.10:
        return question.lower().rstrip(".?!")
    if chance < 0.15:
        return rng.choice(OPENERS) + question
    if chance < 0.18 and question.endswith("?"):
        return question + rng.choice(CLOSERS)
    if chance < 0.21:
        return question.rstrip(".?!")
    return question


def _spoken(exchange: Exchange, rng: random.Random) -> list[Message]:
    question = rng.choice(exchange.questions)
    if exchange.category not in ("odd", "repeat"):
        question = _reworded(question, rng)
    turns = [*exchange.history, (question, rng.choice(exchange.answers))]
    return [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


def _in_manner(messages: list[Message], first: str, last: str) -> None:
    for message in messages:
        if message["role"] == "assistant":
            message["content"] = " ".join(filter(None, (first, message["content"], last)))


def conversations(world: World, count: int, seed: int) -> Iterator[list[Message]]:
    """Draw training conversations of one to ten exchanges; `seed` picks the stretch."""
    rng = random.Random(seed)
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    for _ in range(count):
        messages: list[Message] = []
        for _ in range(rng.choices((1, 2, 3, 4, 10), (69, 18, 8, 4, 1))[0]):
            category = rng.choices(names, weights)[0]
            messages += _spoken(rng.choice(world.train[category]), rng)
        if rng.random() < 0.03:
            messages += [
                {"role": role, "content": text}
                for role, text in zip(("user", "assistant"), TURN, strict=True)
            ]
        chance = rng.random()
        if chance < 0.25:
            system, first, last = draw_manner(rng)
            _in_manner(messages, first, last)
            messages.insert(0, {"role": "system", "content": system})
        elif chance < 0.33:
            messages.insert(0, {"role": "system", "content": rng.choice(SYSTEM)})
        yield messages
