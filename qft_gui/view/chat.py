"""Frames of the Compare page."""

from __future__ import annotations

from typing import Any

from qft_gui.chat_room import Answer, Proof, Reply, Side
from qft_gui.view.numbers import rate, wait
from qft_gui.view.status import Mark

SIDE_NAMES: dict[Side, str] = {"base": "Original", "tuned": "Tuned"}


def side_head(side: Side, answer: Answer | None) -> dict[str, Any]:
    """Name, earned tick, speed."""
    reply = answer.replies.get(side) if answer else None
    return {
        "name": SIDE_NAMES[side],
        "proof": _proof_mark(answer.proof) if answer and answer.proof else None,
        "line": "Loading…" if answer and answer.loading_s is not None else _speed(reply),
    }


def _proof_mark(proof: Proof) -> Mark:
    if proof.different:
        return Mark("ok", "good", "Checked: two different models")
    return Mark("fail", "warn", "Both sides answer alike")


def _speed(reply: Reply | None) -> str:
    if reply is None:
        return "Not asked yet"
    if not reply.is_done:
        return "Answering…" if reply.text else "Thinking…"
    if not reply.seconds or reply.num_tokens is None:
        return "Done"
    speed = f"{rate(reply.num_tokens / reply.seconds)} tokens/s"
    if reply.first_token_s is None:
        return speed
    return f"{speed} · first word after {wait(reply.first_token_s)}"


def loading_line(seconds: int) -> str:
    """What is said while the models come into memory."""
    return f"Loading both models into memory, {seconds} s so far."
