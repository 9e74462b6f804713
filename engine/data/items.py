"""What a row becomes: a chat with its turns, or a passage of plain text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant asks for.

    Attributes:
        name: Of the function.
        arguments: JSON text.
    """

    name: str
    arguments: str

    def as_message_part(self) -> dict[str, Any]:
        """The form that chat templates take, with arguments as an object: none is quoted twice."""
        function = {"name": self.name, "arguments": json.loads(self.arguments)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat.

    Attributes:
        role: Who speaks.
        content: What is said; empty where a tool is called without a word.
        trained: False where the data says that this reply is not to be learned.
        tool_calls: What the assistant asks for.
        reasoning: What the assistant thinks before it speaks, kept apart from what it says.
    """

    role: Role
    content: str
    trained: bool = True
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""

    def as_message(self) -> dict[str, Any]:
        """The form that chat templates take; keys that say nothing are left out."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.as_message_part() for call in self.tool_calls]
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        return message


Chat: TypeAlias = tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Passage:
    """Plain text, to be learned word for word.

    Attributes:
        text: The words.
        is_whole: A text of its own, whose end is learned too, and no stretch of a longer one.
    """

    text: str
    is_whole: bool = False


Item: TypeAlias = Chat | Passage
