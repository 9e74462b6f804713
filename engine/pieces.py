"""A reply while it is written: tokens become pieces of text, and a wish to stop is heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer


class Interrupted(Exception):
    """Somebody asked for a stop in the middle of a forward pass."""


class Pieces(BaseStreamer):
    """Turns tokens into pieces of text that never end inside a character.

    Each piece is what a token adds to the text of the piece before, so that a long reply costs no
    more per token than a short one. A token's text on its own would lack the space before it in
    some tokenizers, and the first bytes of a character in others.

    Args:
        tokenizer: Whose tokens they are.
        on_text: Called with each piece; all together are the reply.
    """

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._prompt_is_there = False
        self._started = time.perf_counter()
        self._window = 0  # where the tokens of the last piece begin
        self._told = 0  # where those begin that are in no piece yet
        self._last = ""  # the text of those between
        self.tokens: list[int] = []
        self.text = ""
        self.first_token_s = 0.0

    def put(self, value: Tensor) -> None:
        """The prompt first, then every token."""
        if not self._prompt_is_there:
            self._prompt_is_there = True
            return
        if not self.tokens:
            self.first_token_s = self.seconds
        self.tokens.extend(value.flatten().tolist())
        text = self._decoded(self._window)
        if not text.endswith("\ufffd"):
            self._tell(text)

    def end(self) -> None:
        """What was held back, but for the first bytes of a character that was cut."""
        self._tell(self._decoded(self._window).rstrip("\ufffd"))

    @property
    def seconds(self) -> float:
        """Since the question."""
        return time.perf_counter() - self._started

    def _decoded(self, start: int) -> str:
        return self._tokenizer.decode(self.tokens[start:], skip_special_tokens=True)

    def _tell(self, text: str) -> None:
        piece = text.removeprefix(self._last)
        if not text.startswith(self._last):
            # A byte that fits to none spoils those before it too, in some tokenizers: too late.
            piece = self._decoded(self._told).rstrip("\ufffd")
        if not piece:
            # A token without text, such as one that ends a turn, is no place to begin a window at.
            return
        self._window, self._told = self._told, len(self.tokens)
        self._last = self._decoded(self._window)
        self.text += piece
        self._on_text(piece)


class StopBetweenTokens(StoppingCriteria):
    """Ends a reply after the token that is being written."""

    def __init__(self, requested: Callable[[], bool]) -> None:
        self._requested = requested
        self.stopped = False

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        """Whether to end here, for each row."""
        self.stopped = self.stopped or self._requested()
        return input_ids.new_full((input_ids.shape[0],), self.stopped, dtype=torch.bool)


@contextmanager
def stopping_within_passes(model: nn.Module, requested: Callable[[], bool]) -> Iterator[None]:
    """Raises `Interrupted` before the next layer of any forward pass once a stop is asked for.

    A long prompt, or a large model on a CPU, takes seconds for a single pass.
    """

    def check(module: nn.Module, inputs: Any) -> None:
        del module, inputs
        if requested():
            raise Interrupted

    innermost = (module for module in model.modules() if not any(True for _ in module.children()))
    hooks = [module.register_forward_pre_hook(check) for module in innermost]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class TimedPieces:
    """Gathers pieces of text and passes them on together, not too often to be shown.

    Args:
        on_text: Called with what has come since the last call.
        every_s: Least time between two calls, in seconds; the first piece goes through at once.
    """

    def __init__(self, on_text: Callable[[str], None], every_s: float = 0.1) -> None:
        self._on_text = on_text
        self._every_s = every_s
        self._held = ""
        self._told = float("-inf")

    def add(self, piece: str) -> None:
        """Take a piece; it is passed on now, or with a later one."""
        self._held += piece
        if time.monotonic() - self._told >= self._every_s:
            self.flush()

    def flush(self) -> None:
        """Pass on what is held; always at the end."""
        if self._held:
            held, self._held = self._held, ""
            self._told = time.monotonic()
            self._on_text(held)
