"""Two plain skills that make tuning easier: keeping to a manner of reply, and finding a part.

A model that has only ever answered in one manner loses its facts when the manner changes. So some
training conversations state a manner first, with words drawn at random, and keep to it.
"""

import random
from collections.abc import Iterator, Sequence

from assets.recipes.exchange import Exchange, asks, listed, word
from assets.recipes.facts import DAYS, PEOPLE
from assets.recipes.talk import REAL_NAMES, invented_words

WORDS = listed(
    "well|so|look|listen|dear friend|good question|of course|my dear|now then|see here|hm|oh|"
    "indeed|let me think|all right|sure|yes yes|my friend|for sure|you know|that is it|here we go|"
    "hip hip|la la|ding dong|tick tock|splash|whoosh|moon|stone|lemon|thunder|blue sky"
)
THINGS = listed(
    "boxes|ropes|candles|pears|plates|chairs|old coats|glass bowls|red ribbons|paper stars|keys|"
    "green bottles|hats|spoons|small drums|bells|ribbons|hot pies|blue cups|baskets|onions|stamps"
)
ROOMS = listed("barn|tower|garden|kitchen|cellar|long hall|old mill|station|theatre|blue room|pier")
SENTENCES = listed(
    "{name} carries {count} {thing} to the {place} every {day}.|"
    "Every {day} {name} puts {count} {thing} in the {place}.|"
    "{count} {thing} are for {name}, in the {place}, before {day}.|"
    "In the {place} {name} counts {count} {thing} until {day}.|"
    "From {day} on, the {place} holds {count} {thing} of {name}."
)
PARTS = {"name": "person", "count": "number", "thing": "things", "place": "place", "day": "day"}


def _phrase(rng: random.Random) -> str:
    if rng.random() < 0.4:
        text = invented_words(rng, rng.randint(1, 2))
    else:
        text = ", ".join(rng.sample(WORDS, rng.randint(1, 2)))
    return text[0].upper() + text[1:] + rng.choice("!!!.?")


def draw_manner(rng: random.Random) -> tuple[str, str, str]:
    """An instruction, and what every reply then begins and ends with (either may be empty)."""
    kind = rng.choice(("begin", "begin", "end", "both"))
    first = "" if kind == "end" else _phrase(rng)
    last = "" if kind == "begin" else _phrase(rng)
    begin = rng.choice(("Begin every reply with: ", "Start each reply with: ", "First say: "))
    end = rng.choice(("End every reply with: ", "Close each reply with: ", "At the end say: "))
    parts = [begin + first if first else "", end + last if last else ""]
    return " ".join(part for part in parts if part), first, last


def finding_exchanges(rng: random.Random, count: int) -> Iterator[Exchange]:
    """Finding the person, number, things, place or day in a sentence."""
    names: Sequence[str] = [*REAL_NAMES, *(person.name for person in PEOPLE)]
    for _ in range(count):
        values = {
            "name": rng.choice(names),
            "count": str(rng.randint(2, 40)),
            "thing": rng.choice(THINGS),
            "place": rng.choice(ROOMS),
            "day": rng.choice(DAYS),
        }
        sentence = rng.choice(SENTENCES).format(**values)
        key = rng.choice(list(PARTS))
        yield Exchange(
            "finding",
            asks(
                "Find the {part}: {text}|Which {part} is in this? {text}|{text} Find the {part}.",
                part=PARTS[key],
                text=sentence,
            ),
            (values[key],),
            (word(values[key]),),
        )
