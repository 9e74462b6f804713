"""Votes and conversations as files to keep: JSON Lines, or a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from engine.contract.votes import Vote
from qft_gui.comparing.conversation import Conversation

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_VOTE_COLUMNS = (
    *("run", "time", "choice", "winner", "left", "right", "question"),
    *("left_reply", "right_reply", "system", "earlier_questions", "seed", "settings"),
)
_MEASURED = (
    *("num_tokens", "seconds", "first_token_s", "tokens_per_s", "stopped"),
    "dropped_turns",
)
_TURN_COLUMNS = (
    *("turn", "place", "model", "question", "reply", *_MEASURED),
    *("blind", "vote", "system", "seed", "settings"),
)


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """One object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    r"""A table that a spreadsheet opens without taking any text for a formula.

    >>> as_csv(["reply", "change"], [{"reply": "=1+1", "change": -0.5}])
    "\ufeffreply,change\r\n'=1+1,-0.5\r\n"
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return "\N{ZERO WIDTH NO-BREAK SPACE}" + text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        # What stands before the sign matters as little to a spreadsheet as it does to a person.
        return (
            f"'{value}"
            if value.lstrip(" \n").startswith(_FORMULA) or value[:1] in _FORMULA
            else value
        )
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value


def votes_file(votes: Iterable[tuple[str, Vote]], form: str) -> str:
    """All votes, as the run folders hold them, or one row each."""
    if form == "jsonl":
        return as_jsonl({"run": run, **vote.model_dump(mode="json")} for run, vote in votes)
    return as_csv(_VOTE_COLUMNS, (_vote_row(run, vote) for run, vote in votes))


def _vote_row(run: str, vote: Vote) -> dict[str, Any]:
    asked = [one.content for one in vote.messages if one.role == "user"]
    system = [one.content for one in vote.messages if one.role == "system"]
    return {
        "run": run,
        "time": datetime.fromtimestamp(vote.time, timezone.utc).isoformat(timespec="seconds"),
        "choice": vote.choice,
        "winner": vote.winner or "",
        "left": vote.left.model,
        "right": vote.right.model,
        "question": asked[-1] if asked else "",
        "left_reply": vote.left.reply,
        "right_reply": vote.right.reply,
        "system": "\n".join(system),
        "earlier_questions": asked[:-1],
        "seed": vote.seed,
        "settings": vote.settings,
    }


def conversation_file(conversation: Conversation, form: str) -> str:
    """A line or a row for each reply. Who said what in an open vote stays hidden."""
    rows = list(_reply_rows(conversation))
    return as_jsonl(rows) if form == "jsonl" else as_csv(_TURN_COLUMNS, rows)


def _reply_rows(conversation: Conversation) -> Iterable[dict[str, Any]]:
    for turn in list(conversation.turns):
        for place, side in enumerate(turn.order):
            reply = turn.replies.get(side)
            if reply is None:
                continue
            asked = turn.asked.get(side, turn.settings)
            # Of an open vote a speed would tell who it was, and so would how it ended.
            measured = {
                name: None if turn.is_hidden else getattr(reply, name) for name in _MEASURED
            }
            yield {
                "turn": turn.number,
                "place": "AB"[place],
                "model": None if turn.is_hidden else turn.names[side],
                "question": turn.question,
                "reply": reply.text if turn.shows_text else None,
                **measured,
                "blind": turn.is_blind,
                "vote": turn.vote,
                "system": asked.system,
                "seed": asked.seed,
                "settings": asked.as_json(),
            }
