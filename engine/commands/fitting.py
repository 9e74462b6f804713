"""How `estimate` tells what would fit: changes of settings, GPUs, and who holds memory now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from engine.memory.devices import Device
from engine.memory.fit import Change, Fitting
from engine.memory.gpus import NO_GPU_HOLDS_IT, GpuFit
from engine.memory.holders import Holder
from engine.memory.units import MIB, gib

# Less is not worth a word to who looks for room.
NOTABLE_BYTES = 100 * MIB


def fit_document(fitting: Fitting) -> dict[str, Any]:
    """`fit` in `estimate --fit --json`."""
    return {
        "fits": fitting.fits,
        "settings": settings_of(fitting.changes) if _can_fit(fitting) else {},
        "slower": round(fitting.slower, 3),
        "before_bytes": fitting.before.total_bytes,
        "after_bytes": fitting.after.total_bytes,
        "high_bytes": fitting.after.high_bytes,
        "changes": [_change_document(change) for change in fitting.changes],
        "further": [_change_document(change) for change in fitting.further],
        "gpu": fitting.gpu.gpu.name if fitting.gpu else None,
    }


def _can_fit(fitting: Fitting) -> bool:
    """Whether it fits, or would with consent."""
    return fitting.fits or any(change.fits for change in fitting.further)


def settings_of(changes: Sequence[Change]) -> dict[str, Any]:
    """The values that the spec gets, by setting."""
    return {setting.field: setting.after for change in changes for setting in change.settings}


def _change_document(change: Change) -> dict[str, Any]:
    return {
        "field": change.field,
        "before": change.before,
        "after": change.after,
        "settings": [one._asdict() for one in change.settings],
        "total_bytes": change.total_bytes,
        "high_bytes": change.high_bytes,
        "fits": change.fits,
        "slower": round(change.slower, 3),
        "needs_consent": change.needs_consent,
        "why": change.why,
    }


def fit_lines(fitting: Fitting, needs: GpuFit | None) -> Iterator[str]:
    """The same for people: each change with what is needed after it.

    Args:
        fitting: What became of the request.
        needs: The GPU that was named for the request as it is.
    """
    free = gib(fitting.before.free_bytes or 0)
    if not fitting.changes:
        if fitting.fits:
            yield f"It fits as it is: {gib(fitting.before.high_bytes)} at most, {free} free."
        else:
            yield "Nothing helps without your consent." if fitting.further else "Nothing helps."
    before = fitting.before.high_bytes
    for change in fitting.changes:
        yield f"{_arrows(change)}: {gib(before)} -> {gib(change.high_bytes)}, {time_of(change)}"
        yield f"  {change.why}"
        before = change.high_bytes
    if fitting.changes and fitting.fits:
        yield f"Fits then: {gib(before)} at most, {free} free."
    if not fitting.fits:
        yield from _further_lines(fitting, free, needs)


def _further_lines(fitting: Fitting, free: str, needs: GpuFit | None) -> Iterator[str]:
    what = f"{gib(fitting.after.high_bytes)} needed, {free} free."
    if _can_fit(fitting):
        yield f"Does not fit without a change of the training: {what}"
    else:
        yield f"Does not fit even so: {what}" if fitting.changes else f"Does not fit: {what}"
    if fitting.changes and fitting.gpu and not (needs and needs.gpu == fitting.gpu.gpu):
        yield f"With these changes it needs a GPU with {fitting.gpu.size}."
    for change in fitting.further:
        verdict = "fits" if change.fits else "does not fit either"
        size = gib(change.high_bytes)
        yield f"With your consent, {_arrows(change)}: {size}, {verdict}, {time_of(change)}"
        yield f"  {change.why}"


def _arrows(change: Change) -> str:
    """The settings with their values before and after, as a spec writes them."""
    return ", ".join(
        f"{field} {json.dumps(before)} -> {json.dumps(after)}"
        for field, before, after in change.settings
        if before != after
    )


def time_of(change: Change) -> str:
    """What a change does to the time of a step, for people."""
    percent = round(100 * (change.slower - 1))
    if not percent:
        return "a step takes as long"
    return f"a step takes about {abs(percent)} % {'longer' if percent > 0 else 'less'}"


def shortest_way(fitting: Fitting) -> str:
    """In few words, what would make a request fit: for one line of a table."""
    if fitting.fits:
        return f"Fits with {', '.join(map(_arrows, fitting.changes))}."
    way = next((change for change in fitting.further if change.fits), None)
    if way is not None:
        changes = (*fitting.changes, way)
        return f"Fits, with your consent, with {', '.join(map(_arrows, changes))}."
    if fitting.gpu is None or not fitting.changes:
        gpu = fitting.gpu.sentence if fitting.gpu else NO_GPU_HOLDS_IT
        return f"Settings save too little. {gpu}"
    arrows = ", ".join(map(_arrows, fitting.changes))
    return f"Settings save too little. With {arrows} it needs a GPU with {fitting.gpu.size}."


def needs_document(found: GpuFit | None) -> dict[str, Any] | None:
    """`needs` in `estimate --json`; None where no single GPU holds the request."""
    if found is None:
        return None
    return {
        "gpu_gib": found.gpu.memory_gib,
        "gpu": found.gpu.name,
        "total_bytes": found.forecast.total_bytes,
        "high_bytes": found.forecast.high_bytes,
    }


def needs_line(found: GpuFit | None, device: Device) -> str:
    """Which GPU would do, for people."""
    if found is None:
        return NO_GPU_HOLDS_IT
    return f"A GPU would need {found.size}." if device.kind == "cpu" else found.sentence


def holders_document(found: Sequence[Holder]) -> list[dict[str, Any]]:
    """`holders` in `estimate --json`."""
    return [
        {"name": one.name, "pid": one.pid, "held_bytes": one.held_bytes, "kind": one.kind}
        for one in found
    ]


def holders_line(found: Sequence[Holder]) -> str | None:
    """Who holds memory now, for people; None if nobody holds much."""
    known = [one for one in found if (one.held_bytes or 0) >= NOTABLE_BYTES]
    silent = [one.name for one in found if one.held_bytes is None]
    parts = [f"{one.name} {gib(one.held_bytes or 0)}" for one in known]
    if silent:
        parts.append(f"{', '.join(dict.fromkeys(silent))} (the driver does not say how much)")
    return f"Held now: {', '.join(parts)}." if parts else None
