"""How far a merged model is from base and adapter: measured, since merging rounds every weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.casting import compute_dtype, compute_in
from engine.data.chat import ChatEncoder
from engine.exports.model_card import MergeError

PROMPTS = (
    "Hello! Who are you?",
    "Write two sentences about the sea.",
    "What is 12 plus 30?",
    "Explain in a few words why bread rises.",
)
_LONGEST = 512


def logits_on_prompts(model: Any, tokenizer: Any) -> list[Tensor]:
    """What a model predicts after every token of each prompt: float32, (tokens, words).

    Raises:
        RequestError: The chat template refuses them.
    """
    encoder = ChatEncoder(tokenizer, _LONGEST, train_on="replies")
    found: list[Tensor] = []
    with torch.inference_mode():
        for prompt in PROMPTS:
            tokens = encoder.prompt_tokens([{"role": "user", "content": prompt}])[:_LONGEST]
            output = model(input_ids=torch.tensor([tokens], device=model.device))
            found.append(output.logits[0].float().cpu())
    return found


def compute_as_trained(model: Any) -> None:
    """Compute in the format in which an adapter computes on this device, keeping bfloat16 weights.

    Otherwise the products' own rounding would hide what merging did.
    """
    compute_in(model, compute_dtype(model.device))


def merge_error(apart: Sequence[Tensor], merged: Sequence[Tensor]) -> MergeError:
    """Compare the logits of base and adapter with those of the merged model.

    Args:
        apart: As `logits_on_prompts` gives them.
        merged: The same of the merged model.
    """
    pairs = list(zip(apart, merged, strict=True))
    words = torch.cat([one.argmax(-1) == other.argmax(-1) for one, other in pairs])
    return MergeError(
        num_prompts=len(pairs),
        largest=max(float((one - other).abs().max()) for one, other in pairs),
        scale=max(float(one.abs().max()) for one in apart),
        same_word=float(words.float().mean()),
    )
