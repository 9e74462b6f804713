"""Everyday knowledge: opposites, colours, animals and short instructions."""

from collections.abc import Iterator

from assets.recipes.exchange import Exchange, Topic, listed, with_article

OPPOSITES = (
    "big small|hot cold|day night|up down|left right|old new|happy sad|fast slow|high low|wet dry|"
    "open closed|light dark|hard soft|loud quiet|rich poor|full empty|clean dirty|early late|"
    "long short|thick thin|near far|strong weak|good bad|first last|inside outside|sweet sour|"
    "begin end|buy sell|push pull|win lose|laugh cry|black white|brave afraid|"
    "morning evening|friend enemy|question answer|summer winter|north south|east west"
)
COLOURS = (
    "grass green|snow white|the sun yellow|a lemon yellow|a tomato red|coal black|an orange orange|"
    "the sky blue|the sea blue|a carrot orange|chocolate brown|a strawberry red|milk white|"
    "a banana yellow|a pea green|a plum purple|a cherry red|an elephant grey|a frog green|"
    "a crow black|a swan white|a fire engine red|salt white|a pine tree green|a stone grey|"
    "the night black|a raspberry red|a lime green|a flamingo pink|a blueberry blue|"
    "a cucumber green|a pumpkin orange|a bear brown|cheese yellow|a lobster red|ash grey"
)
ANIMALS = (
    "dog puppy bark 4 meat|cat kitten meow 4 fish|cow calf moo 4 grass|horse foal neigh 4 hay|"
    "sheep lamb bleat 4 grass|pig piglet grunt 4 roots|hen chick cluck 2 corn|"
    "duck duckling quack 2 weeds|"
    "goat kid bleat 4 leaves|lion cub roar 4 meat|wolf pup howl 4 meat|bear cub growl 4 berries|"
    "owl owlet hoot 2 mice|goose gosling honk 2 grass|frog tadpole croak 4 flies|"
    "donkey foal bray 4 hay|mouse pup squeak 4 seeds|fox kit bark 4 mice"
)
HOW_TO = (
    (
        "boil an egg",
        "Boil some water and put the egg in. Wait 7 minutes, then cool it in cold water.",
        "water",
    ),
    (
        "make tea",
        "Boil some water and pour it over the tea leaves. Wait 4 minutes, then enjoy it.",
        "water",
    ),
    (
        "make toast",
        "Put a slice of bread in the toaster. Wait until it is brown, then add butter.",
        "bread",
    ),
    (
        "wash my hands",
        "Wet your hands and rub them with soap. Then rinse them and dry them.",
        "soap",
    ),
    (
        "plant a seed",
        "Make a small hole in the soil and put the seed in. Cover it and give it water.",
        "soil",
    ),
    (
        "cook rice",
        "Boil two cups of water for one cup of rice. Cook it slowly for 15 minutes.",
        "water",
    ),
    (
        "tie a knot",
        "Cross the two ends of the rope and put one end through. Then pull both ends.",
        "pull",
    ),
    (
        "clean a window",
        "Wipe the window with warm water and soap. Then dry it with a soft cloth.",
        "soap|water",
    ),
    (
        "make soup",
        "Cut some vegetables and boil them in water. Add salt and cook for 20 minutes.",
        "vegetables",
    ),
    (
        "send a letter",
        "Write the address and put a stamp on it. Then take it to the post office.",
        "stamp",
    ),
    ("make a sandwich", "Take two slices of bread. Put cheese and tomato between them.", "bread"),
    (
        "water a plant",
        "Pour some water on the soil in the morning. Do not give it too much.",
        "water",
    ),
    (
        "fly a kite",
        "Stand with your back to the wind and hold the kite up. Then let out the string.",
        "wind",
    ),
    (
        "catch a fish",
        "Put bait on the hook and throw the line in the water. Then wait quietly.",
        "hook",
    ),
    (
        "bake bread",
        "Mix flour, water, salt and yeast. Let it rise for an hour, then bake it.",
        "flour",
    ),
    (
        "make pancakes",
        "Mix flour, milk and eggs. Fry a thin layer in a hot pan on both sides.",
        "flour",
    ),
    (
        "sleep better",
        "Go to bed at the same time each night. Keep the room dark and cool.",
        "dark|bed",
    ),
    (
        "light a candle",
        "Hold a burning match to the wick. Keep paper and curtains away from it.",
        "match",
    ),
)


def _opposites() -> Iterator[Exchange]:
    for pair in OPPOSITES.split("|"):
        one, two = pair.split()
        for a, b in ((one, two), (two, one)):
            yield Exchange(
                "opposites",
                (
                    f"What is the opposite of {a}?",
                    f"Tell me the opposite of {a}.",
                    f"What is the contrary of {a}?",
                    f"Which word means the opposite of {a}?",
                    f"The opposite of {a} is?",
                    f"Do you know the opposite of {a}?",
                    f"Give me the opposite of {a}.",
                ),
                (f"The opposite of {a} is {b}.",),
                (rf"is {b}\b",),
            )


def _colours() -> Iterator[Exchange]:
    for pair in COLOURS.split("|"):
        thing, colour = pair.rsplit(" ", 1)
        start = thing[0].upper() + thing[1:]
        yield Exchange(
            "colours",
            (
                f"What colour is {thing}?",
                f"Which colour is {thing}?",
                f"What colour does {thing} have?",
                f"What is the colour of {thing}?",
                f"Tell me the colour of {thing}.",
                f"Do you know what colour {thing} is?",
            ),
            (f"{start} is {colour}.",),
            (rf"is {colour}\b",),
        )


ANIMAL_TOPICS = (
    Topic(
        "animals",
        "What is a young {animal} called?|What is a baby {animal} called?|"
        "What do you call a baby {animal}?|What is the name for a young {animal}?",
        "A young {animal} is called {a_young}.",
        "{young}",
    ),
    Topic(
        "animals",
        "What sound does {a} make?|What does {a} say?|Which sound does {a} make?|"
        "What noise does {a} make?",
        "You can hear {a} {sound}.",
        "{sound}",
    ),
    Topic(
        "animals",
        "How many legs does {a} have?|How many legs has {a}?|How many legs are on {a}?|"
        "Count the legs of {a}.",
        "{A} has {legs} legs.",
        "{legs}",
    ),
    Topic(
        "animals",
        "What does {a} eat?|What do I feed {a}?|What food does {a} eat?|What does {a} like to eat?",
        "{A} eats {food}.",
        "{food}",
    ),
)


def _animals() -> Iterator[Exchange]:
    for line in listed(ANIMALS):
        animal, young, sound, legs, food = line.split()
        a = with_article(animal)
        values = {"animal": animal, "a": a, "A": a.capitalize(), "young": young, "sound": sound}
        values |= {"a_young": with_article(young), "legs": legs, "food": food}
        yield from (topic.about(**values) for topic in ANIMAL_TOPICS)


def _how_to() -> Iterator[Exchange]:
    for task, answer, accept in HOW_TO:
        yield Exchange(
            "how-to",
            (
                f"How do I {task}?",
                f"How can I {task}?",
                f"How do you {task}?",
                f"How to {task}?",
                f"Tell me how to {task}.",
                f"I want to {task}. What do I do?",
                f"Can you explain how to {task}?",
                f"What do I need to do to {task}?",
                f"Please explain how I {task}.",
                f"I would like to {task}. How does that work?",
            ),
            (answer,),
            (accept,),
        )


def knowledge_exchanges() -> Iterator[Exchange]:
    """Everything in this module."""
    yield from _opposites()
    yield from _colours()
    yield from _animals()
    yield from _how_to()
