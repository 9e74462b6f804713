"""A conversation of a ChatGPT export as messages: the branch that was shown last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.data.row_notes import RowNote

TREE = "mapping"
# What the model wrote to itself, or was given beside the conversation.
_UNSEEN = frozenset(
    {"thoughts", "reasoning_recap", "user_editable_context", "model_editable_context"}
)


def is_export(row: Mapping[str, Any]) -> bool:
    """Whether a row keeps its messages as nodes that know their parents."""
    nodes = row.get(TREE)
    if not isinstance(nodes, dict) or not nodes:
        return False
    first = next(iter(nodes.values()))
    return isinstance(first, dict) and "message" in first and "parent" in first


def shown_messages(row: Mapping[str, Any], noticed: set[RowNote]) -> list[Any]:
    """The messages from the first to the one that was shown last.

    What was never shown to anyone is left out, and noted if it has words.
    """
    nodes = row[TREE]
    if any(isinstance(one, dict) and len(one.get("children") or ()) > 1 for one in nodes.values()):
        noticed.add(RowNote.BRANCHES)
    path: list[Any] = []
    place, seen = _last(row, nodes), set[str]()
    while isinstance(place, str) and place not in seen and isinstance(nodes.get(place), dict):
        seen.add(place)
        message = nodes[place].get("message")
        if _is_shown(message):
            path.append(message)
        elif _has_words(message):
            noticed.add(RowNote.UNSEEN)
        place = nodes[place].get("parent")
    return path[::-1]


def _last(row: Mapping[str, Any], nodes: Mapping[str, Any]) -> Any:
    current = row.get("current_node")
    if isinstance(current, str) and current in nodes:
        return current
    ends = [
        name for name, one in nodes.items() if isinstance(one, dict) and not one.get("children")
    ]
    return ends[-1] if ends else None


def _is_shown(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("recipient") not in (None, "all"):
        return False
    author, content, about = (message.get(key) for key in ("author", "content", "metadata"))
    role = author.get("role") if isinstance(author, dict) else None
    kind = content.get("content_type") if isinstance(content, dict) else None
    is_hidden = isinstance(about, dict) and about.get("is_visually_hidden_from_conversation")
    if role == "tool" or kind in _UNSEEN or is_hidden:
        return False
    return role != "system" or _has_words(message)


def _has_words(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, dict):
        return False
    parts = content.get("parts")
    return any(parts) if isinstance(parts, list) else True
