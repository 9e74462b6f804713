"""What commands print: a JSON document for programs, sentences and GiB for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from engine.contract.errors import RequestError


def print_json(value: Any) -> None:
    """One document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_mistakes(found: Sequence[RequestError], *, as_json: bool) -> None:
    """One line per mistake on standard error, or all in one document on standard output."""
    if as_json:
        print_json({"error": found[0].as_json(), "errors": [error.as_json() for error in found]})
        return
    for error in found:
        # A name that a person gave may hold line breaks of its own.
        print(" ".join(str(error).splitlines()), file=sys.stderr)


def duration(seconds: float) -> str:
    """A time for people, no finer than it is known.

    >>> duration(0.0421), duration(3.14), duration(95), duration(5400), duration(400_000)
    ('42 ms', '3.1 s', '1.6 min', '1.5 h', '4.6 days')
    """
    for limit, size, unit in (
        (1, 1e-3, "ms"),
        (60, 1, "s"),
        (3600, 60, "min"),
        (86_400, 3600, "h"),
    ):
        if seconds < limit:
            number = seconds / size
            return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"
