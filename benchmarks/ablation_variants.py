"""Every way to train that the ablation compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.ablation_references import Optimizer, ReferenceMethod
from engine.methods import METHODS
from engine.methods.protocol import Method


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        optimizer: Decides what it is compared with.
        settings: Of the product's method; None for a reference.
        weights_in: Format of a reference's weights.
        stochastic: How a reference rounds.
        from_codes: Whether a reference starts from the values of QFT's codes, so that what is
            lost before the first step is apart from what is lost in training.
    """

    optimizer: Optimizer = "lion"
    settings: dict[str, Any] | None = None
    weights_in: torch.dtype = torch.float32
    stochastic: bool = False
    from_codes: bool = False

    def method(self) -> Method:
        """A new method of this kind."""
        if self.settings is not None:
            return METHODS[self.settings["kind"]]()
        return ReferenceMethod(self.optimizer, self.weights_in, self.stochastic)


def _qft(**settings: Any) -> Variant:
    return Variant(settings.get("update", "lion"), {"kind": "qft", **settings})


FLOAT32: dict[Optimizer, str] = {"lion": "fp32 Lion", "adamw": "fp32 AdamW"}
FROM_CODES: dict[Optimizer, str] = {
    "lion": "fp32 Lion from 8-bit start",
    "adamw": "fp32 AdamW from 8-bit start",
}
VARIANTS: dict[str, Variant] = {
    FLOAT32["lion"]: Variant("lion"),
    FLOAT32["adamw"]: Variant("adamw", {"kind": "full"}),
    FROM_CODES["lion"]: Variant("lion", from_codes=True),
    FROM_CODES["adamw"]: Variant("adamw", {"kind": "full"}, from_codes=True),
    "bf16 Lion, nearest": Variant("lion", None, torch.bfloat16),
    "bf16 Lion, stochastic": Variant("lion", None, torch.bfloat16, stochastic=True),
    "QFT balanced": _qft(),
    "QFT lean": _qft(preset="lean"),
    "QFT quality": _qft(preset="quality"),
    "QFT paper": _qft(preset="paper"),
    "QFT without residual": _qft(residual_bits=0),
    "QFT nearest": _qft(rounding="nearest", residual_bits=0),
    "QFT nearest, residual 4": _qft(rounding="nearest", residual_bits=4),
    "QFT nearest, residual 8": _qft(rounding="nearest", residual_bits=8),
    "QFT residual 8": _qft(residual_bits=8),
    "QFT groups of 32, 1 % outliers": _qft(residual_bits=0, scale_group=32, outlier_percent=1.0),
    "QFT stack": _qft(gradients="stack"),
    "QFT int8 products": _qft(matmul="int8"),
    "QFT quantize all": _qft(quantize="all"),
    "bf16 AdamW, nearest": Variant("adamw", None, torch.bfloat16),
    "bf16 AdamW, stochastic": Variant("adamw", None, torch.bfloat16, stochastic=True),
    "QFT-AdamW": _qft(update="adamw"),
    "QFT-AdamW, moments 4": _qft(update="adamw", moment_bits=4),
}
# Lion's rates are the range of the promise; AdamW's are three times as large.
RATES: dict[Optimizer, tuple[float, ...]] = {
    "lion": (1e-5, 1e-4, 1e-3),
    "adamw": (3e-5, 3e-4, 3e-3),
}
