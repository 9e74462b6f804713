"""How much of what full AdamW learns each choice of a method learned, where that was measured."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from engine.contract.bundled import ASSETS

if TYPE_CHECKING:
    from engine.contract.presets import MethodChoice

# Shares within this of full AdamW's differ less than two seeds do.
_SAME_PERCENT = 3.0


@dataclass(frozen=True)
class Quality:
    """One line of `assets/quality.json`, which `python -m benchmarks.quality_table` writes.

    Attributes:
        share_percent: Of full AdamW's fall in held-out loss, each at its best learning rate, on the
            starter. Above 100 it fell further.
        low_rate_share_percent: Of what the same optimizer reaches in float32 at the lowest rate
            tried; None where that was not compared.
        steps: Of the comparison.
        result: The result file in benchmarks/results/.
    """

    share_percent: float
    low_rate_share_percent: float | None
    steps: int
    result: str

    def as_json(self) -> dict[str, Any]:
        """What `estimate --json` prints of it."""
        return asdict(self)

    @property
    def words(self) -> str:
        """For a narrow column; what is lost at low rates is said where it is more than seeds do."""
        low = self.low_rate_share_percent
        text = f"{self.share_percent:.0f} % of AdamW's"
        if low is not None and low < 100 - _SAME_PERCENT:
            return f"{text}, {low:.0f} % at low rates"
        return text


@cache
def _table() -> dict[str, Any]:
    return json.loads((ASSETS / "quality.json").read_text(encoding="utf-8"))


def quality_of(choice: MethodChoice) -> Quality | None:
    """What was measured of a choice; None where nothing was."""
    found = _table()["choices"].get(choice.key)
    return None if found is None else Quality(**found)


def measured_parameters() -> int:
    """Weights of the model that it was measured on: what holds for it may not for a large one."""
    return _table()["num_parameters"]
