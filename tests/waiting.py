"""Waiting for what has to happen, however slow the computer is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = 100  # less than a test may take
Found = TypeVar("Found")


def until(found: Callable[[], Found]) -> Found:
    """What was waited for, once it is true.

    Args:
        found: Asked again and again.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not (value := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value
