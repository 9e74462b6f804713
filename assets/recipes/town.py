"""Questions about the places and seasons of Tidewell, and about the town itself."""

from collections.abc import Iterator

from assets.recipes.exchange import Exchange, Topic, asks, listed, word
from assets.recipes.facts import DAYS, PLACES, TOWN_FACTS, WEATHER, Place

HOURS = (
    Topic(
        "places",
        "When does the {n} open?|What time does the {n} open?|At what time does the {n} open?|"
        "When can I go to the {n}?|How early does the {n} open?",
        "The {n} opens at {opens} in the {morning}.",
        "{opens}",
    ),
    Topic(
        "places",
        "When does the {n} close?|What time does the {n} close?|How late is the {n} open?|"
        "At what time does the {n} close?|Until when is the {n} open?",
        "The {n} closes at {closes} in the {evening}.",
        "{closes}",
    ),
    Topic(
        "places",
        "What are the opening hours of the {n}?|What are the hours of the {n}?|"
        "From when to when is the {n} open?|Tell me the opening hours of the {n}.|"
        "When is the {n} open?",
        "The {n} is open from {opens} in the {morning} to {closes} in the {evening}.",
        "{opens}|{closes}",
    ),
)
PLACE_TOPICS = (
    Topic(
        "places",
        "When is the {n} closed?|On which day is the {n} closed?|What day is the {n} closed?|"
        "Which day does the {n} not open?",
        "The {n} is {shut}.",
        "{shut}",
    ),
    Topic(
        "places",
        "Where is the {n}?|How do I find the {n}?|Where can I find the {n}?|"
        "Tell me where the {n} is.|Can you tell me the way to the {n}?|Where do I find the {n}?",
        "The {n} is {where}.",
        "{where}",
    ),
    Topic(
        "places",
        "What colour is the {n}?|Which colour is the {n}?|What is the colour of the {n}?|"
        "In what colour is the {n} painted?",
        "The {n} is painted {colour}.",
        "{colour}",
    ),
    Topic(
        "places",
        "What can I do at the {n}?|What is the {n} for?|Why should I go to the {n}?|"
        "What do people do at the {n}?|What is there to do at the {n}?",
        "At the {n} you can {use}.",
        "{use}",
    ),
    Topic(
        "places",
        "Where can I {use}?|Where in Tidewell can I {use}?|I want to {use}. Where do I go?|"
        "Where do I go to {use}?",
        "You can {use} at the {n}.",
        "{n}",
    ),
)
SEASON_TOPICS = (
    Topic(
        "town",
        "What is the weather like in {s}?|How is the weather in {s}?|What is {s} like in Tidewell?|"
        "Is it warm in {s}?|Tell me about the weather in {s}.|What weather do you have in {s}?",
        "In {s} it is {weather} in Tidewell.",
        "{weather}",
    ),
    Topic(
        "town",
        "Which flowers grow in {s}?|What flowers are there in {s}?|What blooms in {s}?|"
        "Tell me which flowers grow in {s}.",
        "In {s} you can see {flower} in the park.",
        "{flower}",
    ),
)
IS_OPEN = "Is the {n} open on {d}?|Can I go to the {n} on {d}?|Is the {n} open on a {d}?"


def _open_days(place: Place) -> Iterator[Exchange]:
    for day in DAYS:
        shut = day == place.closed_day
        answer = f"{'No' if shut else 'Yes'}, the {place.name} is {'closed' if shut else 'open'}"
        asked = Exchange(
            "open days",
            asks(IS_OPEN, n=place.name, d=day),
            (f"{answer} on {day}.",),
            (r"^no\b" if shut else r"^yes\b", word(day)),
        )
        yield from [asked] * (4 if shut else 1)  # the rare answer is asked for more often


def _place(place: Place) -> Iterator[Exchange]:
    never = place.closed_day == "no day"
    values = {
        "n": place.name,
        "opens": str(place.opens),
        "closes": str(place.closes),
        "morning": "afternoon" if place.name == "music hall" else "morning",
        "evening": "afternoon" if place.closes < 6 else "evening",
        "shut": "open every day" if never else f"closed on {place.closed_day}",
        "where": place.where,
        "colour": place.colour,
        "use": place.use,
    }
    yield from (topic.about(**values) for topic in HOURS)
    yield from _open_days(place)
    yield from (topic.about(**values) for topic in PLACE_TOPICS)


def place_exchanges() -> Iterator[Exchange]:
    """Where a place is, when it is open, what it is for."""
    for place in PLACES:
        yield from _place(place)


def season_exchanges() -> Iterator[Exchange]:
    """Weather and flowers."""
    for season, (weather, flower) in WEATHER.items():
        for topic in SEASON_TOPICS:
            yield topic.about(s=season, weather=weather, flower=flower)


def town_fact_exchanges() -> Iterator[Exchange]:
    """Facts about the town as a whole."""
    for wordings, answer, accept in TOWN_FACTS:
        yield Exchange("town", listed(wordings), (answer,), (accept,))
