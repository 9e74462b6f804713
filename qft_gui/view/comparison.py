"""Frames of the Compare page's cards: votes, lists of prompts, numbers, exports."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

from engine.contract.preferences import WinRate
from engine.contract.strengths import Strengths
from qft_gui.comparing.errands import Errand
from qft_gui.comparing.prompt_list import PromptList
from qft_gui.comparing.standing import Standing
from qft_gui.view.chat import turn_frame
from qft_gui.view.numbers import MINUS, MISSING, duration, file_size
from qft_gui.view.sentences import sentence


def standing_frame(standing: Standing) -> dict[str, Any]:
    """The votes so far: a sentence, an interval, and a table from three models on."""
    pair = standing.pair
    notes: list[str] = []
    if standing.changed:
        who = ", ".join(standing.changed)
        notes.append(f"Under one name different weights were voted on: {who}.")
    if standing.bad_lines:
        lines = "line is" if standing.bad_lines == 1 else "lines are"
        notes.append(f"{standing.bad_lines} {lines} no vote and passed over.")
    return {
        "sentence": _standing_sentence(standing),
        "interval": _interval(pair) if pair else None,
        "table": _table(standing.all) if standing.all else [],
        "table_notes": list(standing.all.notes) if standing.all else [],
        "notes": notes,
        "votes": standing.num_votes,
    }


def _standing_sentence(standing: Standing) -> str:
    pair, votes = standing.pair, standing.num_votes
    if not votes:
        return "No votes yet."
    cast = "1 vote was" if votes == 1 else f"{votes:,} votes were"
    if pair is None:
        return f"{cast} cast on models that began like this one. Choose two to compare them."
    if not pair.decisive + pair.ties + pair.both_bad:
        return f"No votes between these two yet; {cast} cast on others that began like them."
    return pair.sentence


def _interval(pair: WinRate) -> dict[str, Any] | None:
    interval, rate = pair.interval, pair.rate
    if interval is None or rate is None:
        return None
    low, high = 100 * interval.low, 100 * interval.high
    words = f"{low:.1f} to {high:.1f} % with 95 % confidence, half is 50 %"
    return {"low": low, "high": high, "at": 100 * rate, "words": words, "model": pair.model}


def _table(found: Strengths) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for one in found.models:
        share = one.as_json()
        rows.append(
            {
                "model": one.model,
                "share": f"{100 * share['share']:.0f} %",
                "interval": f"{100 * share['share_low']:.0f} to {100 * share['share_high']:.0f} %",
                "votes": f"{one.wins:g} of {one.votes}",
            }
        )
    return rows


def list_frame(
    found: PromptList | None, problem: str, *, is_at_work: bool
) -> dict[str, Any] | None:
    """A list of prompts: how far it is, and the prompt that is voted on now."""
    if found is None:
        return None
    total, answered, voted = len(found.prompts), found.num_answered, len(found.votes)
    number = found.next_to_vote()
    if is_at_work:
        state = f"{answered} of {total} prompts answered by both sides."
    elif not found.is_answered_whole:
        state = f"{answered} of {total} prompts were answered before it ended."
    elif voted < total:
        state = f"All {total} prompts are answered."
    else:
        state = f"All {total} prompts are answered and voted on. {_tally(found)}"
    if 0 < voted < total:
        state += f" {voted} voted on."
    return {
        "id": found.id,
        "state": state + _repeated(found.num_repeated),
        "share": 100 * answered / total,
        "at_work": is_at_work,
        "can_go_on": not is_at_work and not found.is_answered_whole,
        "names": f"{found.names['a']} and {found.names['b']}",
        "problem": problem,
        "number": number,
        "title": f"Prompt {number + 1} of {total}" if number is not None else "",
        "turn": turn_frame(found.turn(number), None) if number is not None else None,
    }


def _tally(found: PromptList) -> str:
    """How the votes of one list fell."""
    choices = list(found.votes.values())
    won = Counter(
        found.turn(number).order[choice == "right"]
        for number, choice in found.votes.items()
        if choice in ("left", "right")
    )
    wins = ", ".join(f"{won[side]} for {found.names[side]}" for side in ("b", "a"))
    ties = choices.count("tie")
    return (
        f"Of this list {wins}, {ties} tie{'' if ties == 1 else 's'}, "
        f"{choices.count('both_bad')} with both bad."
    )


def _repeated(number: int) -> str:
    if not number:
        return ""
    return f" {number} repeated prompt{' was' if number == 1 else 's were'} left out."


def errand_frame(errand: Errand | None, words: str) -> dict[str, Any]:
    """What a command in the background does, or why it came to nothing."""
    if errand is None:
        return {"state": "none", "text": ""}
    if errand.error is not None:
        return {"state": "failed", "text": sentence(errand.error)}
    if errand.answer is None:
        return {"state": "at work", "text": f"{words} {duration(errand.seconds)} so far."}
    return {"state": "done", "text": ""}


def judgement_frame(errand: Errand | None) -> dict[str, Any]:
    """Loss, perplexity and hits, before and after."""
    frame = errand_frame(errand, "Measuring both models on the same examples,")
    if errand is None or errand.answer is None:
        return {**frame, "rows": [], "about": "", "verdict": ""}
    found = errand.answer
    data, difference = found["data"], found["difference"]
    part = "held-out part of " if data.get("part") == "held out" else ""
    about = (
        f"On the {part}{data['source']}: {data['num_examples']:,} examples, "
        f"{found['num_target_tokens']:,} tokens predicted."
    )
    return {**frame, "rows": _judged_rows(found), "about": about, "verdict": _verdict(difference)}


def _judged_rows(found: dict[str, Any]) -> list[list[str]]:
    base, tuned, difference = (_part(found, name) for name in ("base", "tuned", "difference"))
    moved = _moved(difference.get("mean_nats"), difference, 4, "")
    rows = [
        [
            "Loss, nats per token",
            _number(base.get("loss_nats"), 4),
            _number(tuned.get("loss_nats"), 4),
            moved,
        ],
        ["Perplexity", _number(base.get("perplexity"), 2), _number(tuned.get("perplexity"), 2), ""],
    ]
    hits = found.get("scorer")
    if hits:
        total = hits["num_prompts"]
        rows.append(
            [
                f"Hits of {total} prompts ({hits['name']})",
                _count(hits["hits_before"]),
                _count(hits["hits_after"]),
                _moved(hits["difference"], hits, 1, " points"),
            ]
        )
    return rows


def _part(found: dict[str, Any], name: str) -> dict[str, Any]:
    return found[name] or {}


def _moved(value: float | None, bounds: dict[str, Any], digits: int, unit: str) -> str:
    if value is None:
        return ""
    text = f"{_signed(value, digits)}{unit}"
    if bounds.get("low") is None:
        return text
    return f"{text} ({_signed(bounds['low'], digits)} to {_signed(bounds['high'], digits)})"


def _verdict(difference: dict[str, Any] | None) -> str:
    if not difference or difference.get("low") is None:
        return ""
    if difference["high"] < 0:
        return "The loss is clearly lower than before."
    if difference["low"] > 0:
        return "The loss is clearly higher than before."
    return "No clear difference: zero lies in the interval."


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS)


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:,.{digits}f}"


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value}"


def export_frame(
    errand: Errand | None, usual: dict[str, str], *, may_type: bool = True
) -> dict[str, Any]:
    """Where an export went, or how far it is.

    Args:
        errand: The export.
        usual: Where each form that there is goes by itself.
        may_type: Whether another folder may be typed.
    """
    where = f" into {errand.out}" if errand is not None and errand.out is not None else ""
    frame: dict[str, Any] = errand_frame(errand, f"Writing the export{where},")
    frame |= {"usual": usual, "may_type": may_type, "path": "", "notes": []}
    if errand is None or errand.answer is None:
        return {**frame, "ollama": ""}
    found = errand.answer
    path, notes = str(found["out"]), [str(note) for note in found.get("notes", [])]
    is_ollama = any(name == "Modelfile" for name in found.get("files", {}))
    ollama = ""
    if is_ollama:
        file = f"{path.rstrip('/')}/Modelfile"
        name = errand.subject.replace("@", "-step-").lower()
        ollama = shlex.join(["ollama", "create", name, "-f", file])
    size = file_size(found.get("total_bytes"))
    text = f"Written: {len(found.get('files', {}))} files, {size}."
    return {**frame, "text": text, "path": path, "notes": notes, "ollama": ollama}
