"""What becomes of freed memory: it is returned to the system, where the C library would keep it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MOST_KEPT_BLOCK = 32 << 20  # what glibc itself comes to
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def give_back_freed_memory() -> None:
    """Return what loading freed to the system; glibc would keep it."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@contextmanager
def returning_large_blocks() -> Iterator[None]:
    """Inside, what a large tensor held goes back to the system when the tensor is freed.

    glibc keeps blocks as large as any that was freed before, up to 32 MiB, in case they are needed
    again. While weights of many sizes are laid out one after the other, that can come to more than
    the model. Afterwards it keeps them: while a model answers they are needed again.
    """
    _keep_freed_blocks(up_to=1 << 20)
    try:
        yield
    finally:
        _keep_freed_blocks(up_to=_MOST_KEPT_BLOCK)


def _keep_freed_blocks(up_to: int) -> None:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, up_to)
        set_option(_TRIM_THRESHOLD, 2 * up_to)
