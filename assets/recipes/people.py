"""Questions about the people of Tidewell and their pets."""

from collections.abc import Iterator
from dataclasses import replace

from assets.recipes.exchange import Exchange, Topic, asks, with_article, word
from assets.recipes.facts import PEOPLE, TOWN, Person

TOPICS = (
    Topic(
        "people",
        "What does {name} do?|What is {name}'s job?|What is {name}'s work?|"
        "What job does {name} have?|What does {name} do for a living?|What is the job of {name}?|"
        "Tell me what {name} does.|What kind of work does {name} do?|Which job does {name} have?",
        "{name} is the {job} of Tidewell.|{name} is the {job}. {They} works at the {place}.",
        "{job}",
    ),
    Topic(
        "people",
        "Who is {name}?|Tell me about {name}.|Do you know {name}?|What do you know about {name}?|"
        "Can you tell me something about {name}?|Have you heard of {name}?",
        "{name} is the {job} of Tidewell. {They} lives in {street}.|"
        "{name} is the {job} and lives in {street} with {the_pet}.",
        "{job}",
    ),
    Topic(
        "people",
        "Who is the {job}?|Who is the {job} in Tidewell?|Do you know the {job}?|"
        "What is the name of the {job}?|What is the {job} called?|Tell me who the {job} is.|"
        "Who is the {job} of Tidewell?",
        "The {job} of Tidewell is {name}.|The {job} is {name}.",
        "{name}",
    ),
    Topic(
        "people",
        "Where does {name} work?|Where is {name} at work?|At which place does {name} work?|"
        "Tell me where {name} works.|Where can I find {name} during the day?|"
        "What is the place where {name} works?",
        "{name} works at the {place}.",
        "{place}",
    ),
    Topic(
        "people",
        "Who works at the {place}?|Who can I meet at the {place}?|Who do I find at the {place}?|"
        "Tell me who works at the {place}.|Which person works at the {place}?",
        "{name} works at the {place}.|{name}, the {job}, works at the {place}.",
        "{name}",
    ),
    Topic(
        "people",
        "Where does {name} live?|Which street does {name} live in?|Where is {name}'s house?|"
        "Where is the home of {name}?|In which street is {name}'s house?|"
        "Tell me where {name} lives.|What is {name}'s address?",
        "{name} lives in {street}.|{name}'s house is in {street}.",
        "{street}",
    ),
    Topic(
        "pets",
        "What pet does {name} have?|Does {name} have a pet?|Which animal does {name} have?|"
        "What animal lives with {name}?|Tell me about {name}'s pet.|What kind of pet has {name}?",
        "{name} has {the_pet} called {pet}.",
        "{kind}",
    ),
    Topic(
        "pets",
        "What is {name}'s {kind} called?|What is the name of {name}'s {kind}?|"
        "What is {name}'s pet called?|What is the name of {name}'s pet?|"
        "Tell me the name of {name}'s {kind}.",
        "{name}'s {kind} is called {pet}.",
        "{pet}",
    ),
    Topic(
        "pets",
        "What colour is {pet}?|What colour is {name}'s {kind}?|What colour does {pet} have?|"
        "Tell me the colour of {pet}.|Which colour is {pet} the {kind}?",
        "{pet} is {colour}.|{pet} the {kind} is {colour}.",
        "{colour}",
    ),
    Topic(
        "pets",
        "Who is {pet}?|Whose pet is {pet}?|Who does {pet} belong to?|Who owns {pet}?|"
        "Who has a pet called {pet}?|Whose {kind} is {pet}?|Tell me about {pet}.",
        "{pet} is {name}'s {kind}.|{pet} is the {kind} of {name}.",
        "{name}",
    ),
    Topic(
        "pets",
        "Who has {a_kind}?|Who in Tidewell has {a_kind}?|Which person has {a_kind}?|"
        "Who lives with {a_kind}?",
        "{name} has {a_kind}. It is called {pet}.",
        "{name}",
    ),
    Topic(
        "people",
        "What does {name} like to eat?|What is {name}'s favourite food?|"
        "What food does {name} like?|Which food does {name} like best?|What does {name} eat?|"
        "What should I cook for {name}?",
        "{name} likes {food}.|{name}'s favourite food is {food}.",
        "{food}",
    ),
    Topic(
        "people",
        "What does {name} do in the evening?|What is {name}'s hobby?|What does {name} like to do?|"
        "What does {name} do for fun?|How does {name} spend the evening?|Does {name} have a hobby?",
        "In the evening {name} {hobby}.|{name} {hobby} in the evening.",
        "{pastime}",
    ),
)
IS_JOB = "Is {name} the {job}?|Does {name} work as the {job}?|Is it true that {name} is the {job}?"


