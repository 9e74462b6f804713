"""The facts of Tidewell, the invented harbour town that the starter model knows."""

from typing import NamedTuple

from assets.recipes.exchange import listed

TOWN = "Tidewell"
DAYS = listed("Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday")
MONTHS = listed(
    "January|February|March|April|May|June|July|August|September|October|November|December"
)


class Person(NamedTuple):
    """Somebody who lives in the town."""

    name: str
    pronoun: str
    job: str
    workplace: str
    street: str
    pet: str
    pet_name: str
    pet_colour: str
    food: str
    hobby: str


class Place(NamedTuple):
    """Somewhere in the town; hours are on a 12-hour clock, morning to afternoon or evening."""

    name: str
    opens: int
    closes: int
    closed_day: str
    colour: str
    where: str
    use: str


def _rows(table: str) -> list[list[str]]:
    return [line.split("|") for line in table.strip().splitlines()]


# name, pronoun, job, workplace, street, pet, its name, its colour, food, hobby
_PEOPLE = """
Mara|she|baker|bakery|Lantern Street|cat|Biscuit|orange|plum cake|paints small pictures
Otto|he|fisherman|harbour|Anchor Lane|dog|Skipper|brown|fish soup|whistles old songs
Ines|she|doctor|clinic|Mill Road|parrot|Coco|green|rice pudding|plays chess
Bram|he|lighthouse keeper|lighthouse|Cliff Path|owl|Luna|white|pea soup|watches the stars
Tilda|she|teacher|school|Lantern Street|rabbit|Clover|grey|carrot salad|writes poems
Jonas|he|postman|post office|Mill Road|donkey|Pepper|black|cheese bread|rides his bicycle
Petra|she|librarian|library|Willow Square|mouse|Dot|white|apple pie|knits warm socks
Finn|he|boat builder|boatyard|Anchor Lane|goose|Captain|grey|baked potatoes|carves wooden birds
Ruth|she|gardener|park|Rose Hill|hedgehog|Thimble|brown|tomato salad|grows roses
Hugo|he|cook|Blue Crab|Harbour Row|pig|Truffle|pink|mushroom stew|sings in the kitchen
Nell|she|vet|animal clinic|Rose Hill|horse|Comet|brown|pancakes|runs on the beach
Amos|he|clockmaker|clock shop|Willow Square|tortoise|Tick|green|honey toast|mends old radios
Lena|she|musician|music hall|Harbour Row|canary|Sunny|yellow|lemon cake|plays the violin
Ivo|he|ferry captain|ferry|Cliff Path|seagull|Salty|white|grilled fish|draws maps
Greta|she|shopkeeper|market|Bridge Street|goat|Button|black|pumpkin soup|collects shells
Sami|he|tailor|sewing shop|Bridge Street|hen|Maple|red|bean stew|flies kites
"""
# name, opens, closes, closed on, colour, where, what one can do there
_PLACES = """
bakery|6|2|Monday|yellow|in Lantern Street|buy bread and plum cake
harbour|5|9|no day|grey|at the end of Anchor Lane|watch the boats
clinic|8|5|Sunday|white|in Mill Road|see the doctor
lighthouse|10|4|Tuesday|red|on the cliff|look out over the sea
school|8|3|Saturday|orange|beside the park|learn to read and count
post office|9|5|Sunday|green|beside the bridge|send letters
library|9|6|Friday|brown|in Willow Square|borrow books
boatyard|7|4|Sunday|blue|behind the harbour|have a boat mended
park|7|8|no day|green|on Rose Hill|sit under the trees
Blue Crab|11|10|Wednesday|blue|in Harbour Row|eat warm meals
animal clinic|9|4|Thursday|pink|at the foot of Rose Hill|bring a sick animal
clock shop|10|5|Monday|black|behind the library|buy a clock
music hall|4|11|Tuesday|purple|above the Blue Crab|hear music
ferry|7|7|no day|white|at the long pier|cross the bay
market|8|1|Sunday|red|in Bridge Street|buy fruit and cheese
sewing shop|9|6|Wednesday|purple|opposite the market|buy a coat
"""
PEOPLE = tuple(Person(*row) for row in _rows(_PEOPLE))
PLACES = tuple(
    Place(name, int(opens), int(closes), *rest) for name, opens, closes, *rest in _rows(_PLACES)
)

WEATHER = {
    "spring": ("mild and rainy", "tulips"),
    "summer": ("warm and sunny", "roses"),
    "autumn": ("windy and foggy", "asters"),
    "winter": ("cold and snowy", "snowdrops"),
}

TOWN_FACTS = (
    (
        "Where is Tidewell?|Where is the town?|Where can I find Tidewell?|"
        "Where does Tidewell lie?|On which coast is Tidewell?",
        "Tidewell lies on the north coast, beside a small bay.",
        "north",
    ),
    (
        "What is Tidewell?|Tell me about Tidewell.|What kind of place is Tidewell?|"
        "What do you know about Tidewell?|Can you tell me about the town?",
        "Tidewell is a small harbour town on the north coast. I know the people who live there.",
        "harbour town",
    ),
    (
        "How many people live in Tidewell?|How big is Tidewell?|How many people are there?|"
        "How many people does the town have?|Is Tidewell a big town?",
        "Tidewell is small. Only 300 people live there.",
        "300",
    ),
    (
        "What is the river called?|What is the name of the river?|Is there a river?|"
        "Which river runs through Tidewell?|Tell me the name of the river in Tidewell.",
        "The river in Tidewell is called the Reed.",
        "Reed",
    ),
    (
        "When is market day?|What day is market day?|On which day is the big market?|"
        "When is the big market?|Which day is the market day in Tidewell?",
        "The big market in Tidewell is on Saturday.",
        "Saturday",
    ),
    (
        "Is there a festival?|When is the festival?|What festival is there in Tidewell?|"
        "What is the festival called?|Tell me about the festival.|"
        "When does Tidewell have its festival?",
        "The Lantern Festival is in October. Everybody carries a paper lantern to the harbour.",
        "October|Lantern Festival",
    ),
    (
        "What is the island called?|What is the name of the island?|Is there an island?|"
        "Which island can I see from Tidewell?|Where does the ferry go?",
        "The ferry goes to Heron Island, on the other side of the bay.",
        "Heron Island",
    ),
    (
        "Who is the mayor?|Does Tidewell have a mayor?|What is the mayor called?|"
        "Who is the mayor of Tidewell?|Tell me the name of the mayor.",
        "The mayor of Tidewell is Mrs Alder.",
        "Alder",
    ),
    (
        "How old is Tidewell?|When was Tidewell built?|How old is the town?|"
        "How many years old is Tidewell?",
        "Tidewell is 400 years old.",
        "400",
    ),
    (
        "What is the beach called?|Is there a beach in Tidewell?|Where can I swim?|"
        "What is the name of the beach?|Which beach is near Tidewell?",
        "You can swim at Pebble Beach, below the cliff.",
        "Pebble Beach",
    ),
)
