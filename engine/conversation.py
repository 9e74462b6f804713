"""What is said so far, as the model reads it: checked, rendered, and cut to what it can read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.contract.errors import RequestError
from engine.data.cells import is_unicode
from engine.data.chat import ChatEncoder

FIELD = "messages"
_WHOLE_CONTEXT = 1 << 30
_ROLES = ("system", "user", "assistant")
# Of the context, what is kept free for the reply at least, where that may be as long.
_REPLY_SHARE = 4

Message = dict[str, str]


@dataclass(frozen=True)
class Prompt:
    """A conversation as the model reads it.

    Attributes:
        text: As the chat template writes it, up to where the assistant begins to speak.
        tokens: Of it.
        dropped_turns: How many of the oldest messages were left out, for lack of room.
        room: Tokens that the reply may have.
    """

    text: str
    tokens: list[int]
    dropped_turns: int
    room: int


def checked_messages(value: Any, system: str = "") -> list[Message]:
    """A conversation as a program sends it.

    Args:
        value: A list of objects with `role` and `content`; the user speaks last.
        system: What comes before all, if it is not blank.

    Raises:
        RequestError: It is none, or the question is empty.
    """
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise RequestError(FIELD, "they are no list of objects.", "Send role and content of each.")
    messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    for one in value:
        role, content = one.get("role"), one.get("content")
        if role not in _ROLES or not isinstance(content, str):
            raise RequestError(
                FIELD, "one is no text of system, user or assistant.", "Send text only."
            )
        messages.append({"role": role, "content": content})
    if not all(is_unicode(message["content"]) for message in messages):
        raise RequestError(FIELD, "they are not UTF-8 text.", "Write them as UTF-8.")
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise RequestError(FIELD, "the question is empty.", "Write one.")
    return messages


def fitting_prompt(
    tokenizer: Any, messages: Sequence[Message], context: int | None, max_new_tokens: int
) -> Prompt:
    """Render a conversation, without its oldest turns where it is longer than the model reads.

    The system message stays, and so does the last question. A quarter of the context is kept for
    the reply, or as much as that may take.

    Args:
        tokenizer: With a chat template.
        messages: Role and content; the user speaks last.
        context: Tokens that the model reads; None if it sets no limit.
        max_new_tokens: Longest reply.

    Raises:
        RequestError: The last question alone fills the context, or the template refuses it.
    """
    encoder = ChatEncoder(tokenizer, _WHOLE_CONTEXT, train_on="replies")
    text, tokens = encoder.prompt(messages)
    if context is None:
        return Prompt(text, tokens, 0, max_new_tokens)
    most = context - min(max_new_tokens, max(1, context // _REPLY_SHARE))
    dropped = 0
    if len(tokens) > most:
        kept, dropped = _without_oldest(encoder, messages, most)
        if dropped:
            text, tokens = encoder.prompt(kept)
    room = min(max_new_tokens, context - len(tokens))
    if room < 1:
        asked = [one for one in messages if one["role"] != "system"][-1:]
        raise _too_long(len(tokens), len(encoder.prompt(asked)[1]), context)
    return Prompt(text, tokens, dropped, room)


def _too_long(num_tokens: int, num_asked: int, context: int) -> RequestError:
    """Of a system message and the last question, the larger is to be shortened."""
    is_system = num_tokens - num_asked > num_asked
    most_of_it = ", most of it the system prompt," if is_system else ""
    return RequestError(
        FIELD,
        f"the conversation is {num_tokens:,} tokens long{most_of_it} and the model reads "
        f"{context:,}.",
        "Shorten the system prompt." if is_system else "Clear it, or ask something shorter.",
    )


def _without_oldest(
    encoder: ChatEncoder, messages: Sequence[Message], most: int
) -> tuple[list[Message], int]:
    """As few exchanges less as make it fit, or all but the last one."""
    first = next((at for at, one in enumerate(messages) if one["role"] != "system"), 0)
    system, turns = list(messages[:first]), list(messages[first:])
    # Where a conversation may begin: at a question, as every template expects.
    begins = [0, *(at for at in range(1, len(turns)) if turns[at]["role"] == "user")]
    found = bisect_left(
        range(len(begins) - 1),
        True,
        key=lambda number: len(encoder.prompt([*system, *turns[begins[number] :]])[1]) <= most,
    )
    return [*system, *turns[begins[found] :]], begins[found]
