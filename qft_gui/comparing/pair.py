"""Two who are compared, as a page names them."""

from __future__ import annotations

from dataclasses import dataclass

from qft_gui.answers import Side

BASE = "base:"


@dataclass(frozen=True)
class Pair:
    """What stands left and right.

    Attributes:
        left: `base:RUN` for what a run began with, else as `engine ask` takes it; empty where the
            right one is asked alone.
        right: As `left`.
    """

    left: str = ""
    right: str = ""

    @property
    def values(self) -> dict[Side, str]:
        """Who answers, by side."""
        return {"a": self.left, "b": self.right} if self.left else {"a": self.right}

    @property
    def sides(self) -> tuple[Side, ...]:
        """All who answer."""
        return tuple(self.values)
