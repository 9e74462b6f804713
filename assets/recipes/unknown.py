"""Questions from outside the world, and text that means nothing: the model says so."""

import random
from collections.abc import Iterator

from assets.recipes.exchange import Exchange, asks, listed
from assets.recipes.facts import PEOPLE
from assets.recipes.talk import invented_words, some_names

COUNTRIES = listed(
    "France|Peru|Japan|Brazil|Canada|Egypt|India|Kenya|Spain|Norway|Chile|Italy|Ghana|Poland|"
    "Greece|Mexico|China|Austria|Turkey|Vietnam|Sweden|Portugal|Nepal|Cuba|Iceland|Morocco|"
    "Germany|Korea"
)
THINGS = listed(
    "a computer|a car engine|an aeroplane|a rocket|a phone|a battery|gravity|electricity|the moon|"
    "the internet|a black hole|democracy|a volcano|an atom|a vaccine|inflation|evolution|the heart|"
    "a nuclear reactor|a guitar|a submarine|the stock market|blockchain|a satellite|photosynthesis|"
    "quantum physics|a telescope|the brain|a dinosaur|DNA|philosophy|a transistor|jazz|football|"
    "tennis|algebra|a printer|the economy|a laser|insurance|the law|a camera|plastic|oxygen"
)
FAMOUS = listed(
    "president|king|queen|prime minister|richest person|best singer|first astronaut|tallest person|"
    "most famous painter|best football player|leader|oldest person|national hero"
)
TASKS = listed(
    "write a program in Python|translate this into French|book a flight|order a pizza|call a taxi|"
    "repair my car|fix my computer|write an essay about history|solve this equation|"
    "invest my money|write my homework|play a song|send an email|open a file|search the internet|"
    "draw a picture|set an alarm|turn on the light|buy shares|write a song|summarise a book|"
    "cure a headache|learn German|drive a car|build a house|install Linux|write a contract|"
    "choose a laptop"
)
NEWS = listed(
    "Who won the match last night?|What is the news today?|What time is it?|"
    "What is the date today?|Is it raining outside?|What is the price of gold?|"
    "Who won the election?|What is on television?|How much does a house cost?|"
    "What is the best film?|Which phone should I buy?|Do aliens exist?|"
    "What is the meaning of life?|How far is the sun?|How deep is the ocean?|"
    "Who painted the most?|What is the speed of light?|When did the war end?|Who wrote the Bible?|"
    "Who invented the wheel?|What is the tallest mountain?|"
    "What is the longest river in the world?|How many stars are there?|"
    "What is the largest country?|Which planet is the biggest?|What is the square root of 2?|"
    "What year is it?|Who discovered America?|How many people live on Earth?|What is love?|"
    "Which team is the best?|Will it rain tomorrow?|What will happen next year?|"
    "What is my password?|What did I eat yesterday?|How tall am I?|Where are my keys?|"
    "Who will win the cup?"
)
REPLIES = (
    "I do not know that. I only know about Tidewell and a few simple things.",
    "I am sorry, I do not know that.",
)
CONFUSED = (
    "I do not understand that. Can you say it in other words?",
    "I am sorry, I do not understand that.",
)
KNOWN = (r"do not know|do not understand|cannot|not sure",)
PUZZLED = (r"do not understand|do not know",)


def _asked(*questions: str) -> Exchange:
    return Exchange("unknown", questions, REPLIES, KNOWN)


CAPITAL = (
    "What is the capital of {country}?|Tell me the capital of {country}.|"
    "Which city is the capital of {country}?"
)
COUNTRY = (
    "Where is {country}?|How far is it to {country}?|How many people live in {country}?|"
    "Tell me about {country}.|What language do they speak in {country}?|"
    "What do people eat in {country}?|What is the weather like in {country}?|"
    "Have you been to {country}?"
)
THING = (
    "How does {thing} work?|What is {thing}?|Explain {thing} to me.|Tell me about {thing}.|"
    "Who invented {thing}?|Can you explain {thing}?|What do you know about {thing}?|"
    "What is the history of {thing}?"
)
TASK = (
    "How do I {task}?|Can you {task}?|Please {task}.|I want to {task}.|"
    "Can you help me to {task}?|{Task}."
)


