"""One message as a turn: who speaks under whatever name, what is said, and the calls of tools."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from engine.data.cells import is_missing, opened, text_of
from engine.data.items import Role, ToolCall, Turn
from engine.data.records import RowError

_SPOKEN: dict[Role, str] = {
    "system": "system developer systemprompt systemmessage",
    "user": "user human prompter person customer client question you student usermessage",
    "assistant": "assistant gpt bot model chatgpt bing bard claude gemini ai llm agent chatbot "
    "answer aiassistant gpt4 gpt35 llama assistantmessage",
    "tool": "tool function observation ipython environment functionresponse functionresult "
    "toolresponse toolresult toolresults functionoutput tooloutput",
}
_ROLES: dict[str, Role] = {name: role for role, names in _SPOKEN.items() for name in names.split()}
# Turns that are nothing but a call, as ShareGPT writes them.
_CALLS = frozenset({"functioncall", "toolcall", "toolcalls", "functioncalls"})

_MOST_NAMES = 100
_WHO = ("role", "from", "speaker", "author", "sender")
_WHAT = ("content", "value", "text", "message")
_THOUGHTS = ("reasoningcontent", "reasoning", "thinking")


@dataclass(frozen=True, slots=True)
class _Keys:
    """Which key of a message is what; None where it has none."""

    who: str | None
    what: str | None
    weight: str | None
    calls: str | None
    call: str | None
    thoughts: str | None
    plain: bool  # nothing but who and what


def turn_of(entry: Any) -> Turn:
    """One message as a turn.

    Raises:
        RowError: It has no known role, or what it says is no text.
    """
    if not isinstance(entry, dict):
        raise RowError("a message is no object")
    who, said = entry.get("role"), entry.get("content")
    if len(entry) == 2 and type(who) is str and type(said) is str and who in _ROLES:
        return Turn(_ROLES[who], text_of(said, "a message"))
    keys = _keys(tuple(entry))
    said = entry[keys.what] if keys.what is not None else None
    role = _ROLES.get(who) if type(who := entry.get(keys.who)) is str else None
    if keys.plain and role is not None and type(said) is str:
        return Turn(role, text_of(said, "a message"))
    return _whole_turn(entry, keys, said)


def is_message(entry: Any) -> bool:
    """Whether an object looks like a message: it says who speaks, and what or which call."""
    if not isinstance(entry, dict) or len(entry) > _MOST_NAMES:
        return False
    keys = _keys(tuple(entry))
    return keys.who is not None and (keys.what or keys.calls or keys.call) is not None


def turns_in(value: Any, role: Role, name: str) -> list[Turn]:
    """What a cell holds as turns: a list of messages, or one text.

    Args:
        value: The cell.
        role: Who says it, where it is one text.
        name: What the cell is called in a refusal.

    Raises:
        RowError: It is neither.
    """
    entries = opened(value)
    if isinstance(entries, dict) and is_message(entries):
        entries = [entries]
    if isinstance(entries, list) and entries and is_message(entries[0]):
        return [turn_of(entry) for entry in entries]
    return [Turn(role, text_of(value, name))]


def folded(name: str) -> str:
    """A name without case, spaces, underscores and hyphens."""
    return name.strip().lower().replace("_", "").replace(" ", "").replace("-", "")


def _keys(names: tuple[str, ...]) -> _Keys:
    if len(names) > _MOST_NAMES:
        raise RowError(f"a message has more than {_MOST_NAMES} parts")
    return _known_keys(names)


@lru_cache(maxsize=1024)
def _known_keys(names: tuple[str, ...]) -> _Keys:
    by_folded = {folded(str(name)): name for name in reversed(names)}

    def first(*wanted: str) -> str | None:
        return next((by_folded[name] for name in wanted if name in by_folded), None)

    who, what = first(*_WHO), first(*_WHAT)
    rest = (first("weight"), first("toolcalls"), first("functioncall"), first(*_THOUGHTS))
    return _Keys(who, what, *rest, plain=who is not None and not any(rest))


def _whole_turn(entry: dict[str, Any], keys: _Keys, said: Any) -> Turn:
    name = _speaker(entry, keys)
    if folded(name) in _CALLS:
        return Turn("assistant", "", tool_calls=_calls(opened(said)))
    role = _ROLES.get(folded(name))
    if role is None:
        raise RowError(f"a message has the unknown role {name[:40]!r}")
    content, thoughts = _content(said)
    if role != "assistant":
        return Turn(role, content)
    if keys.thoughts is not None:
        thoughts = text_of(entry[keys.thoughts], "a thought")
    calls = (
        *(_calls(opened(entry[keys.calls])) if keys.calls is not None else ()),
        *(_calls(opened(entry[keys.call])) if keys.call is not None else ()),
    )
    weight = entry[keys.weight] if keys.weight is not None else None
    trained = weight is None or weight not in (0, "0", "0.0")
    return Turn(role, content, trained, calls, thoughts)


def _speaker(entry: dict[str, Any], keys: _Keys) -> str:
    name = entry[keys.who] if keys.who is not None else None
    if isinstance(name, dict):  # an author with a role of its own
        name = name.get("role")
    if not isinstance(name, str) or not name.strip():
        raise RowError("a message has no role")
    return name


def _content(said: Any) -> tuple[str, str]:
    """What is said and what is thought: text, or a list of parts as in OpenAI's format."""
    if isinstance(said, dict) and isinstance(said.get("parts"), list):
        said = said["parts"]
    if not isinstance(said, list):
        return text_of(said, "a message"), ""
    spoken: list[str] = []
    thoughts: list[str] = []
    for part in said:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind in ("text", "input_text", "output_text"):
            words = part.get("text") if isinstance(part, dict) else part
            spoken.append(text_of(words, "a message"))
        elif kind in ("thinking", "reasoning") and isinstance(part, dict):
            thoughts.append(text_of(part.get(kind) or part.get("text"), "a thought"))
        else:
            raise RowError(f"a message holds a part of the kind {str(kind)[:40]!r}, no text")
    return "\n".join(filter(None, spoken)), "\n".join(filter(None, thoughts))


def _calls(calls: Any) -> tuple[ToolCall, ...]:
    if is_missing(calls):
        return ()
    return tuple(_call(call) for call in (calls if isinstance(calls, list) else [calls]))


def _call(call: Any) -> ToolCall:
    call = opened(call)
    inner = opened(call.get("function")) if isinstance(call, dict) else None
    if isinstance(inner, dict):
        call = inner
    name = call.get("name") if isinstance(call, dict) else None
    if name is None and isinstance(inner, str):  # {"function": "add", "arguments": ...}
        name = inner
    if not isinstance(name, str) or not name.strip():
        raise RowError("a tool call has no name")
    given = next((call[key] for key in ("arguments", "parameters", "args") if key in call), None)
    return ToolCall(text_of(name, "the name of a tool call"), _arguments(given))


def _arguments(given: Any) -> str:
    """The arguments as JSON text."""
    if is_missing(given):
        return "{}"
    if isinstance(given, str):
        try:
            json.loads(given, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise RowError("the arguments of a tool call are no JSON") from None
        return text_of(given, "a tool call")
    try:
        written = json.dumps(given, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise RowError("the arguments of a tool call are no JSON") from None
    return text_of(written, "a tool call")


def _refuse_constant(name: str) -> float:
    raise ValueError(name)
