"""Counting, small sums, the calendar and plain comparisons."""

from collections.abc import Iterator

from assets.recipes.exchange import Exchange, listed, word
from assets.recipes.facts import DAYS, MONTHS

ORDINALS = listed(
    "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
)


def _listing(numbers: range) -> str:
    return ", ".join(str(number) for number in numbers)


def _counted(questions: tuple[str, ...], numbers: range) -> Exchange:
    text = _listing(numbers)
    return Exchange("counting", questions, (f"{text}.",), (rf"(?<![\d, ]){text}(?!,? ?\d)",))


def counting_exchanges() -> Iterator[Exchange]:
    """Counting up, down and by twos, and the numbers next to a number."""
    for low in range(0, 13):
        for high in range(low + 3, min(low + 12, 21)):
            yield _counted(
                (
                    f"Count from {low} to {high}.",
                    f"Can you count from {low} to {high}?",
                    f"Please count from {low} to {high}.",
                    f"Count up from {low} to {high}.",
                    f"Say the numbers from {low} to {high}.",
                    f"Start at {low} and count to {high}.",
                ),
                range(low, high + 1),
            )
            yield _counted(
                (
                    f"Count down from {high} to {low}.",
                    f"Count backwards from {high} to {low}.",
                    f"Can you count down from {high} to {low}?",
                    f"Start at {high} and count down to {low}.",
                ),
                range(high, low - 1, -1),
            )
    for high in range(3, 21):
        yield _counted(
            (
                f"Count to {high}.",
                f"Can you count to {high}?",
                f"Please count to {high}.",
                f"Count up to {high}.",
                f"Count for me to {high}.",
            ),
            range(1, high + 1),
        )
    for low in range(0, 11):
        for high in range(low + 4, min(low + 17, 31), 2):
            yield _counted(
                (
                    f"Count by twos from {low} to {high}.",
                    f"Count in twos from {low} to {high}.",
                    f"Can you count by twos from {low} to {high}?",
                    f"Start at {low} and count by twos to {high}.",
                ),
                range(low, high + 1, 2),
            )
    for number in range(1, 41):
        for name, other in (("after", number + 1), ("before", number - 1)):
            yield Exchange(
                "counting",
                (
                    f"What number comes {name} {number}?",
                    f"What comes {name} {number}?",
                    f"Which number is {name} {number}?",
                    f"Tell me the number {name} {number}.",
                ),
                (f"The number {name} {number} is {other}.",),
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


def _neighbours(kind: str, names: tuple[str, ...]) -> Iterator[Exchange]:
    for index, name in enumerate(names):
        for side, other in (
            ("after", names[(index + 1) % len(names)]),
            ("before", names[index - 1]),
        ):
            yield Exchange(
                "calendar",
                (
                    f"What {kind} comes {side} {name}?",
                    f"Which {kind} comes {side} {name}?",
                    f"What {kind} is {side} {name}?",
                    f"Which {kind} is it {side} {name}?",
                    f"Tell me the {kind} {side} {name}.",
                    f"What comes {side} {name}?",
                ),
                (f"The {kind} {side} {name} is {other}.",),
                (rf"is {other}\b",),
            )
    number = len(names)
    scope = "year" if kind == "month" else "week"
    yield Exchange(
        "calendar",
        (
            f"Say the {kind}s of the {scope}.",
            f"What are the {kind}s of the {scope}?",
            f"List the {kind}s of the {scope}.",
            f"Name all the {kind}s of the {scope}.",
            f"Can you name the {kind}s?",
        ),
        (", ".join(names) + ".",),
        (", ".join(names),),
    )
    yield Exchange(
        "calendar",
        (
            f"How many {kind}s are in a {scope}?",
            f"How many {kind}s does a {scope} have?",
            f"How many {kind}s are there in one {scope}?",
            f"Tell me how many {kind}s a {scope} has.",
        ),
        (f"A {scope} has {number} {kind}s.",),
        (word(str(number)),),
    )
    for index, name in enumerate(names):
        yield Exchange(
            "calendar",
            (
                f"What is the {ORDINALS[index]} {kind} of the {scope}?",
                f"Which {kind} is the {ORDINALS[index]} of the {scope}?",
                f"Name the {ORDINALS[index]} {kind} of the {scope}.",
            ),
            (f"The {ORDINALS[index]} {kind} of the {scope} is {name}.",),
            (word(name),),
        )


def calendar_exchanges() -> Iterator[Exchange]:
    """Days and months: order, number, neighbours."""
    yield from _neighbours("day", DAYS)
    yield from _neighbours("month", MONTHS)
