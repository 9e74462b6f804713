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
