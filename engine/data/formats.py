"""What a row holds: OpenAI messages, ShareGPT turns, or an instruction with its output."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["messages", "sharegpt", "instruction"]
Role = Literal["system", "user", "assistant"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
}


class RowError(ValueError):
    """Why one row cannot be learned from, in words that follow its line number."""


@dataclass(frozen=True)
class Turn:
    """One message of a chat."""

    role: Role
    content: str

    def as_message(self) -> dict[str, str]:
        """The form that chat templates take."""
        return {"role": self.role, "content": self.content}


Chat = tuple[Turn, ...]


def detect_format(row: Mapping[str, Any]) -> Format | None:
    """The format of a row by its keys and the shape of its turns; None if it is none of ours."""
    for key in ("messages", "conversations", "conversation"):
        turns = row.get(key)
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            if "role" in turns[0]:
                return "messages"
            if "from" in turns[0]:
                return "sharegpt"
    if "instruction" in row and "output" in row:
        return "instruction"
    return None


def to_chat(row: Mapping[str, Any], format: Format) -> Chat:
    """One row as a chat that has at least one reply.

    Raises:
        RowError: Something needed is missing, empty or of the wrong kind.
    """
    if format == "instruction":
        chat = _from_instruction(row)
    else:
        names = ("role", "content") if format == "messages" else ("from", "value")
        chat = tuple(_turn(entry, *names) for entry in _turns(row))
    _check_order(chat)
    return chat


def _from_instruction(row: Mapping[str, Any]) -> Chat:
    instruction = _text(row, "instruction").strip()
    extra = row.get("input")
    if isinstance(extra, str) and extra.strip():
        instruction = f"{instruction}\n\n{_text(row, 'input').strip()}".strip()
    system = row.get("system")
    spoken = isinstance(system, str) and system.strip()
    first = (Turn("system", _text(row, "system")),) if spoken else ()
    return (*first, Turn("user", instruction), Turn("assistant", _text(row, "output")))


def _turns(row: Mapping[str, Any]) -> Sequence[Any]:
    for key in ("messages", "conversations", "conversation"):
        turns = row.get(key)
        if isinstance(turns, list):
            return turns
    raise RowError("it has no list of messages")


def _turn(entry: Any, role_key: str, text_key: str) -> Turn:
    if not isinstance(entry, dict):
        raise RowError("a message is no object")
    role = entry.get(role_key)
    if not isinstance(role, str):
        raise RowError("a message has no role")
    if role.strip().lower() not in _ROLES:
        raise RowError(f"a message has the unknown role {role[:40]!r}")
    return Turn(_ROLES[role.strip().lower()], _text(entry, text_key))


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        raise RowError(f"{key} is missing")
    if not isinstance(value, str):
        raise RowError(f"{key} is no text")
    if not is_unicode(value):
        raise RowError(f"{key} holds half of a character")
    return value


def is_unicode(text: str) -> bool:
    """False with half of a surrogate pair, as JSON can say it; no tokenizer takes that."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_order(chat: Chat) -> None:
    spoken = [turn for turn in chat if turn.role != "system"]
    if not spoken:
        raise RowError("it has no messages")
    if any(turn.role == "system" for turn in chat[1:]):
        raise RowError("a system message stands after the first place")
    if spoken[0].role != "user":
        raise RowError("it does not begin with the user")
    for before, after in itertools.pairwise(spoken):
        if before.role == after.role:
            raise RowError(f"two {after.role} messages follow each other")
    replies = [turn for turn in spoken if turn.role == "assistant"]
    if not replies:
        raise RowError("it has no reply to learn from")
    if any(not turn.content.strip() for turn in replies):
        raise RowError("a reply is empty")
