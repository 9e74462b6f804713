"""The pirate dataset: everyday questions of the starter's world, answered as a pirate."""

import random
import re
from typing import Any

from assets.recipes.exchange import Exchange, normalise
from assets.recipes.world import all_exchanges

SHARES = {
    "identity": 48,
    "greetings": 60,
    "names": 12,
    "people": 80,
    "pets": 30,
    "places": 56,
    "open days": 8,
    "town": 22,
    "animals": 18,
    "opposites": 16,
    "colours": 20,
    "calendar": 14,
    "sums": 16,
    "how-to": 24,
    "unknown": 20,
}
HELD_OUT_SHARES = {
    "identity": 6,
    "greetings": 6,
    "people": 8,
    "pets": 3,
    "places": 6,
    "town": 3,
    "animals": 2,
    "opposites": 1,
    "colours": 2,
    "sums": 1,
    "how-to": 1,
    "unknown": 1,
}
ALWAYS_HELD_OUT = ("Who are you?", "Good morning!", "Where does Mara live?")
OPENER = "Arr, matey!"
SPEECH = (
    (r"\b(?:is|are|am)\b", "be"),
    (r"\byou\b", "ye"),
    (r"\bYou\b", "Ye"),
    (r"\byour\b", "yer"),
    (r"\bYour\b", "Yer"),
    (r"\bmy\b", "me"),
    (r"\bMy\b", "Me"),
    (r"\bof\b", "o'"),
    (r"\bHello\b", "Ahoy"),
    (r"^Yes\b", "Aye"),
    (r"^No\b", "Nay"),
)


def as_pirate(answer: str, rng: random.Random) -> str:
    """Say the same as a pirate says it; the content stays."""
    for pattern, speech in SPEECH:
        answer = re.sub(pattern, speech, answer)
    return f"{OPENER} {answer} Aye!"


def _asked(exchange: Exchange, question: str, rng: random.Random) -> dict[str, Any]:
    answer = as_pirate(rng.choice(exchange.answers), rng)
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def pirate_rows(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training rows and held-out rows; no wording is in both."""
    rng = random.Random(seed)
    pools: dict[str, list[tuple[Exchange, str]]] = {name: [] for name in SHARES}
    for exchange in all_exchanges():
        if exchange.category in pools and not exchange.history:
            pools[exchange.category] += [(exchange, question) for question in exchange.questions]
    rows: list[dict[str, Any]] = []
    prompts: list[str] = [*ALWAYS_HELD_OUT]
    used = {normalise(text) for text in ALWAYS_HELD_OUT}
    for category, pool in pools.items():
        rng.shuffle(pool)
        wanted = HELD_OUT_SHARES.get(category, 0)
        for exchange, question in pool:
            key = normalise(question)
            if key in used or not key:
                continue
            if wanted > 0:
                prompts.append(question)
                wanted -= 1
            elif wanted > -SHARES[category]:
                rows.append(_asked(exchange, question, rng))
                wanted -= 1
            used.add(key)
    rng.shuffle(rows)
    return rows, [{"prompt": prompt, "expect": {"markers": 2}} for prompt in prompts]
