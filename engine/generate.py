"""Replies, piece by piece, with the template that training used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import StoppingCriteriaList

from engine.conversation import fitting_prompt
from engine.memory.answering import PROMPT_PART
from engine.pieces import Interrupted, Pieces, StopBetweenTokens, stopping_within_passes
from engine.sampling import Sampling

StopReason = Literal["end", "length", "stop"]


@dataclass(frozen=True)
class Reply:
    """What came out; times in seconds.

    Attributes:
        dropped_turns: Oldest messages that were left out, for lack of room.
    """

    text: str
    num_tokens: int
    seconds: float
    first_token_s: float
    stopped: StopReason
    prompt_tokens: int = 0
    dropped_turns: int = 0

    @property
    def tokens_per_s(self) -> float | None:
        """After the first token; None for a reply that is no longer."""
        writing = self.seconds - self.first_token_s
        return (self.num_tokens - 1) / writing if self.num_tokens > 1 and writing > 0 else None


def no_listener(piece: str) -> None:
    """For those who want the whole reply only."""
    del piece


def never() -> bool:
    """For those who do not stop a reply."""
    return False


@torch.inference_mode()
def reply_to(
    model: Any,
    tokenizer: Any,
    messages: Sequence[dict[str, str]],
    sampling: Sampling,
    on_text: Callable[[str], None] = no_listener,
    stop_requested: Callable[[], bool] = never,
) -> Reply:
    """Let a model answer a conversation that ends with the user.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: With a chat template.
        messages: Role and content. The oldest turns are left out where they are more than it reads.
        sampling: How to choose.
        on_text: Called with each new piece; the pieces add up to the reply.
        stop_requested: Asked after every token and before every layer.

    Raises:
        RequestError: The last question alone fills the model's context.
    """
    pieces = Pieces(tokenizer, on_text)
    prompt = fitting_prompt(tokenizer, messages, context_of(model), sampling.max_new_tokens)
    stopping = StopBetweenTokens(stop_requested)
    try:
        with stopping_within_passes(model, stop_requested):
            _generate(model, tokenizer, prompt.tokens, prompt.room, sampling, pieces, stopping)
    except Interrupted:
        stopping.stopped = True
        pieces.end()
    ended = bool(pieces.tokens) and pieces.tokens[-1] in end_tokens(model, tokenizer)
    return Reply(
        pieces.text,
        len(pieces.tokens) - ended,  # a final end-of-turn token does not count
        pieces.seconds,
        pieces.first_token_s,
        "end" if ended else "stop" if stopping.stopped else "length",
        len(prompt.tokens),
        prompt.dropped_turns,
    )


def _generate(
    model: Any,
    tokenizer: Any,
    prompt: list[int],
    room: int,
    sampling: Sampling,
    pieces: Pieces,
    stopping: StopBetweenTokens,
) -> None:
    tokens = torch.tensor([prompt], device=model.device)
    in_parts = {"prefill_chunk_size": PROMPT_PART} if _goes_in_parts(model, len(prompt)) else {}
    torch.manual_seed(sampling.seed)
    model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=room,
        eos_token_id=sorted(end_tokens(model, tokenizer)) or None,
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
        streamer=pieces,
        stopping_criteria=StoppingCriteriaList([stopping]),
        **in_parts,
        **sampling.options(),
    )


def _goes_in_parts(model: Any, length: int) -> bool:
    return length > PROMPT_PART and model.generation_config.use_cache is not False


def context_of(model: Any) -> int | None:
    """Tokens that a model reads; None if it sets no limit."""
    context = getattr(model.config, "max_position_embeddings", None)
    return int(context) if context else None


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a reply: the tokenizer's and the model's own."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in [*listed, tokenizer.eos_token_id] if token is not None}
