"""The data card: what a dataset was taken for, which of its rows count, and what to do about it."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, get_args

from engine.contract.bundled import sample_datasets
from engine.contract.spec import DataFormat
from qft_gui.checks import Look
from qft_gui.data_check import DataCheck
from qft_gui.data_wish import Reading, data_kind
from qft_gui.view.numbers import percent
from qft_gui.view.sentences import sentence

FORMAT_NAMES: dict[str, str] = {
    "messages": "Chats",
    "instruction": "Instruction and reply",
    "completion": "Prompt and completion",
    "qa": "Question and answer",
    "preference": "Preference pairs, the chosen replies",
    "text": "Plain text",
}
ROLE_NAMES: dict[str, str] = {
    "messages": "Messages",
    "system": "System",
    "history": "Earlier turns",
    "prompt": "Prompt",
    "input": "Input",
    "reply": "Reply",
    "text": "Text",
}
# The roles that the columns of a format can have; those of an unknown one are all that matter.
_ROLES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "system"),
    "instruction": ("prompt", "input", "reply", "system", "history"),
    "completion": ("prompt", "reply", "system"),
    "qa": ("prompt", "reply", "system"),
    "preference": (),
    "text": ("text",),
}
_EVERY_ROLE = ("prompt", "input", "reply", "system", "messages", "text")
_MOST_REASONS = 12
# Mistakes that are mended where the reading is set by hand.
_READING = ("data.format", "data.columns", "data.config", "data.split")
# So many of them the engine tells in a sentence of its own.
_TOLD_REASONS = 3
# A reply that begins too late is most often within so many times the length.
_MORE_TOKENS = 4


def data_card(source: str, reading: Reading, look: Look, notice: str = "") -> dict[str, Any]:
    """Everything of the data card below its inputs.

    Args:
        source: The dataset, as the spec names it.
        reading: How a person wants it to be read.
        look: What is known of it.
        notice: What the page has to say of a file that it did not take.
    """
    kind = data_kind(source) if source else "missing"
    check, reading = look.check, reading.of(source)
    sample = sample_datasets().get(source)
    return {
        "about": sample.description if sample else "",
        "notice": notice,
        "state": _state(look, source),
        "asks_for": "hub" if kind == "hub" and not (look.is_checking or look.check) else "",
        "taken_for": taken_for(check) if check else "",
        "facts": _facts(look) if check and check.rows else _sample_facts(source),
        "is_stale": check is not None and not look.is_current,
        "warnings": check.warnings if check else [],
        "is_stand_in": look.is_stand_in,
        "mistake": _mistake(look),
        "mapping": mapping(reading, check, is_hub=kind == "hub") if kind != "sample" else None,
        "refused": refused(check) if check and check.refused_count else None,
    }


def taken_for(check: DataCheck) -> str:
    """Container, encoding and format in one line.

    >>> taken_for(DataCheck(container="CSV", encoding="Windows-1252", format="qa"))
    'CSV, Windows-1252: question and answer'
    """
    file = ", ".join(part for part in (check.container, check.encoding) if part)
    name = FORMAT_NAMES.get(_format_of(check) or "", "")
    return ": ".join(part for part in (file, name[:1].lower() + name[1:]) if part)


def mapping(reading: Reading, check: DataCheck | None, *, is_hub: bool) -> dict[str, Any] | None:
    """How a file is read, as selects with what was found filled in; None if there is no choice.

    Args:
        reading: What a person said.
        check: What the engine found.
        is_hub: Whether there are configs and splits to name.
    """
    if check is None and not is_hub and not (reading.format or reading.columns):
        return None
    by_hand = dict(reading.columns)
    found = check.columns if check else {}
    names = list(check.available_columns) if check else []
    names += [name for name in by_hand.values() if name not in names]
    kind = reading.format or (_format_of(check) if check else None)
    roles = _ROLES.get(kind or "", _EVERY_ROLE)
    roles += tuple(role for role in (*found, *by_hand) if role not in roles)
    field = check.error.field if check and check.error else ""
    fields = [
        _select(role, ROLE_NAMES[role], names, by_hand.get(role, ""), found.get(role))
        for role in dict.fromkeys(roles)
        if role in ROLE_NAMES
    ]
    return {
        "format": _format_select(reading.format, check),
        "columns": fields if names else [],
        "in_use": _in_use(found),
        "is_by_hand": bool(reading.format or by_hand),
        "is_open": field.startswith(_READING) or (field == "data.source" and names),
        "places": _places(reading) if is_hub else [],
    }


def _in_use(found: dict[str, str]) -> str:
    """Which column is what, where its name does not say it."""
    named = [(role, name) for role, name in found.items() if role != name.lower()]
    return ", ".join(f"{name} is the {ROLE_NAMES.get(role, role).lower()}" for role, name in named)


def refused(check: DataCheck) -> dict[str, Any]:
    """The rows that cannot be learned from, the first of them one by one."""
    shown = len(check.refused)
    more = f" The first {shown} are below." if shown < check.refused_count else ""
    return {
        "title": f"{counted(check.refused_count, 'row')} left out",
        "unit": check.unit.capitalize(),
        "total": f"{check.refused_count:,} of {check.rows:,} rows cannot be learned from.{more}",
        "reasons": [
            {
                "text": reason.reason,
                "count": f"{reason.count:,}",
                "first": f"{check.unit} {reason.first:,}",
            }
            for reason in check.reasons[:_MOST_REASONS]
        ]
        if len(check.reasons) > _TOLD_REASONS
        else [],
        "rows": [
            {"number": f"{row.row:,}", "reason": row.reason, "snippet": row.snippet}
            for row in check.refused
        ],
    }


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: int) -> str:
    """The size of a file.

    >>> size(300), size(14_200_000), size(1_000_000_000)
    ('0.3 kB', '14 MB', '1,000 MB')
    """
    if number < 1_000_000:
        return f"{number / 1000:.1f} kB" if number < 10_000 else f"{number / 1000:.0f} kB"
    return f"{number / 1e6:.1f} MB" if number < 10_000_000 else f"{number / 1e6:,.0f} MB"


def _state(look: Look, source: str) -> dict[str, Any]:
    """What goes on: a word, and the one thing that can be done about it."""
    kind, text = "", ""
    if look.is_checking:
        what = counted(look.rows, "row") if look.rows else PurePath(source).name
        kind, text = "checking", f"Checking {what}…"
    elif look.is_cancelled:
        kind, text = "cancelled", "Not checked: the check was ended."
    elif look.problem:
        kind, text = "problem", f"Not checked. {look.problem}"
    return {"kind": kind, "text": text, "can_cancel": look.is_checking and look.seconds >= 1}


def _facts(look: Look) -> list[tuple[str, str]]:
    check = look.check
    assert check is not None, "there are facts of what was checked"
    used = ("Rows", check.rows) if check.error else ("Rows used", check.usable)
    facts = [(used[0], f"{used[1]:,}")]
    if check.refused_count:
        facts.append(("Left out", f"{check.refused_count:,}"))
    if check.error:
        return facts
    if check.duplicates:
        facts.append(("Duplicates", f"{check.duplicates:,}"))
    if check.usable:
        facts.append(("Held out", f"{check.held_out_rows:,}"))
        facts.append(("Learned an epoch", f"{counted(check.epoch_trained_tokens, 'token')}"))
        if check.truncated:
            facts.append((f"Cut at {check.sequence_length:,}", percent(check.truncated_percent)))
    return facts


def _sample_facts(source: str) -> list[tuple[str, str]]:
    sample = sample_datasets().get(source)
    if sample is None:
        return []
    return [("Rows", f"{sample.rows:,}"), ("Held-out prompts", f"{sample.heldout_rows:,}")]


def _mistake(look: Look) -> dict[str, Any] | None:
    """Why nothing can be learned, and the button that mends it."""
    check = look.check
    if check is None or check.error is None or not look.is_current:
        return None
    return {"text": sentence(check.error.as_error()), "fix": _fix(check.error.field, look.limit)}


def _fix(field: str, limit: int | None) -> dict[str, str] | None:
    if field == "data.format":
        return {"act": "format", "value": "preference", "label": "Learn the chosen replies only"}
    if field == "train.sequence_length" and limit:
        more = _MORE_TOKENS * limit
        return {"act": "length", "value": str(more), "label": f"Set Sequence length to {more:,}"}
    return None


def _format_of(check: DataCheck) -> str | None:
    return "messages" if check.format == "sharegpt" else check.format


def _format_select(by_hand: str, check: DataCheck | None) -> dict[str, Any]:
    found = FORMAT_NAMES.get(_format_of(check) or "") if check and not by_hand else None
    automatic = f"{found} (found)" if found else "Find out from the content"
    known = [name for name in get_args(DataFormat) if name != "auto"]
    return {
        "act": "format",
        "role": "",
        "label": "Format",
        "value": by_hand,
        "choices": [("", automatic), *((name, FORMAT_NAMES[name]) for name in known)],
    }


def _select(
    role: str, label: str, names: list[str], by_hand: str, found: str | None
) -> dict[str, Any]:
    automatic = f"{found} (found)" if found and not by_hand else "None found"
    return {
        "act": "column",
        "role": role,
        "label": label,
        "value": by_hand,
        "choices": [
            ("", "Find out from the content" if by_hand else automatic),
            *((name, name) for name in names),
        ],
    }


def _places(reading: Reading) -> list[dict[str, str]]:
    return [
        {"act": "config", "label": "Part of the dataset", "value": reading.config},
        {"act": "split", "label": "Split", "value": reading.split},
    ]
