"""Random numbers without state: the same key gives the same numbers, so a resume is exact.

Philox is a counter-based generator: "Parallel Random Numbers: As Easy as 1, 2, 3" (Salmon et al.,
SC 2011).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class RandomKey:
    """Which numbers: fixed by the run's seed, the step, the tensor and what they are for."""

    seed: int
    step: int
    tensor: int
    stream: int = 0
    chunk: int = 0

    def of(self, *, stream: int | None = None, chunk: int | None = None) -> RandomKey:
        """The same key for another purpose or another chunk of the tensor."""
        return RandomKey(
            self.seed,
            self.step,
            self.tensor,
            self.stream if stream is None else stream,
            self.chunk if chunk is None else chunk,
        )


def uniform(shape: tuple[int, ...], key: RandomKey, device: torch.device) -> Tensor:
    """Float32 numbers in [0, 1) with 24 random bits, decided by `key` alone.

    The numbers are the same on every CPU; CUDA has a stream of its own.
    """
    result = torch.empty(shape, dtype=torch.float32, device=device)
    if device.type == "cpu":
        _philox(key).random(dtype=np.float32, out=result.numpy())
        return result
    generator = torch.Generator(device).manual_seed(_mixed(key))
    return result.uniform_(generator=generator)


def _philox(key: RandomKey) -> np.random.Generator:
    # The lowest counter word is Philox's own; ours are the ones it never reaches.
    counter = [0, key.chunk, key.step, key.stream]
    return np.random.Generator(
        np.random.Philox(counter=counter, key=[key.seed & _MASK64, key.tensor])
    )


def _mixed(key: RandomKey) -> int:
    return int(_philox(key).integers(0, 1 << 63, dtype=np.int64))
