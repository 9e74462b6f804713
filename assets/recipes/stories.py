"""Short stories of three to five sentences about one hero each."""

import random
from collections.abc import Iterator

from assets.recipes.exchange import Exchange, listed, with_article, word

HEROES = listed(
    "fox|cat|dog|owl|mouse|rabbit|bear|goose|duck|horse|goat|frog|whale|seal|crab|hedgehog|donkey|"
    "wolf|lion|hen|parrot|snail|squirrel|fish|turtle|dragon|giant|wizard|king|queen|princess|"
    "knight|sailor|fisherman|baker|teacher|child|girl|boy|robot|boat|ship|cloud|star|tree|river|"
    "lighthouse|clock|kite|train|pumpkin|shell|snowman|ghost|witch|farmer|painter|bee|ant|crow|"
    "deer|pig|sheep"
)
TRAITS = listed(
    "small|old|brave|shy|clever|young|happy|tired|curious|kind|quiet|lonely|hungry|proud"
)
HOMES = listed(
    "by the sea|under the old bridge|on a green hill|behind the bakery|at the edge of the wood|"
    "near the lighthouse|beside the river Reed|in a little blue house|in the harbour of Tidewell|"
    "on Heron Island"
)
WISHES = (
    ("wanted to see the world", "walked along the coast for three days", "saw the big blue sea"),
    ("wanted a friend", "knocked on every door in the town", "met a friendly owl"),
    ("lost a golden key", "looked under every stone", "found the key in a nest"),
    (
        "heard strange music at night",
        "followed the sound to the cliff",
        "found a bird that could sing",
    ),
    (
        "was afraid of the dark",
        "carried a lantern into the wood",
        "saw that the night was full of stars",
    ),
    ("wanted to bake a cake", "asked Mara for some flour", "baked a big plum cake"),
    ("found an old map", "sailed to Heron Island", "found a box full of shells"),
    ("could not sleep", "counted all the stars", "fell asleep at last"),
    ("wanted to learn to swim", "went to Pebble Beach every morning", "swam across the bay"),
    ("saw a storm over the sea", "lit a bright lamp", "showed all the boats the way home"),
    ("wanted to win the big race", "practised every day", "came first by a nose"),
    ("was very cold in winter", "asked Petra for help", "got a pair of warm socks"),
    ("saw a little bird with a broken wing", "carried it to Nell", "watched it fly again"),
    ("wished for snow", "waited at the window all week", "built a tall snowman"),
)
ENDINGS = listed(
    "After that, the {hero} was never {bad} again.|"
    "In the evening everybody came together and ate warm soup.|"
    "The {hero} went home and slept well.|"
    "And the {hero} told this story to everybody in Tidewell.|"
    "From then on, the {hero} smiled every day.|That was a good day for the {hero}."
)
MIDDLES = listed(
    "It was not easy, but the {hero} did not give up.|The wind was strong and the way was long.|"
    "Many people laughed, but the {hero} went on.|The sun was shining and the sea was calm."
)


def tell(hero: str, rng: random.Random) -> str:
    """One story; the same generator state gives the same story."""
    trait, home = rng.choice(TRAITS), rng.choice(HOMES)
    wish, effort, result = rng.choice(WISHES)
    opening = rng.choice(
        (
            f"Once there was {with_article(f'{trait} {hero}')} who lived {home}.",
            f"{with_article(f'{trait} {hero}').capitalize()} lived {home}.",
            f"Long ago, {with_article(f'{trait} {hero}')} lived {home}.",
        )
    )
    start = rng.choice(("One day", "One morning", "One evening"))
    lines = [opening, f"{start} the {hero} {wish}.", f"So the {hero} {effort}."]
    if rng.random() < 0.4:
        lines.append(rng.choice(MIDDLES))
    lines.append(rng.choice(("In the end", "At last")) + f" the {hero} {result}.")
    if len(lines) < 5:
        lines.append(rng.choice(ENDINGS).format(hero=hero, bad="sad"))
    return " ".join(line.format(hero=hero) for line in lines)


def story_exchanges(rng: random.Random, per_hero: int = 40) -> Iterator[Exchange]:
    """A story for each hero, in many tellings."""
    for hero in HEROES:
        a = with_article(hero)
        yield Exchange(
            "stories",
            (
                f"Tell me a story about {a}.",
                f"Can you tell me a story about {a}?",
                f"Tell a short story about {a}.",
                f"I would like a story about {a}.",
                f"Please tell me a story about {a}.",
                f"Do you know a story about {a}?",
                f"Write a story about {a}.",
                f"Make up a story about {a}.",
                f"A story about {a}, please.",
                f"Tell me about {a} in a story.",
            ),
            tuple(tell(hero, rng) for _ in range(per_hero)),
            (word(hero), r"^(?:[^.!?]+[.!?]){3,6}\s*$"),
        )
    yield Exchange(
        "stories",
        listed(
            "Tell me a story.|Tell a story.|I want to hear a story.|Can you tell me a story?|"
            "Do you know a story?|A story, please."
        ),
        tuple(tell(rng.choice(HEROES), rng) for _ in range(60)),
        (r"^(?:[^.!?]+[.!?]){3,6}\s*$",),
    )
