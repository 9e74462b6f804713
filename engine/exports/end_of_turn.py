"""Which tokens end a reply: those that the model was told of, and the one that it learned."""

from __future__ import annotations

from typing import Any

from engine.data.template_process import template_process
from engine.generate import end_tokens

_QUESTION = {"role": "user", "content": "Question"}
_REPLY = {"role": "assistant", "content": "Reply"}


def turn_end_tokens(tokenizer: Any) -> set[int]:
    """The special token that the chat template puts after a reply; none where it puts words.

    Raises:
        RequestError: The template cannot be used at all.
    """
    (rendered,) = template_process(tokenizer).chats([[_QUESTION, _REPLY]])
    if rendered.refusal or not rendered.replies:
        return set()
    reply = rendered.replies[-1]
    mark = rendered.text[reply.mark : reply.end]
    found = [
        token
        for token in tokenizer.encode(mark, add_special_tokens=False)
        if token in tokenizer.added_tokens_decoder
    ]
    return set(found[:1])


def all_end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a reply, in order.

    Raises:
        RequestError: The chat template cannot be used at all.
    """
    return sorted(end_tokens(model, tokenizer) | turn_end_tokens(tokenizer))
