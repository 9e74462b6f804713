"""Frames of a conversation: what stands at each reply, and what was found of who answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qft_gui.answers import Proof, Reply, Side
from qft_gui.comparing.turn import Turn
from qft_gui.view.numbers import duration, rate, wait
from qft_gui.view.status import Mark

PLACES = ("A", "B")
FOUR_BIT = "4-bit"
_PLANS = {
    "shared": "One set of weights is in memory; the adapter is switched for each answer.",
    "resident": "Both models are in memory.",
    "swapped": "Both do not fit into memory together: each is loaded when it is asked.",
    "alone": "One model is in memory.",
}


def turn_frame(
    turn: Turn, proof: Proof | None, held: tuple[int, ...] | None = None
) -> dict[str, Any]:
    """A question and its replies, for the page.

    Args:
        turn: What was asked.
        proof: What is known of the sides.
        held: Characters that the page has of each reply in this generation; None for nothing.
    """
    known = held if held is not None and len(held) == len(turn.order) else (0,) * len(turn.order)
    cells = [_cell(turn, place, proof, known[place]) for place in range(len(turn.order))]
    return {
        "number": turn.number,
        "generation": turn.generation,
        # A page that holds the turn has its question, which may be long.
        "question": turn.question if held is None else "",
        "answering": turn.is_answering,
        "awaits_vote": turn.awaits_vote,
        "can_be_revealed": turn.can_be_revealed,
        "vote": turn.vote,
        "notes": " ".join(
            line for line in (turn.ended, _unvoted(turn), dropped_line(turn)) if line
        ),
        "cells": cells,
    }


def _cell(turn: Turn, place: int, proof: Proof | None, known: int) -> dict[str, Any]:
    side = turn.order[place]
    text = turn.replies.get(side, Reply()).text if turn.shows_text else ""
    begin = known if known <= len(text) else 0
    if turn.is_hidden:
        name, line = PLACES[place], _hidden_line(turn)
    else:
        name, line = side_name(turn.names[side], side, proof), reply_line(turn, side)
    # Which side it is would tell who it is.
    return {
        "side": None if turn.is_hidden else side,
        "name": name,
        "from": begin,
        "text": text[begin:],
        "line": line,
    }


def _unvoted(turn: Turn) -> str:
    return "You did not vote." if turn.is_blind and turn.is_revealed else ""


def side_name(name: str, side: Side, proof: Proof | None) -> str:
    """A model's name, with the form of its weights where that is not its own."""
    if proof is not None and proof.forms.get(side) == FOUR_BIT:
        adapted = "adapter on a 4-bit base" if side in proof.adapters else "4-bit base"
        return f"{name} ({adapted})"
    return name


def _hidden_line(turn: Turn) -> str:
    if turn.is_answering:
        return "Both appear when both are done."
    return "" if turn.is_whole else "It ended before both were done."


def reply_line(turn: Turn, side: Side) -> str:
    """Speed and length of a reply, or what it does now."""
    reply = turn.replies.get(side, Reply())
    if not reply.is_done:
        if turn.is_answering:
            return "Answering…" if reply.text else "Thinking…"
        return "Not finished" if reply.text else "No answer"
    parts: list[str] = []
    speed = reply.tokens_per_s
    if speed is None and reply.seconds and reply.num_tokens:
        speed = reply.num_tokens / reply.seconds
    if speed is not None:
        parts.append(f"{rate(speed)} tokens/s")
    if reply.first_token_s is not None:
        parts.append(f"first word after {wait(reply.first_token_s)}")
    if reply.num_tokens is not None:
        parts.append(f"{reply.num_tokens:,} token{'' if reply.num_tokens == 1 else 's'}")
    endings = {"stop": "stopped", "length": "cut at the longest answer"}
    if reply.stopped in endings:
        parts.append(endings[reply.stopped])
    asked = turn.asked.get(side)
    if turn.rewrites and asked is not None and asked.temperature > 0:
        parts.append(f"seed {asked.seed}")
    return " · ".join(parts) or "Done"


def dropped_line(turn: Turn) -> str:
    """That the model did not read all that was said, if so."""
    dropped = max((reply.dropped_turns for reply in turn.replies.values()), default=0)
    if not dropped or turn.is_hidden:
        return ""
    what = "message was" if dropped == 1 else "messages were"
    return f"The conversation is longer than the model reads: the {dropped} oldest {what} left out."


_SAME_MARKS = {
    "unclear": Mark("fail", "warn", "Not told apart: they differ by no more than rounding does"),
    "unchanged": Mark("tight", "warn", "Both sides answer alike, and on record they are the same"),
}


def proof_mark(proof: Proof) -> Mark:
    """The tick that the sides earned, or what is missing for one."""
    if len(proof.forms) < 2 and proof.forms:
        if proof.same_as_recorded:
            return Mark("ok", "good", "Checked: it is the model that was recorded")
        return Mark("tight", "", "No record to compare it with")
    if not proof.different:
        return _SAME_MARKS.get(proof.verdict, Mark("fail", "warn", "Both sides answer alike"))
    far = proof.largest_difference
    by = "their words differ" if far is None else f"they differ by {_at_most(far)} nats"
    if len(proof.recorded) == 2:
        return Mark("ok", "good", f"Checked: two different models, both as on record; {by}")
    if not proof.recorded:
        return Mark("tight", "", f"Two different models, of which there is no record; {by}")
    left_is_known = proof.recorded == ("a",)
    known, unknown = ("left", "right") if left_is_known else ("right", "left")
    said = f"the {known} one is as on record, of the {unknown} one there is no record"
    return Mark("tight", "", f"Two different models: {said}; {by}")


def _at_most(nats: float) -> str:
    return f"up to {nats:.2f}" if nats >= 0.005 else "less than 0.01"


def memory_lines(proof: Proof, names: Mapping[Side, str]) -> list[str]:
    """What sits in memory how, once it does."""
    lines = [_PLANS[proof.plan]] if proof.plan in _PLANS else []
    waits = [
        f"{names[side]} takes about {duration(seconds)}"
        for side, seconds in proof.waits_s.items()
        if seconds is not None and side in names
    ]
    if proof.plan == "swapped" and waits:
        lines.append(f"{', '.join(waits)} to load.")
    lines += proof.notes
    if proof.base_difference is not None and FOUR_BIT in proof.forms.values():
        lines.append(
            f"In 4 bits the original's scores differ from its files by "
            f"{_at_most(proof.base_difference)} nats on the fixed text."
        )
    return lines


def loading_line(seconds: int, expected_s: float | None) -> str:
    """What is said while weights come into memory: those of two models, or one set for both."""
    is_ahead = expected_s is not None and expected_s >= max(2, seconds + 1)
    expected = f"; about {duration(expected_s)} expected" if is_ahead else ""
    return f"Loading weights into memory, {seconds} s so far{expected}."


def fetching_line(name: str, expected_s: float | None) -> str:
    """What is said while one of two that take turns comes into memory."""
    expected = f"; about {duration(expected_s)} expected" if expected_s else ""
    return f"Loading {name} into memory{expected}."
