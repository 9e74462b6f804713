"""OpenAI's words: what a request for a chat completion says, and what is answered to it.

https://platform.openai.com/docs/api-reference/chat. What would change an answer and is not there,
such as calling tools or scoring words, is refused in a sentence. Names that are not known are
passed over, since clients of many servers send some that mean nothing here.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.contract.errors import RequestError
from engine.conversation import FIELD, Message, checked_messages
from engine.generate import Reply
from engine.sampling import Sampling, sampling_from

_MOST_STOPS = 4
_LONGEST_STOP = 1_000
_LENGTHS = ("max_completion_tokens", "max_tokens")
# What changes an answer in ways that are not there, and the values that ask for nothing.
_UNAVAILABLE: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "web_search_options": (),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
}


@dataclass(frozen=True)
class Question:
    """One request, checked.

    Attributes:
        messages: The user speaks last.
        sampling: How words are chosen.
        stops: Texts that end a reply and are no part of it.
        is_streamed: Whether the reply is sent while it is written.
        wants_usage: Whether a streamed reply ends with its numbers of tokens.
    """

    messages: list[Message]
    sampling: Sampling
    stops: tuple[str, ...]
    is_streamed: bool
    wants_usage: bool


def question_in(document: Mapping[str, Any], context: int) -> Question:
    """What a request asks.

    Args:
        document: Its body.
        context: Tokens that the model reads: the longest reply where none is named.

    Raises:
        RequestError: It asks for what is not there, or not as it should.
    """
    for name, nothing in _UNAVAILABLE.items():
        value = document.get(name)
        if value is not None and value not in nothing:
            raise RequestError(name, "this server does not do that.", "Leave it out.")
    settings = dict(document)
    lengths = [document[name] for name in _LENGTHS if document.get(name) is not None]
    settings["max_new_tokens"] = lengths[0] if lengths else context
    if settings.get("temperature") is None:
        settings["temperature"] = 1.0
    sampling = sampling_from(settings)
    if document.get("seed") is None:
        sampling = replace(sampling, seed=secrets.randbits(62))
    options = document.get("stream_options")
    return Question(
        checked_messages(_plain(document.get("messages"))),
        sampling,
        _stops(document.get("stop")),
        document.get("stream") is True,
        isinstance(options, Mapping) and options.get("include_usage") is True,
    )


def _plain(messages: Any) -> Any:
    """Texts in parts put together; the newer name of the system's role replaced."""
    if not isinstance(messages, list):
        return messages
    return [_plain_message(one) if isinstance(one, dict) else one for one in messages]


def _plain_message(message: dict[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        if len(parts) < len(content) or any(part.get("type") != "text" for part in parts):
            raise RequestError(FIELD, "a part of one is no text.", "Send text only.")
        content = "".join(str(part.get("text", "")) for part in parts)
    return {"role": "system" if role == "developer" else role, "content": content}


def _stops(value: Any) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value or []
    texts = isinstance(listed, list) and all(isinstance(one, str) and one for one in listed)
    if not texts or len(listed) > _MOST_STOPS or any(len(one) > _LONGEST_STOP for one in listed):
        raise RequestError(
            "stop", "it is not one to four texts.", f"Use up to {_MOST_STOPS} short texts."
        )
    return tuple(listed)


class StopText:
    """Passes text on up to the first stop, and holds back what may be the beginning of one.

    Args:
        stops: None of them is passed on, nor anything after.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def take(self, piece: str) -> str:
        """What may be passed on now."""
        if self.found:
            return ""
        self._held += piece
        places = [at for at in map(self._held.find, self._stops) if at >= 0]
        if places:
            self.found = True
            kept, self._held = self._held[: min(places)], ""
            return kept
        begun = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        kept = self._held[: len(self._held) - begun]
        self._held = self._held[len(kept) :]
        return kept

    def rest(self) -> str:
        """What was held back for nothing."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many of the last letters of a text are the first of a stop."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)


@dataclass(frozen=True)
class Completion:
    """One answer as OpenAI's clients read it.

    Attributes:
        model: The name that is served.
    """

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, reply: Reply) -> dict[str, Any]:
        """The answer to a request that is not streamed."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": None,
            "finish_reason": finish_reason(reply),
        }
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage(reply),
            "dropped_turns": reply.dropped_turns,
        }

    def chunk(self, delta: Mapping[str, str], finish: str | None = None) -> str:
        """A part of a streamed answer, as an event."""
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def usage_chunk(self, reply: Reply) -> str:
        """The numbers of tokens, as an event."""
        head = self._head("chat.completion.chunk")
        return _event({**head, "choices": [], "usage": usage(reply)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


DONE = "data: [DONE]\n\n"


def _event(document: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


def error_event(message: str) -> str:
    """Why a streamed answer ends early, as an event."""
    return _event(error_document(message, "server_error"))


def finish_reason(reply: Reply) -> str:
    """`length` for a reply that was cut, else `stop`."""
    return "length" if reply.stopped == "length" else "stop"


def usage(reply: Reply) -> dict[str, int]:
    """Numbers of tokens."""
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.num_tokens,
        "total_tokens": reply.prompt_tokens + reply.num_tokens,
    }


def error_document(
    message: str, kind: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def model_document(name: str, created: int) -> dict[str, Any]:
    """What is served, in a list of models."""
    return {"id": name, "object": "model", "created": created, "owned_by": "qft-workbench"}
