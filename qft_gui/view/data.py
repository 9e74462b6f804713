"""The data card: what a dataset was taken for, which of its rows count, and what to do about it."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from engine.contract.bundled import sample_datasets
from qft_gui.checks import Look
from qft_gui.data_check import DataCheck
from qft_gui.data_wish import Reading, data_kind
from qft_gui.view.mapping import FORMAT_NAMES, format_of, mapping
from qft_gui.view.numbers import percent
from qft_gui.view.sentences import in_words_of_the_page, sentence

_MOST_REASONS = 12
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
        "warnings": [in_words_of_the_page(line) for line in check.warnings] if check else [],
        "is_stand_in": look.is_stand_in,
        "mistake": _mistake(look),
        "mapping": mapping(reading, check, is_hub=kind == "hub") if kind != "sample" else None,
        "refused": refused(check) if check and check.refused_count else None,
    }


def still_checking(source: str, look: Look) -> str:
    """What stands beside Start while a dataset is looked into for the first time."""
    if look.check is not None or not look.is_checking:
        return ""
    return f"Still checking {PurePath(source).name}."


def taken_for(check: DataCheck) -> str:
    """Container, encoding and format in one line.

    >>> taken_for(DataCheck(container="CSV", encoding="Windows-1252", format="qa"))
    'CSV, Windows-1252: question and answer'
    """
    file = ", ".join(part for part in (check.container, check.encoding) if part)
    name = FORMAT_NAMES.get(format_of(check) or "", "")
    return ": ".join(part for part in (file, name[:1].lower() + name[1:]) if part)


def refused(check: DataCheck) -> dict[str, Any]:
    """The rows that cannot be learned from, the first of them one by one."""
    shown = len(check.refused)
    return {
        "title": f"{counted(check.refused_count, 'row')} left out",
        "unit": check.unit.capitalize(),
        "first": f"The first {shown} of them:" if shown < check.refused_count else "",
        "reasons": [
            {
                "text": reason.reason,
                "count": f"{reason.count:,}",
                "first": f"{check.unit} {reason.first:,}",
            }
            for reason in check.reasons[_TOLD_REASONS:_MOST_REASONS]
        ],
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
