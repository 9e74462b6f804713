"""Which rows are kept apart to measure progress: decided by content, never by order or chance."""

from __future__ import annotations

import hashlib
from json.encoder import encode_basestring_ascii as _quoted

import numpy as np

from engine.data.items import Item, Passage, Turn


def content_key(item: Item) -> int:
    """A hash of what is learned from, below 2^64: the same content, the same key."""
    if isinstance(item, Passage):
        parts = [f'"text", {_quoted(item.text)}']
    else:
        parts = [f'["{turn.role}", {_quoted(turn.content)}{_rest(turn)}]' for turn in item]
    canonical = f"[{', '.join(parts)}]"
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:8], "big")


def _rest(turn: Turn) -> str:
    """What most turns do not have."""
    if turn.trained and not (turn.reasoning or turn.tool_calls):
        return ""
    calls = [_quoted(word) for call in turn.tool_calls for word in (call.name, call.arguments)]
    return f", {turn.trained}, {_quoted(turn.reasoning)}, {calls}"


def held_out(keys: np.ndarray, eval_percent: float) -> np.ndarray:
    """Which rows are held out: True for each of them.

    The same content always falls on the same side, so a duplicate is never on both.

    Args:
        keys: Content keys of all usable rows.
        eval_percent: Share of distinct rows to hold out; at least one stays for training.
    """
    distinct = np.unique(keys)
    count = min(round(len(distinct) * eval_percent / 100), len(distinct) - 1)
    if count < 1:
        return np.zeros(len(keys), dtype=bool)
    return keys <= distinct[count - 1]
