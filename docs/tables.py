"""What the documents' tables share: result files, Markdown, and the settings of a method."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def result(name: str) -> dict[str, Any]:
    """A result file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(headings: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [headings, tuple("---" for _ in headings), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured_on(found: dict[str, Any]) -> str:
    """Where a result file's numbers come from; threads where it tells them."""
    threads = found.get("threads")
    words = f", {threads} thread{'s' * (threads > 1)}" if threads else ""
    return f"{found['hardware']}{words}, torch {found['torch']}"


def short_rate(learning_rate: float) -> str:
    """A learning rate as people write it.

    >>> short_rate(1e-5), short_rate(1.6e-3), short_rate(0.3)
    ('1e-5', '1.6e-3', '0.3')
    """
    if learning_rate >= 0.01:
        return f"{learning_rate:g}"
    digits, _, power = f"{learning_rate:e}".partition("e-")
    return f"{float(digits):g}e-{int(power)}"


def setting_table(settings: type[BaseModel]) -> str:
    """Every setting in a method's settings class, as the spec describes it."""
    cells = [
        (f"`{name}`", _choices(field), _default(field), field.description or "")
        for name, field in settings.model_fields.items()
        if name != "kind"
    ]
    return table(("setting", "choices", "default", "what for"), cells)


def _default(field: FieldInfo) -> str:
    """As a person would type it."""
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


def _choices(field: FieldInfo) -> str:
    """The values of a Literal, or the range of a number, or what may be typed."""
    choices = [str(choice) for choice in _literals(field.annotation)]
    if choices:
        return ", ".join(choices)
    if field.annotation is str:
        return "text"
    if field.annotation is bool:
        return "true, false"
    limits = {
        name: f"{value:g}"
        for one in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(one, name, None)) is not None
    }
    least = limits.get("ge") or f"above {limits['gt']}"
    most = f"under {limits['lt']}" if "lt" in limits else limits.get("le")
    return f"{least} to {most}" if most else least


def _literals(annotation: Any) -> list[Any]:
    """Of a Literal, also one inside another."""
    found: list[Any] = []
    for choice in get_args(annotation):
        found.extend(_literals(choice) or [choice])
    return found