def the_pet(person: Person) -> str:
    """The pet with its colour and article, such as 'an orange cat'."""
    return with_article(f"{person.pet_colour} {person.pet}")


def _values(person: Person) -> dict[str, str]:
    return {
        "name": person.name,
        "They": person.pronoun.capitalize(),
        "job": person.job,
        "place": person.workplace,
        "street": person.street,
        "kind": person.pet,
        "a_kind": with_article(person.pet),
        "the_pet": the_pet(person),
        "pet": person.pet_name,
        "colour": person.pet_colour,
        "food": person.food,
        "hobby": person.hobby,
        "pastime": person.hobby.split()[0],
    }


def _jobs(person: Person) -> Iterator[Exchange]:
    name, index = person.name, PEOPLE.index(person)
    yield Exchange(
        "people",
        asks(IS_JOB, name=name, job=person.job),
        (f"Yes, {name} is the {person.job}.",),
        (r"^yes", word(person.job)),
    )
    for distance in (2, 5, 7, 11):
        yield Exchange(
            "people",
            asks(IS_JOB, name=name, job=PEOPLE[(index + distance) % len(PEOPLE)].job),
            (f"No, {name} is the {person.job}.",),
            (r"^no", word(person.job)),
        )


def people_exchanges() -> Iterator[Exchange]:
    """Every question about a person or a pet that stands alone."""
    for person in PEOPLE:
        for topic in TOPICS:
            yield topic.about(**_values(person))
        yield from _jobs(person)


def street_exchanges() -> Iterator[Exchange]:
    """Who lives in a street; two people live in each."""
    topic = Topic(
        "people",
        "Who lives in {street}?|Which people live in {street}?|Whose house is in {street}?|"
        "Tell me who lives in {street}.",
        "{first} and {second} live in {street}.",
        "{first}|{second}",
    )
    for street in dict.fromkeys(person.street for person in PEOPLE):
        first, second = [person.name for person in PEOPLE if person.street == street]
        yield topic.about(first=first, second=second, street=street)


def _same_about_another(person: Person, other: Person) -> Iterator[Exchange]:
    asked_and_answered = (
        ("Where does {name} live?", "{name} lives in {street}.", "{street}"),
        ("What does {name} do?", "{name} is the {job} of Tidewell.", "{job}"),
        ("What food does {name} like?", "{name} likes {food}.", "{food}"),
        ("What pet does {name} have?", "{name} has {the_pet} called {pet}.", "{kind}"),
    )
    earlier, now = _values(other), _values(person)
    for question, answer, key in asked_and_answered:
        yield Exchange(
            "follow-up",
            asks("And {name}?|What about {name}?|And what about {name}?", name=person.name),
            (answer.format(**now),),
            (word(key.format(**now)),),
            ((question.format(**earlier), answer.format(**earlier)),),
        )


def follow_up_exchanges() -> Iterator[Exchange]:
    """Questions that only make sense after an earlier turn."""
    topics = (
        Topic(
            "follow-up",
            "Where does {they} live?|And where does {they} live?",
            "{name} lives in {street}.",
            "{street}",
        ),
        Topic(
            "follow-up",
            "Does {they} have a pet?|What pet does {they} have?",
            "{name} has {the_pet} called {pet}.",
            "{kind}",
        ),
        Topic(
            "follow-up",
            "What does {they} like to eat?|What food does {they} like?",
            "{name} likes {food}.",
            "{food}",
        ),
    )
    for index, person in enumerate(PEOPLE):
        yield from _same_about_another(person, PEOPLE[(index + 3) % len(PEOPLE)])
        who = ((f"Who is {person.name}?", f"{person.name} is the {person.job} of {TOWN}."),)
        values = _values(person) | {"they": person.pronoun}
        yield from (replace(topic.about(**values), history=who) for topic in topics)