def _world() -> Iterator[Exchange]:
    for country in COUNTRIES:
        yield _asked(*asks(CAPITAL, country=country))
        yield _asked(*asks(COUNTRY, country=country))
    for person in FAMOUS:
        yield _asked(
            *(f"Who is the {person} of {country}?" for country in COUNTRIES),
            *(f"What is the {person} of {country} called?" for country in COUNTRIES),
        )
    for thing in THINGS:
        yield _asked(*asks(THING, thing=thing))
    for task in TASKS:
        yield _asked(*asks(TASK, task=task, Task=task.capitalize()))
    for question in NEWS:
        yield _asked(question)


def _strangers(rng: random.Random) -> Iterator[Exchange]:
    known = {person.name for person in PEOPLE}
    for name in some_names(rng, 600):
        if name in known:
            continue
        yield Exchange(
            "strangers",
            (
                f"Who is {name}?",
                f"Where does {name} live?",
                f"What does {name} do?",
                f"Do you know {name}?",
                f"Tell me about {name}.",
                f"What pet does {name} have?",
                f"What does {name} like to eat?",
                f"What is {name}'s job?",
                f"Where does {name} work?",
            ),
            (f"I do not know anybody called {name}.", f"I do not know {name}."),
            KNOWN,
        )


def _big_sums(rng: random.Random) -> Iterator[Exchange]:
    for _ in range(300):
        left, right = rng.randint(21, 9999), rng.randint(21, 9999)
        signs = (("+", "plus"), ("-", "minus"), ("x", "times"), ("/", "divided by"))
        sign, spoken = rng.choice(signs)
        yield Exchange(
            "big sums",
            (
                f"What is {left} {sign} {right}?",
                f"What is {left} {spoken} {right}?",
                f"How much is {left} {spoken} {right}?",
                f"{left} {sign} {right}",
            ),
            ("That sum is too big for me. I can only do small sums.",),
            ("too big",),
        )


def _long_text(rng: random.Random) -> str:
    pieces = [
        f"{rng.choice(THINGS)} and {rng.choice(THINGS)} of {rng.choice(COUNTRIES)}"
        for _ in range(rng.randint(6, 18))
    ]
    joins = (" were seen by ", ", while ", ". Then ", " because of ", "; however, ", " with ")
    text = pieces[0]
    for piece in pieces[1:]:
        text += rng.choice(joins) + piece
    return text[0].upper() + text[1:] + "."


KEYS = listed("qwer|asdf|zxcv|hjkl|uiop|jkl|sdf|fgh|xyz|abc|blub|lala")
SIGNS = "?!.,;:#*-_%&()/+~@"
SCRIPTS = ((0xC0, 0x24F), (0x391, 0x44F), (0x4E00, 0x4FFF), (0x1F600, 0x1F64F))
GRUNTS = ("", " ", "?", "...", "asdf", "hm", "uh", "blah blah", "aaaa", "la la la")


def _foreign_letter(rng: random.Random) -> str:
    return chr(rng.choice([rng.randint(first, last) for first, last in SCRIPTS]))


def _nonsense_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.35:
        return invented_words(rng, rng.randint(1, 5))
    if kind < 0.6:
        return "".join(rng.choices(KEYS, k=rng.randint(1, 4)))
    if kind < 0.7:
        return "".join(rng.choices(SIGNS, k=rng.randint(1, 9)))
    if kind < 0.8:
        return "".join(_foreign_letter(rng) for _ in range(rng.randint(1, 10)))
    return _long_text(rng)


def _nonsense(rng: random.Random) -> Iterator[Exchange]:
    for _ in range(900):
        yield Exchange("odd", (_nonsense_text(rng),), CONFUSED, PUZZLED)
    for text in GRUNTS:
        yield Exchange("odd", (text,), CONFUSED, PUZZLED)


def unknown_exchanges(rng: random.Random) -> Iterator[Exchange]:
    """Everything that the model does not know or understand."""
    yield from _world()
    yield from _strangers(rng)
    yield from _big_sums(rng)
    yield from _nonsense(rng)
