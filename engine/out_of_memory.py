"""Telling a lack of memory from any other failure."""

from __future__ import annotations

import torch

ADVICE = "Lower the batch size or the sequence length, or close other programs."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU or in RAM. torch has no class for the latter."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def what_ran_out(error: BaseException, where: str) -> str:
    """One sentence for a person.

    Args:
        error: For which `is_out_of_memory` holds.
        where: At what it happened, such as `at step 3`.
    """
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"Memory ran out {where}: {first_line}"
