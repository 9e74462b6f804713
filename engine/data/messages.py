"""One message as a turn: who speaks under whatever name, what is said, and the calls of tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from engine.data.cells import is_missing, opened, text_of
from engine.data.containers.record_file import RowError
from engine.data.items import Role, ToolCall, Turn
from engine.data.mendable import MendableRow
from engine.data.names import folded
from engine.data.row_notes import RowNote
from engine.data.speakers import ROLES, role_of

# Turns that are nothing but a call, as ShareGPT writes them.
_CALLS = frozenset({"functioncall", "toolcall", "toolcalls", "functioncalls"})

_MOST_NAMES = 100
_WHO = ("role", "from", "speaker", "author", "sender")
_WHAT = ("content", "value", "text", "message")
_THOUGHTS = ("reasoningcontent", "reasoning", "thinking")
# Marks of a reply that say false where it is not to be learned.
_FLAGS = ("train", "training", "trainonturn", "loss")
_WORDS = ("text", "input_text", "output_text", "audio_transcription")


@dataclass(frozen=True, slots=True)
class _Keys:
    """Which key of a message is what; None where it has none."""

    who: str | None
    what: str | None
    weight: str | None
    flags: tuple[str, ...]
    calls: str | None
    call: str | None
    thoughts: str | None
    plain: bool  # nothing but who and what


def turn_of(entry: Any, noticed: set[RowNote]) -> Turn:
    """One message as a turn.

    Args:
        entry: An object with a role and a content, under whatever keys.
        noticed: What had to be done is added here.

    Raises:
        RowError: It has no known role, or what it says is no text.
    """
    if not isinstance(entry, dict):
        raise RowError("a message is no object")
    who, said = entry.get("role"), entry.get("content")
    if len(entry) == 2 and type(who) is str and type(said) is str and who in ROLES:
        return Turn(ROLES[who], text_of(said, "a message"))
    keys = _keys(tuple(entry))
    said = entry[keys.what] if keys.what is not None else None
    role = ROLES.get(who) if type(who := entry.get(keys.who)) is str else None
    if keys.plain and role is not None and type(said) is str:
        return Turn(role, text_of(said, "a message"))
    return _whole_turn(entry, keys, said, noticed)


def is_message(entry: Any) -> bool:
    """Whether an object looks like a message: it says who speaks, and what or which call."""
    if not isinstance(entry, dict) or len(entry) > _MOST_NAMES:
        return False
    keys = _keys(tuple(entry))
    return keys.who is not None and (keys.what or keys.calls or keys.call) is not None


def speakers_in(entries: Sequence[Any]) -> list[Any]:
    """Who speaks in each message that says so, under whatever key."""
    keys = [(entry, _keys(tuple(entry)).who) for entry in entries if isinstance(entry, dict)]
    return [entry[who] for entry, who in keys if who is not None]


def turns_in(value: Any, role: Role, name: str, noticed: set[RowNote]) -> list[Turn]:
    """What a cell holds as turns: a list of messages, or one text.

    Args:
        value: The cell.
        role: Who says it, where it is one text.
        name: What the cell is called in a refusal.
        noticed: What had to be done is added here.

    Raises:
        RowError: It is neither.
    """
    entries = opened(value)
    if isinstance(entries, dict) and is_message(entries):
        entries = [entries]
    if isinstance(entries, list) and entries and is_message(entries[0]):
        return [turn_of(entry, noticed) for entry in entries]
    return [Turn(role, text_of(value, name))]


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
    weight, flags = first("weight"), tuple(by_folded[flag] for flag in _FLAGS if flag in by_folded)
    rest = (first("toolcalls"), first("functioncall"), first(*_THOUGHTS))
    plain = who is not None and not any((weight, flags, *rest))
    return _Keys(who, what, weight, flags, *rest, plain=plain)


def _whole_turn(entry: dict[str, Any], keys: _Keys, said: Any, noticed: set[RowNote]) -> Turn:
    who = entry[keys.who] if keys.who is not None else None
    if isinstance(who, str) and folded(who) in _CALLS:
        return Turn("assistant", "", tool_calls=_calls(opened(said)))
    role = role_of(who)
    content, thoughts = _content(said)
    if role != "assistant":
        return Turn(role, content)
    if keys.thoughts is not None:
        thoughts = text_of(entry[keys.thoughts], "a thought")
    calls = (
        *(_calls(opened(entry[keys.calls])) if keys.calls is not None else ()),
        *(_calls(opened(entry[keys.call])) if keys.call is not None else ()),
    )
    return Turn(role, content, _is_trained(entry, keys, noticed), calls, thoughts)


def _is_trained(entry: dict[str, Any], keys: _Keys, noticed: set[RowNote]) -> bool:
    """Whether a reply is to be learned, as its marks and its weight say."""
    weight = _weight(entry[keys.weight]) if keys.weight is not None else 1
    if any(_is_no(entry[flag]) for flag in keys.flags):
        return False
    if weight not in (0, 1):
        noticed.add(RowNote.PARTLY)
    return weight != 0


def _is_no(flag: Any) -> bool:
    """Whether a flag says no. Numbers with a point are measured, such as a loss."""
    if isinstance(flag, str):
        return folded(flag) in ("false", "no", "0")
    return type(flag) in (bool, int) and not flag


def _weight(value: Any) -> float:
    """How much a reply counts: 1 where nothing is said.

    Raises:
        RowError: It is no number that a reply can be weighed with.
    """
    if is_missing(value):
        return 1
    if isinstance(value, str):
        words = {"false": "0", "true": "1"}
        try:
            value = float(words.get(folded(value), value))
        except ValueError:
            raise RowError(f"a reply has the weight {value[:40]!r}, which is no number") from None
    if not isinstance(value, int | float) or value != value:
        raise RowError("a reply has a weight that is no number")
    if value < 0:
        raise MendableRow(
            "a reply has a negative weight",
            "Weights are 0 or 1: a reply can be left out, not undone.",
        )
    return value


def _content(said: Any) -> tuple[str, str]:
    """What is said and what is thought: text, or a list of parts as in OpenAI's format."""
    if isinstance(said, dict):
        if isinstance(said.get("parts"), list):
            said = said["parts"]
        elif isinstance(said.get("text"), str):
            said = said["text"]
    if not isinstance(said, list):
        return text_of(said, "a message"), ""
    spoken: list[str] = []
    thoughts: list[str] = []
    for part in said:
        kind = _kind(part)
        if kind in _WORDS:
            words = part.get("text") if isinstance(part, dict) else part
            spoken.append(text_of(words, "a message"))
        elif kind in ("thinking", "reasoning") and isinstance(part, dict):
            thoughts.append(text_of(part.get(kind) or part.get("text"), "a thought"))
        else:
            raise MendableRow(
                f"a message holds a part of the kind {str(kind)[:40]!r}, no text",
                "Only text is learned here: take these parts out, or the rows that have them.",
            )
    return "\n".join(filter(None, spoken)), "\n".join(filter(None, thoughts))


def _kind(part: Any) -> Any:
    """What a part of a message is, in OpenAI's words or those of a ChatGPT export."""
    if not isinstance(part, dict):
        return "text"
    return part.get("type") or part.get("content_type") or "text"


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
