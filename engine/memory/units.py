"""Bytes inside, GiB (1024 cubed) where a person reads."""

from __future__ import annotations

GIB = 1024**3
MIB = 1024**2


def gib(size: int) -> str:
    """A size for people, no finer than it is known.

    >>> gib(10_415_293_440), gib(52_428_800), gib(0)
    ('9.7 GiB', '50 MiB', '0 MiB')
    """
    if size >= GIB / 10:
        return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / GIB:.2f} GiB"
    return f"{size / MIB:.0f} MiB" if size >= 10 * MIB or not size else f"{size / MIB:.1f} MiB"
