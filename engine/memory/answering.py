"""What models need in memory to answer: their weights as they are kept, and one conversation."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from engine.contract.durable import as_object
from engine.contract.model_source import read_config, read_header
from engine.memory.estimate import MEASURED, runtime_bytes

# The longest conversation that is reckoned with; what goes beyond takes what is left free.
CONVERSATION_TOKENS = 4096
# A longer prompt goes through the model in parts: memory stays small, and a stop is heard sooner.
# The size is fixed, since rounding depends on it: the same question has the same answer.
PROMPT_PART = 256

FOUR_BIT = "4-bit"
BaseForm = Literal["bfloat16", "4-bit"]
Kind = Literal["cpu", "cuda"]

_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_BFLOAT16_BYTES = 2
_FLOAT32_BYTES = 4
_BLOCK = re.compile(r"\.\d+\.")
_FOUR_BIT_BYTES = 0.5625  # of a weight, with the scale of its block
# Of attention that is limited or masked step by step: what goes in, what comes out, and the mask.
_COPIES_OF_ATTENTION = 3
# Copies of the scores of one token while a word is drawn: sorted, summed up, masked.
_COPIES_OF_SCORES = 6


@dataclass(frozen=True)
class AnsweringModel:
    """A model on its way into memory; sizes in bytes, by the headers of its files.

    Attributes:
        folder: Of a whole model, or of an adapter's base.
        base_form: How the base under an adapter is kept; None for a whole model, which is kept as
            its files have it.
        adapter_bytes: Of the adapter's matrices, which are in float32.

    Raises, when a size is asked for:
        RequestError: A file of the model is damaged.
    """

    folder: Path
    base_form: BaseForm | None = None
    adapter_bytes: int = 0

    @cached_property
    def weights_bytes(self) -> int:
        """Of its weights, the adapter's among them."""
        total = float(self.adapter_bytes)
        for name, (dtype, shape) in self._tensors.items():
            size: float = _BYTES.get(dtype, 1)
            if self.base_form is not None:
                # As `engine.four_bit` has it; experts become one tensor, which stays in 16 bits.
                is_linear = len(shape) == 2 and _BLOCK.search(name) and ".experts." not in name
                is_small = self.base_form == FOUR_BIT and is_linear
                size = _FOUR_BIT_BYTES if is_small else _BFLOAT16_BYTES
            total += size * math.prod(shape)
        return round(total)

    def conversation_bytes(self, kind: Kind) -> int:
        """What a conversation takes beside the weights.

        Keys and values of its tokens, and what one part of the prompt needs for a moment in the
        widest layer: with the scores of attention, unless it is known that a kernel avoids them.

        Args:
            kind: Of the device: an adapter's base computes in float32 on a CPU.
        """
        sizes, tokens = self._sizes, self.conversation_tokens
        part = min(PROMPT_PART, tokens)
        computing = self._computing_bytes(kind)
        width = max(sizes.hidden_size, sizes.num_heads * sizes.head_dim)
        layer = part * (3 * sizes.intermediate_size + 6 * width) * computing
        if sizes.fuses_attention:
            # The mask, as it is and as the kernel takes it; keys and values of all heads.
            shared = sizes.num_key_value_heads < sizes.num_heads
            repeated = 2 * sizes.num_heads * sizes.head_dim * tokens * computing if shared else 0
            attention = part * tokens * (1 + computing) + repeated
        else:
            attention = _COPIES_OF_ATTENTION * sizes.num_heads * part * tokens * _FLOAT32_BYTES
        words = _COPIES_OF_SCORES * sizes.vocab_size * _FLOAT32_BYTES
        return tokens * self.token_bytes(kind) + attention + layer + words

    @property
    def conversation_tokens(self) -> int:
        """Tokens of the conversation that is reckoned with."""
        return min(CONVERSATION_TOKENS, self._sizes.max_position or CONVERSATION_TOKENS)

    def token_bytes(self, kind: Kind) -> int:
        """Keys and values of one token, in all layers.

        Args:
            kind: Of the device.
        """
        sizes = self._sizes
        values = 2 * sizes.num_layers * sizes.num_key_value_heads * sizes.head_dim
        return values * self._computing_bytes(kind)

    @cached_property
    def _tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        for file in self.folder.glob("*.safetensors"):
            found |= read_header(file)
        return found

    @cached_property
    def _sizes(self) -> _Sizes:
        return _Sizes.of(read_config(self.folder))

    def _computing_bytes(self, kind: Kind) -> int:
        """Of one number that is computed with."""
        if self.base_form is not None:
            return _FLOAT32_BYTES if kind == "cpu" else _BFLOAT16_BYTES
        common = Counter(dtype for dtype, _ in self._tensors.values()).most_common(1)
        return _BYTES.get(common[0][0], _BFLOAT16_BYTES) if common else _BFLOAT16_BYTES


@dataclass(frozen=True)
class _Sizes:
    """As `ModelShape` has them, by a config alone: a shape needs an inspection with torch."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position: int
    fuses_attention: bool

    @classmethod
    def of(cls, config: dict[str, Any]) -> _Sizes:
        text = as_object(config.get("text_config")) or config

        def first(*names: str, otherwise: int = 0) -> int:
            found = (text.get(name) for name in names)
            return next((one for one in found if isinstance(one, int) and one), otherwise)

        hidden = first("hidden_size", "n_embd", "d_model")
        heads = first("num_attention_heads", "n_head", "num_heads", otherwise=1)
        return cls(
            num_layers=first("num_hidden_layers", "n_layer", "num_layers"),
            hidden_size=hidden,
            intermediate_size=first(
                "intermediate_size", "ffn_dim", "n_inner", otherwise=4 * hidden
            ),
            num_heads=heads,
            num_key_value_heads=first("num_key_value_heads", otherwise=heads),
            head_dim=first("head_dim", otherwise=hidden // heads),
            vocab_size=first("vocab_size"),
            max_position=first("max_position_embeddings", "n_positions"),
            # As `engine.model_switches.attention_of` has it; of others nobody has looked.
            fuses_attention=text.get("model_type") in MEASURED
            and not text.get("attn_logit_softcapping"),
        )


def needed_bytes(models: Sequence[AnsweringModel], kind: Kind) -> int:
    """What models need that are in memory together and answer one after the other.

    Args:
        models: At least one.
        kind: Of the device.

    Raises:
        RequestError: A file of theirs is damaged.
    """
    tensors = sum(one.weights_bytes for one in models)
    tensors += max(one.conversation_bytes(kind) for one in models)
    return tensors + runtime_bytes(kind, tensors)


def needed_bytes_shared(models: Sequence[AnsweringModel], kind: Kind) -> int:
    """The same of models that have one base, which is in memory once.

    Args:
        models: Of one base, at least one with an adapter.
        kind: Of the device.

    Raises:
        RequestError: A file of theirs is damaged.
    """
    base = next(one for one in models if one.base_form is not None)
    adapters = sum(one.adapter_bytes for one in models)
    return needed_bytes([AnsweringModel(base.folder, base.base_form, adapters)], kind)
