"""Random numbers without state: the same key gives the same numbers, so a resume is exact.

Philox is a counter-based generator: "Parallel Random Numbers: As Easy as 1, 2, 3" (Salmon et al.,
SC 2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1
_HALF = 1 << 7
# Neighbours in a row that share low bits.
_CLUSTER = 64


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


def add_uniform(values: Tensor, key: RandomKey) -> Tensor:
    """Add to each value a random number, uniform in [0, 1) and decided by `key` alone, in place.

    On a CPU a number has 8 bits of its own, and below them 24 more that at most 64 neighbours in a
    row share: each number by itself is uniform, and neighbours hang together by less than 2^-8.
    That takes an eighth of the generator's work. The numbers are the same on every CPU; CUDA has a
    stream of its own.

    Args:
        values: Float32, shape (rows, ..., columns).
        key: Decides the numbers.
    """
    if values.device.type != "cpu":
        generator = torch.Generator(values.device).manual_seed(_mixed(key))
        return values.add_(torch.empty_like(values).uniform_(generator=generator))
    own, shared = _own_and_shared(values.shape, key)
    clusters = values.view(own.shape)
    # The own bits are signed, so half of their range is part of what neighbours share.
    clusters.add_(shared.div_(2 * _HALF).add_(0.5)).add_(own, alpha=1 / (2 * _HALF))
    return values


def happens(probabilities: Tensor, shape: Sequence[int], key: RandomKey) -> Tensor:
    """Draw events, decided by `key` alone: whether `add_uniform` would come to 1 or more.

    Args:
        probabilities: Float32 in [0, 1), shape (rows, groups, 1).
        shape: Of the result: (rows, groups, columns / groups).
        key: Decides the numbers.

    Returns:
        Bool.
    """
    if probabilities.device.type != "cpu":
        return add_uniform(probabilities.expand(*shape).clone(), key) >= 1
    own, shared = _own_and_shared(shape, key)
    levels = probabilities.mul(2 * _HALF).unsqueeze(-1).add(shared).floor_()
    # Expanded first: torch compares bytes twenty times as fast where nothing is broadcast.
    below = (_HALF - 1 - levels).to(torch.int8).expand_as(own).contiguous()
    return (own > below).view(*shape)


def random_bits(count: int, key: RandomKey, device: torch.device) -> Tensor:
    """Whole random numbers in [0, 65536), int32, decided by `key` alone."""
    if device.type == "cpu":
        raw = _philox(key).random_raw(math.ceil(count / 4)).view(np.int16)[:count]
        return torch.from_numpy(raw).to(torch.int32).add_(1 << 15)
    generator = torch.Generator(device).manual_seed(_mixed(key))
    shape = (count,)
    return torch.randint(1 << 16, shape, generator=generator, dtype=torch.int32, device=device)


def _own_and_shared(shape: Sequence[int], key: RandomKey) -> tuple[Tensor, Tensor]:
    """Random int8 of shape (..., clusters, width), and float32 in [0, 1) of (..., clusters, 1)."""
    columns = shape[-1]
    width = math.gcd(columns, _CLUSTER) if columns % 2 == 0 else columns
    count, num_clusters = math.prod(shape), math.prod(shape) // width
    words = math.ceil(count / 8)
    raw = _philox(key).random_raw(words + math.ceil(num_clusters / 2))
    own = torch.from_numpy(raw[:words].view(np.int8)[:count])
    high = raw[words:].view(np.uint32)[:num_clusters] >> 8
    shared = torch.from_numpy(high.astype(np.float32)).div_(1 << 24)
    clusters = (*shape[:-1], columns // width)
    return own.view(*clusters, width), shared.view(*clusters, 1)


def _philox(key: RandomKey) -> np.random.Philox:
    # The lowest counter word is Philox's own; ours are the ones it never reaches.
    counter = [0, key.chunk, key.step, key.stream]
    return np.random.Philox(counter=counter, key=[key.seed & _MASK64, key.tensor])


def _mixed(key: RandomKey) -> int:
    return int(_philox(key).random_raw(1)[0]) >> 1
