"""What blind votes say so far, of two models and of all that began with the same one."""

from __future__ import annotations

from dataclasses import dataclass

from engine.contract.preferences import WinRate
from engine.contract.strengths import Strengths


@dataclass(frozen=True)
class Standing:
    """What the votes say.

    Attributes:
        pair: Of the two that are shown now; None where they are one model.
        all: Of three models or more with one base.
        changed: Names under which different weights were voted on.
        bad_lines: Lines that could not be read.
        num_votes: All votes with this base.
    """

    pair: WinRate | None
    all: Strengths | None
    changed: tuple[str, ...]
    bad_lines: int
    num_votes: int
