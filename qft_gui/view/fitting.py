"""What would make a request fit, in words: changes with what they cost, and other GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from engine.contract.presets import MethodChoice
from engine.memory.changes import Change, Setting
from engine.memory.devices import Device
from engine.memory.fit import Fitting
from engine.memory.gpus import NO_GPU_HOLDS_IT
from engine.memory.holders import Holder
from engine.memory.quality import quality_of
from engine.memory.units import MIB
from qft_gui.forecasts import MethodRow, Report
from qft_gui.labels import LABELS
from qft_gui.prospects import CardSize, change_key
from qft_gui.spec_fields import SETTING_FIELDS
from qft_gui.view.methods import FAMILIES, choice_name
from qft_gui.view.numbers import gib
from qft_gui.view.status import VERDICT_MARKS

# Less is not worth a word to who looks for room.
_NOTABLE_BYTES = 100 * MIB
_ARROW = "\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}"
_SWITCH = {True: "on", False: "off"}


def setting_words(setting: Setting, kind: str) -> str:
    """One setting with its value before and after.

    Args:
        setting: As the spec names it.
        kind: The method that it belongs to, if it is the method's.

    >>> setting_words(Setting("train.batch_size", 8, 2), "qft").split()
    ['batch', 'size', '8', '→', '2']
    >>> setting_words(Setting("method.optimizer", "adamw", "adamw_8bit"), "full").split()
    ['optimizer', 'AdamW', '→', '8-bit', 'AdamW']
    """
    group, _, name = setting.field.partition(".")
    place = f"{kind}.{name}" if group == "method" else name
    label = LABELS.get(place, name)
    label = label[:1].lower() + label[1:]
    return f"{label} {_value(place, setting.before)}{_ARROW}{_value(place, setting.after)}"


def _value(place: str, value: Any) -> str:
    if isinstance(value, bool):
        return _SWITCH[value]
    field = SETTING_FIELDS.get(place)
    words = {one: label for label, one in field.choices} if field else {}
    return words.get(value) or (f"{value:,}" if isinstance(value, int) else str(value))


def settings_words(changes: Iterable[Change], kind: str) -> str:
    """What changes set, in one line; a preset stands for all that it brings."""
    found: list[Setting] = []
    for change in changes:
        has_preset = any(one.field == "method.preset" for one in change.settings)
        brought = [
            one
            for one in change.settings
            if has_preset and one.field.startswith("method.") and one.field != "method.preset"
        ]
        found += [one for one in change.settings if one.before != one.after and one not in brought]
    return ", ".join(setting_words(one, kind) for one in found)


def time_words(change: Change) -> str:
    """What a change does to the time of a step."""
    percent = round(100 * (change.slower - 1))
    if not percent:
        return "a step takes as long"
    return f"a step takes about {abs(percent)} % {'longer' if percent > 0 else 'less'}"


def hint(changes: Sequence[Change] | None, kind: str) -> str:
    """For one row of the method table, what would make it fit; empty if nothing would."""
    if not changes:
        return ""
    with_consent = any(change.needs_consent for change in changes)
    word = "Would fit" if with_consent else "Fits"
    return f"{word} with {settings_words(changes, kind)}."


def change_line(change: Change, before_bytes: int, kind: str) -> dict[str, Any]:
    """One change with what is needed before and after it."""
    words = settings_words([change], kind)
    return {
        "key": change_key(change),
        "settings": words[:1].upper() + words[1:],
        "effect": f"{gib(before_bytes)} → {gib(change.total_bytes)} GiB, {time_words(change)}",
        "why": change.why,
        "fits": change.fits,
    }


def change_lines(changes: Iterable[Change], before_bytes: int, kind: str) -> list[dict[str, Any]]:
    """Changes one after the other."""
    lines: list[dict[str, Any]] = []
    for change in changes:
        lines.append(change_line(change, before_bytes, kind))
        before_bytes = change.total_bytes
    return lines


def offer(report: Report) -> dict[str, Any]:
    """What a request that does not fit is offered; nothing where it fits."""
    fitting, row = report.fitting, report.chosen_row
    if fitting is None or row is None:
        return {"can_fit": False, "further": [], "sentence": ""}
    after = fitting.after.total_bytes
    further = sorted(fitting.further, key=lambda change: not change.fits)
    if further and not further[0].fits:
        further = []  # nobody is asked to give up something for nothing
    return {
        "can_fit": bool(fitting.changes) and bool(fitting.fits or further),
        "further": [change_line(change, after, row.choice.kind) for change in further],
        "sentence": "" if fitting.fits else _shortfall(fitting, row.choice, report.methods),
    }


def _shortfall(fitting: Fitting, choice: MethodChoice, rows: Sequence[MethodRow]) -> str:
    least = min(one.high_bytes for one in (fitting.after, *fitting.further))
    need = f"{gib(fitting.after.high_bytes)} GiB"
    gpu = fitting.gpu.sentence if fitting.gpu else NO_GPU_HOLDS_IT
    if not any(change.fits for change in fitting.further):
        sentences = (
            f"No setting of {choice_name(choice)} makes it fit here: it would need {gib(least)} "
            f"GiB at the least.",
            _other_that_fits(rows),
            f"As it stands, it {gpu[:1].lower()}{gpu[1:]}",
        )
        return " ".join(filter(None, sentences))
    if fitting.changes:
        return f"That alone is not enough: it would still need up to {need}. {gpu}"
    return "What would make it fit changes the training, so it is yours to choose."


def _other_that_fits(rows: Sequence[MethodRow]) -> str:
    """The method that learned most of those that fit; one that trains every weight comes first."""
    for family in FAMILIES.values():
        fitting = [
            row
            for row in rows
            if row.forecast and row.forecast.verdict == "fits" and row.choice.kind in family
        ]
        if fitting:
            best = max(fitting, key=_learned)
            assert best.forecast is not None
            return f"{choice_name(best.choice)} fits: {gib(best.forecast.total_bytes)} GiB."
    return ""


def _learned(row: MethodRow) -> float:
    quality = quality_of(row.choice)
    if quality is None:
        return 0.0
    low = quality.low_rate_share_percent
    # Above full tuning it is what differs between seeds.
    return min(100.0, quality.share_percent, quality.share_percent if low is None else low)


def needed_card(cards: Sequence[CardSize]) -> str:
    """The smallest GPU that would do, in one line."""
    found = next((size for size in cards if size.verdict == "fits"), None)
    if found is None:
        return NO_GPU_HOLDS_IT
    return f"A GPU with {found.memory_gib} GiB, such as the {found.cards[0].name}."


def card_rows(cards: Sequence[CardSize]) -> list[dict[str, Any]]:
    """Sizes of GPUs with the forecast there."""
    return [
        {
            "memory": f"{size.memory_gib} GiB",
            "names": ", ".join(card.name for card in size.cards),
            "total": gib(size.forecast.total_bytes),
            "mark": VERDICT_MARKS[size.verdict],
        }
        for size in cards
    ]


def room(device: Device, held: Sequence[Holder] | None) -> str:
    """How much is free, and who holds the rest."""
    where = "on this computer" if device.kind == "cpu" else f"on the {device.name}"
    free = f"{gib(device.free_bytes)} of {gib(device.total_bytes)} GiB are free {where}."
    return f"{free} {_held(held or ())}".strip()


def _held(held: Sequence[Holder]) -> str:
    known = [one for one in held if (one.held_bytes or 0) >= _NOTABLE_BYTES]
    silent = [one.name for one in held if one.held_bytes is None]
    parts = [f"{one.name} {gib(one.held_bytes)}" for one in known]
    if silent:
        names = ", ".join(name for name, _ in groupby(sorted(silent)))
        parts.append(f"{names} (the driver does not say how much)")
    return f"Held now: {', '.join(parts)}." if parts else ""
