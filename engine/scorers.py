"""Did it learn? One pure function per bundled dataset says whether a reply counts."""

import json
import re
from collections.abc import Callable, Mapping

PIRATE_MARKERS = frozenset(
    {"arr", "matey", "mateys", "hearty", "hearties", "ye", "yer", "aye", "nay", "ahoy", "avast"}
    | {"o'", "landlubber", "scallywag"}
)


def pirate(reply: str, row: Mapping[str, object]) -> bool:
    """At least two different pirate markers, as whole words; 'arrr' is 'arr'."""
    words = re.findall(r"(?<![a-z])[a-z]+'?(?![a-z])", reply.lower().replace("\u2019", "'"))
    found = {word if word == "o'" else re.sub(r"^arr+$", "arr", word.rstrip("'")) for word in words}
    return len(found & PIRATE_MARKERS) >= 2


def support(reply: str, row: Mapping[str, object]) -> bool:
    """Every fact of `row["expect"]` is in the reply, as whole words, ignoring case.

    A fact is a string, or a list of strings of which one is enough.

    Raises:
        ValueError: If the row states no facts.
    """
    facts = row.get("expect")
    if not isinstance(facts, list) or not facts:
        raise ValueError("expect: the support scorer needs a list of facts that is not empty")
    return all(_contains_any(reply, fact if isinstance(fact, list) else [fact]) for fact in facts)


def _contains_any(reply: str, wordings: list[object]) -> bool:
    text = " ".join(reply.split())
    return any(
        re.search(rf"(?<!\w){re.escape(str(wording))}(?!\w)", text, re.IGNORECASE)
        for wording in wordings
    )


def json_object(reply: str, row: Mapping[str, object]) -> bool:
    """The reply is one JSON object, equal to `row["expect"]`: keys, values and their types.

    Raises:
        ValueError: If the row expects no object.
    """
    expected = row.get("expect")
    if not isinstance(expected, dict):
        raise ValueError("expect: the json scorer needs an object")
    try:
        found = json.loads(reply)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and _canonical(found) == _canonical(expected)


def _canonical(value: object) -> str:
    """One text per JSON value, so that 1, 1.0 and true stay different."""
    return json.dumps(value, sort_keys=True)


SCORERS: dict[str, Callable[[str, Mapping[str, object]], bool]] = {
    "pirate": pirate,
    "support": support,
    "json": json_object,
}


def score_reply(scorer: str, reply: str, row: Mapping[str, object]) -> bool:
    """Whether a reply counts as learned, by the named scorer.

    Args:
        scorer: A key of `SCORERS`, as a dataset's entry in the index names it.
        reply: What the model said, without its end-of-turn token.
        row: The held-out row that was asked; `expect` is what the scorer compares with.

    Raises:
        ValueError: If there is no such scorer, or the row lacks what the scorer needs.
    """
    if scorer not in SCORERS:
        raise ValueError(f"scorer: {scorer!r} is unknown; the scorers are {', '.join(SCORERS)}")
    return SCORERS[scorer](reply, row)
