"""A tree of replies as one chat: the path along the replies that were ranked best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.data.columns import BRANCHES
from engine.data.items import Turn
from engine.data.messages import is_message, turn_of
from engine.data.row_notes import RowNote


def is_tree(row: Mapping[str, Any]) -> bool:
    """Whether a row is a message with a list of replies, each of the same kind."""
    return is_message(row) and any(isinstance(row.get(key), list) for key in BRANCHES)


def best_path(root: Mapping[str, Any], noticed: set[RowNote]) -> list[Turn]:
    """The turns from the root along the best replies, up to the last one of the assistant.

    At each step the reply of the lowest rank is taken, the first where there are no ranks.

    Raises:
        RowError: A message on the path cannot be read.
    """
    path: list[Turn] = []
    node: Mapping[str, Any] | None = root
    while node is not None:
        path.append(turn_of({key: node[key] for key in node if key not in BRANCHES}, noticed))
        node = _best(node)
    last = max((n for n, turn in enumerate(path) if turn.role == "assistant"), default=len(path))
    return path[: last + 1]


def _best(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    branches = next((node[key] for key in BRANCHES if isinstance(node.get(key), list)), [])
    replies = [reply for reply in branches if is_message(reply) and not reply.get("deleted")]
    return min(replies, key=_rank, default=None)


def _rank(reply: Mapping[str, Any]) -> float:
    rank = reply.get("rank")
    return rank if isinstance(rank, int | float) and not math.isnan(rank) else math.inf
