"""Replies, piece by piece, with the template that training used."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from engine.contract.errors import RequestError
from engine.data.chat import ChatEncoder

StopReason = Literal["end", "length", "stop"]
_WHOLE_CONTEXT = 1 << 30


@dataclass(frozen=True)
class Sampling:
    """How to choose words. Temperature 0 always takes the likeliest."""

    seed: int = 0
    temperature: float = 0.0
    max_new_tokens: int = 128


@dataclass(frozen=True)
class Reply:
    """What came out; times in seconds."""

    text: str
    num_tokens: int
    seconds: float
    first_token_s: float
    stopped: StopReason


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
        messages: Role and content.
        sampling: How to choose.
        on_text: Called with each new piece; the pieces add up to the reply.
        stop_requested: Asked after every token.

    Raises:
        RequestError: The conversation fills the model's context.
    """
    encoder = ChatEncoder(tokenizer, _WHOLE_CONTEXT, train_on="replies")
    prompt = encoder.prompt_tokens(messages)
    tokens = torch.tensor([prompt], device=model.device)
    streamer = _Pieces(tokenizer, on_text)
    stopping = _OnRequest(stop_requested)
    torch.manual_seed(sampling.seed)
    sampled = {"do_sample": True, "temperature": sampling.temperature}
    model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=_room(model, len(prompt), sampling.max_new_tokens),
        eos_token_id=sorted(end_tokens(model, tokenizer)) or None,
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
        streamer=streamer,
        stopping_criteria=StoppingCriteriaList([stopping]),
        **(sampled if sampling.temperature else _GREEDY),
    )
    return streamer.reply(end_tokens(model, tokenizer), stopped=stopping.stopped)


# A model's own settings may sample; these switch them off without a warning each.
_GREEDY: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


class _Pieces(BaseStreamer):
    """Turns tokens into pieces of text that never end inside a character."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._tokens: list[int] | None = None
        self._text = ""
        self._started = time.perf_counter()
        self._first_token_s = 0.0

    def put(self, value: Tensor) -> None:
        """The prompt first, then every token."""
        if self._tokens is None:
            self._tokens = []
            return
        if not self._tokens:
            self._first_token_s = time.perf_counter() - self._started
        self._tokens.extend(value.flatten().tolist())
        text = self._decoded()
        if text.startswith(self._text) and not text.endswith("\ufffd"):
            self._tell(text)

    def end(self) -> None:
        """What was held back, but for the first bytes of a character that was cut."""
        self._tell(self._decoded().rstrip("\ufffd"))

    def reply(self, ends: set[int], *, stopped: bool) -> Reply:
        """The whole; a final end-of-turn token does not count."""
        tokens = self._tokens or []
        ended = bool(tokens) and tokens[-1] in ends
        return Reply(
            self._text,
            len(tokens) - ended,
            time.perf_counter() - self._started,
            self._first_token_s,
            "end" if ended else "stop" if stopped else "length",
        )

    def _decoded(self) -> str:
        return self._tokenizer.decode(self._tokens or [], skip_special_tokens=True)

    def _tell(self, text: str) -> None:
        piece, self._text = text[len(self._text) :], text
        if piece:
            self._on_text(piece)


class _OnRequest(StoppingCriteria):
    def __init__(self, requested: Callable[[], bool]) -> None:
        self._requested = requested
        self.stopped = False

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        self.stopped = self.stopped or self._requested()
        return torch.full((input_ids.shape[0],), self.stopped, device=input_ids.device)


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a reply: the tokenizer's and the model's own."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in [*listed, tokenizer.eos_token_id] if token is not None}


def _room(model: Any, prompt: int, wish: int) -> int:
    """Tokens that still fit into the model's context."""
    context = getattr(model.config, "max_position_embeddings", None)
    room = wish if not context else min(wish, int(context) - prompt)
    if room < 1:
        raise RequestError(
            "messages",
            f"the conversation is {prompt} tokens long and the model reads {context}.",
            "Clear it, or ask something shorter.",
        )
    return room
