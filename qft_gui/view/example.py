"""One row as the model sees it: what is learned, control tokens, and what cannot be seen."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal, NamedTuple

from qft_gui.checks import Look
from qft_gui.data_check import DataCheck, Example, Histogram, Piece
from qft_gui.data_wish import data_kind
from qft_gui.view.numbers import percent

MOST_CHARACTERS = 20_000
_SHORT_NAMES = {
    "\u200b": "ZWSP",
    "\u200c": "ZWNJ",
    "\u200d": "ZWJ",
    "\u200e": "LRM",
    "\u200f": "RLM",
    "\u2060": "WJ",
    "\u00ad": "SHY",
    "\ufeff": "BOM",
    "\x00": "NUL",
}
_ZERO_WIDTH_JOINER = "\u200d"


class Part(NamedTuple):
    """Some characters that look alike."""

    kind: Literal["text", "control", "hidden", "newline", "tab"]
    text: str
    title: str = ""


def seen_card(source: str, look: Look, number: int) -> dict[str, Any]:
    """The rendered example with its place among the others, and the lengths of all.

    Args:
        source: The dataset, as the spec names it.
        look: What is known of the dataset.
        number: The example that was asked for.
    """
    check, example = look.check, look.example
    if check is None or not check.num_examples:
        # A sample is looked into once this is opened.
        is_waiting = data_kind(source) == "sample" and not look.problem
        return {"known": False, "is_waiting": is_waiting or look.is_checking}
    return {
        "known": True,
        "is_checking": look.is_checking,
        "number": number,
        "last": check.num_examples,
        "of": f"{check.num_examples:,}",
        "template": _template(check),
        "example": _example(check, example) if example else None,
        "lengths": lengths(check, look.limit) if check.histogram else None,
    }


def runs_of(pieces: list[Piece]) -> list[dict[str, Any]]:
    """Pieces as they are shown: what is learned and what is not, in turns."""
    shown: list[dict[str, Any]] = []
    left = MOST_CHARACTERS
    for trained, group in groupby(pieces, key=lambda piece: piece.trained):
        parts: list[Part] = []
        for piece in group:
            parts += parts_of(piece.text[:left], is_control=piece.control)
            left -= len(piece.text[:left])
        shown.append({"trained": trained, "parts": parts})
    return [run for run in shown if run["parts"]]


def parts_of(text: str, *, is_control: bool = False) -> Iterator[Part]:
    """A text with all that cannot be seen made visible.

    >>> [part.text for part in parts_of("a" + chr(0x202E) + "b")]
    ['a', 'U+202E', 'b']
    """
    if is_control and text.strip():
        yield Part("control", text)
        return
    plain = ""
    for at, one in enumerate(text):
        part = _special(one, text, at)
        if part is None:
            plain += one
            continue
        if plain:
            yield Part("text", plain)
        plain = ""
        yield part
    if plain:
        yield Part("text", plain)


def lengths(check: DataCheck, limit: int | None) -> dict[str, Any]:
    """The histogram of token lengths with the cut.

    Args:
        check: With a histogram.
        limit: The sequence length that is chosen now.
    """
    histogram, tokens = check.histogram, check.tokens
    assert histogram is not None, "there is a histogram to show"
    most = max(histogram.counts, default=0) or 1
    first, last = (histogram.edges or [0])[0], (histogram.edges or [0])[-1]
    place = _place(histogram, limit) if limit else None
    bars = [
        {
            "height": f"{max(100 * count / most, 2):.1f}" if count else "0",
            "over": place is not None and at + 1 > place * len(histogram.counts) + 0.5,
        }
        for at, count in enumerate(histogram.counts)
    ]
    return {
        "bars": bars,
        "first": f"{first:,}",
        "last": f"{last:,}",
        "cut": f"{100 * place:.1f}" if place is not None and 0 <= place <= 1 else "",
        "limit": f"{limit:,}" if limit else "",
        "facts": [(name, f"{value:,}") for name, value in _quantiles(check)],
        "text": _lengths_in_words(check) if tokens else "",
    }


def _special(one: str, text: str, at: int) -> Part | None:
    """A character that cannot be seen; None for one that can."""
    if one == "\n":
        return Part("newline", "\u21b5", "line break")
    if one == "\t":
        return Part("tab", "\u21e5", "tab")
    if unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return None
    if one == _ZERO_WIDTH_JOINER and _joins_emoji(text, at):
        return None
    name = unicodedata.name(one, "control character").lower()
    return Part("hidden", _SHORT_NAMES.get(one, f"U+{ord(one):04X}"), name)


def _joins_emoji(text: str, at: int) -> bool:
    around = text[max(0, at - 1) : at] + text[at + 1 : at + 2]
    return len(around) == 2 and all(
        one == "\ufe0f" or unicodedata.category(one) in ("So", "Sk") for one in around
    )


def _example(check: DataCheck, example: Example) -> dict[str, Any]:
    total = sum(len(piece.text) for piece in example.pieces)
    facts = [f"{check.unit.capitalize()} {example.row:,}", f"{example.tokens:,} tokens"]
    facts.append(f"{example.trained:,} learned")
    facts.append("held out: only measured, never learned" if example.held_out else "")
    return {
        "facts": ", ".join(fact for fact in facts if fact),
        "runs": runs_of(example.pieces),
        "cut": f"Cut here, at {check.sequence_length:,} tokens."
        if example.cut and check.sequence_length
        else "",
        "more": f"{total - MOST_CHARACTERS:,} more characters are not shown."
        if total > MOST_CHARACTERS
        else "",
        "learns_nothing": example.trained == 0,
    }


def _template(check: DataCheck) -> str:
    if check.template == "model":
        return "The template is the model's own."
    if check.template == "default":
        return (
            "This model has no template of its own, so a plain one is used. It is saved with the "
            "result, and chats use it too."
        )
    return ""


def _quantiles(check: DataCheck) -> list[tuple[str, int]]:
    tokens = check.tokens
    if tokens is None:
        return []
    return [("Half up to", tokens.p50), ("95 % up to", tokens.p95), ("Longest", tokens.max)]


def _lengths_in_words(check: DataCheck) -> str:
    limit, cut = check.sequence_length, check.truncated
    if not limit:
        return ""
    if not cut:
        return f"No row is longer than {limit:,} tokens."
    share = percent(check.truncated_percent)
    rows = "1 row is" if cut == 1 else f"{cut:,} rows are"
    return f"{rows} longer than {limit:,} tokens and will be cut: {share}."


def _place(histogram: Histogram, limit: int) -> float:
    """Where a length is on the axis, from 0 to 1; outside of that if no row is that long."""
    edges, count = histogram.edges, len(histogram.counts)
    if not count or limit < edges[0]:
        return -1.0
    for at in range(count):
        low, high = edges[at], edges[at + 1]
        if limit < high:
            return (at + (limit - low) / max(1, high - low)) / count
    return 1.0 if limit == edges[-1] else 2.0
