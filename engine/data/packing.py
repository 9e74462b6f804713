"""Which examples share a row, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Rows that are still looked at. What fits nowhere among these begins a new one, so that the work
# grows with the number of examples and not with its square.
_OPEN_ROWS = 1024
_STREAM = 1 << 32  # apart from the shuffles of passes, which are numbered from 0


def pack(lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """First fit: each example, in a shuffled order, goes into the first row with room for it.

    First fit uses at most 1.7 times the rows that the best packing would ("Worst-case performance
    bounds for simple one-dimensional packing algorithms", Johnson et al., 1974); on chats, whose
    lengths differ, nearly all of a row is filled. The rows are the same in every pass.

    Args:
        lengths: Of the examples, in tokens, none above `capacity`.
        capacity: Tokens in a row.
        seed: Decides the shuffle.

    Returns:
        Indices of the examples in each row.
    """
    order = np.random.Generator(np.random.PCG64([seed, _STREAM])).permutation(len(lengths))
    rows: list[list[int]] = []
    room = np.zeros(len(lengths), dtype=np.int64)
    for index in order.tolist():
        assert 0 < lengths[index] <= capacity
        first = max(0, len(rows) - _OPEN_ROWS)
        fits = np.flatnonzero(room[first : len(rows)] >= lengths[index])
        row = first + int(fits[0]) if len(fits) else len(rows)
        if row == len(rows):
            rows.append([])
            room[row] = capacity
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows
