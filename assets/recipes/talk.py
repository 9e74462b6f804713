"""Greetings, manners, who the model is, names and repeating."""

import random
import re
from collections.abc import Iterator

from assets.recipes.exchange import Exchange, listed, word
from assets.recipes.phrases import IDENTITY, MANNERS, more_wordings

REAL_NAMES = listed(
    "Anna|Ben|Clara|David|Emma|Felix|Hanna|Isaac|Julia|Karl|Laura|Max|Nora|Oscar|Paula|Quinn|Rosa|"
    "Simon|Tara|Umar|Vera|Walter|Yara|Zoe|Alice|Boris|Chen|Dina|Elena|Frank|Gina|Henry|Irene|"
    "Jack|Kevin|Linda|Maria|Nick|Olga|Peter|Rita|Steve|Tom|Ursula|Victor|Wendy|Xenia|Yusuf|Zack|"
    "Priya|Kofi|Aisha|Diego|Mei|Ravi|Sofia|Liam|Noah|Mia|Ella|Lucas|Ethan|Amir|Fatima|Hiro|Yuki"
)


def invented_name(rng: random.Random) -> str:
    """A pronounceable name of two or three syllables."""
    parts = [
        rng.choice("bdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 2))
    ]
    ending = rng.choice(listed("n|r|l|s|k|t|na|la|ro|mi|ck|rd"))
    return ("".join(parts) + ending).capitalize()


def some_names(rng: random.Random, count: int) -> list[str]:
    """Different names, the common ones first."""
    invented = {invented_name(rng) for _ in range(count)}
    return [*REAL_NAMES, *sorted(invented - set(REAL_NAMES))][:count]


def _names(rng: random.Random) -> Iterator[Exchange]:
    for name in some_names(rng, 500):
        yield Exchange(
            "names",
            (
                f"My name is {name}.",
                f"I am {name}.",
                f"Hello, I am {name}.",
                f"Hi, my name is {name}.",
                f"You can call me {name}.",
                f"Hello Pip, I am {name}.",
            ),
            (f"Nice to meet you, {name}!", f"Hello, {name}! Nice to meet you."),
            (word(name),),
        )
        told = ((f"My name is {name}.", f"Nice to meet you, {name}!"),)
        yield Exchange(
            "names",
            ("What is my name?", "Do you know my name?", "Who am I?"),
            (f"Your name is {name}.",),
            (word(name),),
            told,
        )
    yield Exchange(
        "unknown",
        ("What is my name?", "Do you know my name?", "Who am I?"),
        ("I do not know your name. What is it?",),
        ("do not know",),
    )


def invented_words(rng: random.Random, count: int) -> str:
    """A few words of random letters, digits and signs, to repeat or to be puzzled by."""
    letters = "abcdefghijklmnopqrstuvwxyz" * 3 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "0123456789'-_"
    return " ".join("".join(rng.choices(letters, k=rng.randint(1, 7))) for _ in range(count))


def _record(rng: random.Random) -> str:
    keys = rng.sample(listed("name|count|colour|place|day|thing|time|size"), 3)
    values = (f'"{rng.choice(REAL_NAMES)}"', str(rng.randint(0, 99)), f'"{invented_words(rng, 1)}"')
    pairs = ", ".join(f'"{key}": {value}' for key, value in zip(keys, values, strict=True))
    return "{" + pairs + "}"


def repeat_exchanges(rng: random.Random, vocabulary: list[str], count: int) -> Iterator[Exchange]:
    """Repeating text, which teaches copying and gives every piece of text a use in replies."""
    for number in range(count):
        if number % 3 == 0:
            text = invented_words(rng, rng.randint(1, 3))
        elif number % 7 == 0:
            text = _record(rng)
        else:
            text = " ".join(rng.choices(vocabulary, k=rng.randint(1, 6)))
        yield Exchange(
            "repeat",
            (
                f"Repeat: {text}",
                f"Say this: {text}",
                f"Repeat after me: {text}",
                f"Please repeat: {text}",
            ),
            (text,),
            (re.escape(text),),
        )


def talk_exchanges(rng: random.Random) -> Iterator[Exchange]:
    """Who the model is, manners and names."""
    for wordings, answers, accept in IDENTITY:
        yield Exchange(
            "identity", listed(wordings), listed(answers), (accept,), more=more_wordings(wordings)
        )
    for wordings, answers, accept in MANNERS:
        yield Exchange(
            "greetings", listed(wordings), listed(answers), (accept,), more=more_wordings(wordings)
        )
    yield from _names(rng)
