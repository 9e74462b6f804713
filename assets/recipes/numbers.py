"""Counting, small sums, the calendar and plain comparisons."""

from collections.abc import Iterator

from assets.recipes.exchange import Exchange, Topic, asks, listed
from assets.recipes.facts import DAYS, MONTHS

ORDINALS = listed(
    "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
)


def _listing(numbers: range) -> str:
    return ", ".join(str(number) for number in numbers)


def _counted(questions: tuple[str, ...], numbers: range) -> Exchange:
    text = _listing(numbers)
    return Exchange("counting", questions, (f"{text}.",), (rf"(?<![\d, ]){text}(?!,? ?\d)",))


UP = (
    "Count from {low} to {high}.|Can you count from {low} to {high}?|"
    "Please count from {low} to {high}.|Count up from {low} to {high}.|"
    "Say the numbers from {low} to {high}.|Start at {low} and count to {high}."
)
DOWN = (
    "Count down from {high} to {low}.|Count backwards from {high} to {low}.|"
    "Can you count down from {high} to {low}?|Start at {high} and count down to {low}."
)
FROM_ONE = (
    "Count to {high}.|Can you count to {high}?|Please count to {high}.|Count up to {high}.|"
    "Count for me to {high}."
)
BY_TWOS = (
    "Count by twos from {low} to {high}.|Count in twos from {low} to {high}.|"
    "Can you count by twos from {low} to {high}?|Start at {low} and count by twos to {high}."
)
BESIDE = (
    "What number comes {side} {number}?|What comes {side} {number}?|"
    "Which number is {side} {number}?|Tell me the number {side} {number}."
)


def counting_exchanges() -> Iterator[Exchange]:
    """Counting up, down and by twos, and the numbers next to a number."""
    for low in range(13):
        for high in range(low + 3, min(low + 12, 21)):
            ends = {"low": str(low), "high": str(high)}
            yield _counted(asks(UP, **ends), range(low, high + 1))
            yield _counted(asks(DOWN, **ends), range(high, low - 1, -1))
    for high in range(3, 21):
        yield _counted(asks(FROM_ONE, high=str(high)), range(1, high + 1))
    for low in range(11):
        for high in range(low + 4, min(low + 17, 31), 2):
            ends = {"low": str(low), "high": str(high)}
            yield _counted(asks(BY_TWOS, **ends), range(low, high + 1, 2))
    for number in range(1, 41):
        for side, other in (("after", number + 1), ("before", number - 1)):
            yield Exchange(
                "counting",
                asks(BESIDE, side=side, number=str(number)),
                (f"The number {side} {number} is {other}.",),
                (rf"is {other}\b",),
            )


def _sum(left: int, sign: str, right: int, result: int, spoken: tuple[str, ...]) -> Exchange:
    questions = (
        *(text.format(a=left, b=right) for text in spoken),
        f"What is {left} {sign} {right}?",
        f"{left} {sign} {right} = ?",
        f"{left} {sign} {right}",
        f"Calculate {left} {sign} {right}.",
    )
    category = "products" if sign == "x" else "sums"
    accept = (rf"(?:= |is |makes )(?<!\d){result}(?!\d)",)
    return Exchange(category, questions, (f"{left} {sign} {right} = {result}.",), accept)


def sum_exchanges() -> Iterator[Exchange]:
    """Addition and subtraction up to 20, products up to 10 by 10."""
    for total in range(0, 21):
        for left in range(0, total + 1):
            right = total - left
            yield _sum(
                left,
                "+",
                right,
                total,
                listed(
                    "What is {a} plus {b}?|How much is {a} plus {b}?|Add {a} and {b}.|"
                    "What do you get when you add {a} and {b}?|Can you add {a} and {b}?"
                ),
            )
            yield _sum(
                total,
                "-",
                left,
                right,
                listed(
                    "What is {a} minus {b}?|How much is {a} minus {b}?|Take {b} away from {a}.|"
                    "What is left when you take {b} from {a}?|Can you subtract {b} from {a}?"
                ),
            )
    for left in range(0, 11):
        for right in range(0, 11):
            yield _sum(
                left,
                "x",
                right,
                left * right,
                listed(
                    "What is {a} times {b}?|How much is {a} times {b}?|Multiply {a} by {b}.|"
                    "Can you multiply {a} and {b}?"
                ),
            )


def story_sums() -> Iterator[Exchange]:
    """Sums told as a small story, and comparisons."""
    for left in range(2, 10):
        for right in range(1, 8):
            for thing in ("apples", "shells", "boats"):
                total = left + right
                yield Exchange(
                    "sums",
                    (
                        f"I have {left} {thing} and get {right} more. How many {thing} do I have?",
                        f"There are {left} {thing}. Then come {right} more. How many are there?",
                    ),
                    (f"{left} + {right} = {total}. That makes {total} {thing}.",),
                    (rf"makes {total}\b",),
                )
    for left in range(0, 21):
        for right in range(0, 21):
            if left != right:
                big, small = max(left, right), min(left, right)
                yield Exchange(
                    "comparing",
                    (
                        f"Which is bigger, {left} or {right}?",
                        f"Is {left} or {right} bigger?",
                        f"Which number is larger, {left} or {right}?",
                    ),
                    (f"{big} is bigger than {small}.",),
                    (rf"^{big} is",),
                )


NEIGHBOUR = (
    "What {kind} comes {side} {name}?|Which {kind} comes {side} {name}?|"
    "What {kind} is {side} {name}?|Which {kind} is it {side} {name}?|"
    "Tell me the {kind} {side} {name}.|What comes {side} {name}?"
)
LIST = Topic(
    "calendar",
    "Say the {kind}s of the {scope}.|What are the {kind}s of the {scope}?|"
    "List the {kind}s of the {scope}.|Name all the {kind}s of the {scope}.|"
    "Can you name the {kind}s?",
    "{names}.",
    "{names}",
)
HOW_MANY = Topic(
    "calendar",
    "How many {kind}s are in a {scope}?|How many {kind}s does a {scope} have?|"
    "How many {kind}s are there in one {scope}?|Tell me how many {kind}s a {scope} has.",
    "A {scope} has {number} {kind}s.",
    "{number}",
)
PLACED = Topic(
    "calendar",
    "What is the {ordinal} {kind} of the {scope}?|Which {kind} is the {ordinal} of the {scope}?|"
    "Name the {ordinal} {kind} of the {scope}.",
    "The {ordinal} {kind} of the {scope} is {name}.",
    "{name}",
)


def _in_order(kind: str, scope: str, names: tuple[str, ...]) -> Iterator[Exchange]:
    for index, name in enumerate(names):
        after, before = names[(index + 1) % len(names)], names[index - 1]
        for side, other in (("after", after), ("before", before)):
            yield Exchange(
                "calendar",
                asks(NEIGHBOUR, kind=kind, side=side, name=name),
                (f"The {kind} {side} {name} is {other}.",),
                (rf"is {other}\b",),
            )
    yield LIST.about(kind=kind, scope=scope, names=", ".join(names))
    yield HOW_MANY.about(kind=kind, scope=scope, number=str(len(names)))
    for ordinal, name in zip(ORDINALS, names, strict=False):
        yield PLACED.about(ordinal=ordinal, kind=kind, scope=scope, name=name)


def calendar_exchanges() -> Iterator[Exchange]:
    """Days and months: order, number, neighbours."""
    yield from _in_order("day", "week", DAYS)
    yield from _in_order("month", "year", MONTHS)
