"""Tools and thoughts for a template that knows nothing of them: calls and results become words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]


def fitting_messages(
    messages: Sequence[Message], takes_tool_calls: bool, takes_reasoning: bool
) -> list[Message]:
    """The same messages as far as a template can show them.

    Args:
        messages: In the form of OpenAI.
        takes_tool_calls: Otherwise a call is written into the reply as JSON, and its result
            becomes a turn of the user.
        takes_reasoning: Otherwise thoughts are left out.
    """
    fitting = [dict(message) for message in messages]
    for message in fitting:
        if not takes_reasoning:
            message.pop("reasoning_content", None)
    return fitting if takes_tool_calls else _joined([_in_words(message) for message in fitting])


def _in_words(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"Result: {message['content']}".rstrip()}
    calls = message.pop("tool_calls", ())
    written = [_call(call["function"]) for call in calls]
    words = [message["content"], *written] if message["content"] else written
    return {**message, "content": "\n".join(words)} if calls else message


def _call(function: Message) -> str:
    arguments = function["arguments"]
    shown = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f'{{"name": {json.dumps(function["name"], ensure_ascii=False)}, "arguments": {shown}}}'


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Results of several calls are one turn: many templates want turns to alternate."""
    joined: list[Message] = []
    for message in messages:
        if joined and message["role"] == joined[-1]["role"] == "user":
            both = f"{joined[-1]['content']}\n\n{message['content']}"
            joined[-1] = {**joined[-1], "content": both}
        else:
            joined.append(message)
    return joined
