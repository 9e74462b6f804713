"""Which rows are kept apart to measure progress: decided by content, never by order or chance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from engine.data.formats import Chat


def split_chats(chats: Sequence[Chat], eval_percent: float) -> tuple[list[Chat], list[Chat]]:
    """Training rows and held-out rows, each in the order of the file.

    The same content always falls on the same side, so a duplicate is never on both.

    Args:
        chats: All usable rows.
        eval_percent: Share of distinct rows to hold out; at least one row stays for training.
    """
    keys = [_content_hash(chat) for chat in chats]
    distinct = sorted(set(keys))
    count = min(round(len(distinct) * eval_percent / 100), len(distinct) - 1)
    held_out = set(distinct[:count])
    training = [chat for chat, key in zip(chats, keys, strict=True) if key not in held_out]
    evaluation = [chat for chat, key in zip(chats, keys, strict=True) if key in held_out]
    return training, evaluation


def _content_hash(chat: Chat) -> str:
    canonical = json.dumps([[turn.role, turn.content] for turn in chat])
    return hashlib.sha256(canonical.encode()).hexdigest()
