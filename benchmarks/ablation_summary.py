"""What the result of `qft_ablation` says: shares of the loss drop that float32 reaches.

    share = (start - end) / (start - end of float32)

`start` is the loss of the model as it was loaded, for all alike, so what 8 bits lose before the
first step counts against QFT. Seeds are compared in pairs: the same batches on both sides.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

REFERENCES = {False: "fp32 Lion", True: "fp32 AdamW"}
# What was promised, of which variant.
PROMISES = (("QFT balanced", 98.0), ("QFT quality", 99.5), ("QFT-AdamW", 98.0))


@dataclass(frozen=True)
class Row:
    """One variant at one learning rate.

    Attributes:
        shares: One for each seed, in percent; infinity below zero where training broke down.
        before: Held-out loss before the first step, of the weights as this variant stores them.
        after: Mean held-out loss over the seeds; None where training broke down.
        changed_percent: Stored numbers that are others than at the start.
        step_ratio: Of the median step, beside float32 of the same optimizer.
        bytes_per_weight: Of weights and moments on this model; no gradients.
    """

    variant: str
    learning_rate: float
    shares: tuple[float, ...]
    before: float
    after: float | None
    changed_percent: float
    step_ratio: float
    bytes_per_weight: float

    @property
    def share(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.shares)


def is_adamw(variant: str) -> bool:
    """Which optimizer a variant belongs to."""
    return "AdamW" in variant


def rows(section: dict[str, Any]) -> list[Row]:
    """Every variant at every rate of one model."""
    outcomes = {(one["variant"], one["learning_rate"]): one for one in section["outcomes"]}
    return [
        _row(outcome, outcomes[REFERENCES[is_adamw(variant)], rate], section["num_parameters"])
        for (variant, rate), outcome in outcomes.items()
    ]


def _row(outcome: dict[str, Any], reference: dict[str, Any], num_parameters: int) -> Row:
    start = reference["before"][0]
    after = [loss for loss in outcome["after"] if loss is not None]
    return Row(
        outcome["variant"],
        outcome["learning_rate"],
        tuple(
            float("-inf") if own is None else 100 * (start - own) / (start - best)
            for own, best in zip(outcome["after"], reference["after"], strict=False)
        ),
        outcome["before"][0],
        statistics.fmean(after) if after else None,
        statistics.fmean(outcome["codes_changed_percent"]),
        statistics.median(outcome["step_s"]) / statistics.median(reference["step_s"]),
        outcome["state_bytes"] / num_parameters,
    )


def rates(found: Iterable[Row], variant: str) -> list[Row]:
    """The rows of one variant, lowest rate first."""
    return sorted(
        (row for row in found if row.variant == variant), key=lambda row: row.learning_rate
    )
