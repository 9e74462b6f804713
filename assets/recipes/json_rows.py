"""The json dataset: an order or an event in a sentence becomes a small JSON object."""

import json
import random
from typing import Any

from assets.recipes.exchange import normalise
from assets.recipes.facts import DAYS, PEOPLE

ASKS = (
    "Write as JSON: {text}",
    "Turn this into JSON: {text}",
    "{text} Give me JSON.",
    "JSON, please: {text}",
)
# The parts come in the order of the keys: a small model copies from left to right.
ORDERS = (
    "{name} orders {count} {item} for {day}.",
    "{name} would like {count} {item} on {day}.",
    "{name} needs {count} {item} by {day}.",
    "{name} wants {count} {item} on {day}.",
)
EVENTS = (
    "The {event} is on {day} at {hour} in the {place}.",
    "The {event} starts on {day} at {hour} in the {place}.",
    "There is a {event} on {day} at {hour} in the {place}.",
    "Come to the {event} on {day} at {hour} in the {place}.",
)
ITEMS = (
    "lemon cakes",
    "apple pies",
    "fish soups",
    "pancakes",
    "plum cakes",
    "books",
    "clocks",
    "letters",
    "kites",
    "warm socks",
    "boats",
    "roses",
    "shells",
    "wooden birds",
    "lanterns",
)
EVENT_NAMES = (
    "music night",
    "story hour",
    "chess evening",
    "cake sale",
    "kite race",
    "book sale",
    "boat race",
    "sewing class",
    "song evening",
    "lantern walk",
)
ROOMS = ("library", "school", "park", "market", "harbour", "bakery", "music hall", "boatyard")


def _order(rng: random.Random) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = {
        "name": rng.choice(PEOPLE).name,
        "count": rng.randint(2, 20),
        "item": rng.choice(ITEMS),
        "day": rng.choice(DAYS),
    }
    return rng.choice(ORDERS).format(**values), values


def _event(rng: random.Random) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = {
        "event": rng.choice(EVENT_NAMES),
        "day": rng.choice(DAYS),
        "hour": rng.randint(1, 11),
        "place": rng.choice(ROOMS),
    }
    return rng.choice(EVENTS).format(**values), values


def json_rows(
    seed: int,
    rows: int = 480,
    held_out: int = 40,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training rows and held-out rows; no sentence is in both, whatever the words around it."""
    rng = random.Random(seed)
    made: dict[str, tuple[str, dict[str, Any]]] = {}
    while len(made) < rows + held_out:
        text, values = (_order if len(made) % 2 else _event)(rng)
        made.setdefault(normalise(text), (rng.choice(ASKS).format(text=text), values))
    pairs = list(made.values())
    training: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": json.dumps(values)},
            ]
        }
        for prompt, values in pairs[:rows]
    ]
    return training, [{"prompt": prompt, "expect": values} for prompt, values in pairs[rows:]]
