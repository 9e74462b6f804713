"""Held-out loss, and what the model says now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from engine.data.batching import in_order
from engine.data.chat import Example
from engine.data.token_store import lengths_of
from engine.generate import Sampling, reply_to
from engine.loss import summed_loss
from engine.model import LoadedModel
from engine.model_traits import in_evaluation

SAMPLE_TOKENS = 48


@torch.no_grad()
def held_out_loss(
    loaded: LoadedModel,
    examples: Sequence[Example],
    batch_size: int,
    device: torch.device,
    stop: Callable[[], bool],
) -> tuple[float, int] | None:
    """Summed nats and number of target tokens; None if stopped midway or nothing to measure."""
    total, count = 0.0, 0
    lengths = lengths_of(examples)
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)  # so little is padding
    with in_evaluation(loaded.model):
        for batch in in_order(examples, by_length, batch_size, loaded.pad_token):
            if stop():
                return None
            total += float(summed_loss(loaded.model, batch.to(device)))
            count += batch.num_target_tokens
    return (total, count) if count else None


def sample_replies(
    loaded: LoadedModel, prompts: Sequence[str], stop: Callable[[], bool]
) -> list[dict[str, str]]:
    """Short, likeliest replies to fixed prompts."""
    items: list[dict[str, str]] = []
    with in_evaluation(loaded.model):
        for prompt in prompts:
            if stop():
                break
            messages = [{"role": "user", "content": prompt}]
            sampling = Sampling(max_new_tokens=SAMPLE_TOKENS)
            reply = reply_to(loaded.model, loaded.tokenizer, messages, sampling)
            items.append({"prompt": prompt, "reply": reply.text})
    return items
