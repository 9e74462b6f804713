"""One side of a chat: what it is made of, how large it is, and whether two can share weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.contract.model_source import read_header
from engine.model import LoadedModel
from engine.result import adapter_of, model_folder
from engine.target import Target

if TYPE_CHECKING:
    from engine.adapter_parts import AdapterParts

FOUR_BIT = "4-bit"
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_BFLOAT16_BYTES = 2
_FOUR_BIT_BYTES = 0.5625  # of a weight, with the scale of its block


@dataclass
class Side:
    """One of those who answer.

    Attributes:
        target: What it is.
        parts: Its adapter, where it is one.
        num_bytes: Of its weights in memory, from the headers of its files.
        form: How its weights are kept: `4-bit`, or a format's name.
        adapter: Which adapter it answers with, where several sides share weights.
        loaded: None while another side has the memory.
        tokenizer: As `context`, the tokens that it reads, known as long as it can be asked.
        context: None for no limit.
        scores: After the probe, when it was loaded.
    """

    target: Target
    parts: AdapterParts | None
    num_bytes: int
    form: str = ""
    adapter: str | None = None
    loaded: LoadedModel | None = None
    tokenizer: Any = None
    context: int | None = None
    scores: torch.Tensor | None = None

    @classmethod
    def of(cls, target: Target) -> Side:
        """A side that is not loaded yet.

        Raises:
            RequestError: Its files cannot be had, or are damaged.
        """
        parts = adapter_of(target)
        folder = parts.base_folder() if parts else model_folder(target)
        return cls(target, parts, _weight_bytes(folder, parts) + (parts.num_bytes if parts else 0))

    def keep(self, loaded: LoadedModel) -> None:
        """Take the model that answers for this side."""
        self.loaded, self.tokenizer = loaded, loaded.tokenizer
        self.context = loaded.max_position
        self.form = form_of(self.parts) if self.parts else _format_of(loaded)


def _weight_bytes(folder: Path, parts: AdapterParts | None) -> int:
    """Of a whole model as it is kept, alone or as the base of an adapter."""
    total = 0.0
    for file in folder.glob("*.safetensors"):
        for name, (dtype, shape) in read_header(file).items():
            size: float = _BYTES.get(dtype, 1)
            if parts is not None:
                is_linear = len(shape) == 2 and "embed" not in name and "lm_head" not in name
                size = _FOUR_BIT_BYTES if parts.form and is_linear else _BFLOAT16_BYTES
            total += size * math.prod(shape)
    return round(total)


def form_of(parts: AdapterParts) -> str:
    """How the base under an adapter is kept."""
    return FOUR_BIT if parts.form is not None else "bfloat16"


def _format_of(loaded: LoadedModel) -> str:
    return str(loaded.stored_dtype).removeprefix("torch.")


def have_one_base(one: Side, other: Side) -> bool:
    """Whether one set of weights can answer for both: with an adapter, and without or another."""
    first, second = one.parts, other.parts
    if first is not None and second is not None:
        return first.form == second.form and first.base_folder() == second.base_folder()
    parts, plain = (first, other) if first is not None else (second, one)
    if parts is None or plain.target.kind != "model":
        return False
    return parts.base_folder().resolve() == model_folder(plain.target).resolve()
