"""Which chats make which batch: decided by seed and step alone, so a resume needs no state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.data.chat import Example

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """One padded micro-batch. All three have shape (conversations, tokens), dtype int64."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    @property
    def num_target_tokens(self) -> int:
        """Tokens that the loss counts; the first of each row has nothing before it."""
        return int((self.labels[:, 1:] != IGNORED).sum())

    @property
    def num_tokens(self) -> int:
        """Real tokens, without padding."""
        return int(self.attention_mask.sum())

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device)
        )


class BatchOrder:
    """Shuffled passes over the examples, cut into batches; a batch may span two passes.

    Args:
        num_examples: Examples in one pass.
        batch_size: Examples in one batch.
        seed: Decides every shuffle.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        assert num_examples > 0
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._seed = seed

    def batch(self, number: int) -> list[int]:
        """Indices of batch `number`, from 0."""
        first = number * self._batch_size
        return [self._at(position) for position in range(first, first + self._batch_size)]

    def num_batches(self, epochs: float) -> int:
        """Batches in so many passes, at least one."""
        return max(1, math.ceil(self._num_examples * epochs / self._batch_size))

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self._num_examples)
        return int(self._shuffled(epoch)[place])

    def _shuffled(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            self._order = generator.permutation(self._num_examples)
        return self._order


def collate(examples: Sequence[Example], pad_token: int, at_least: int = 0) -> Batch:
    """Pad on the right to the longest example, or to `at_least` tokens if that is more.

    A pad token is never attended to and never trained, even where it equals a real token's id.
    """
    width = max(at_least, *(len(example.tokens) for example in examples))
    shape = (len(examples), width)
    input_ids = torch.full(shape, pad_token, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    for row, example in enumerate(examples):
        length = len(example.tokens)
        tokens = torch.tensor(example.tokens, dtype=torch.int64)
        input_ids[row, :length] = tokens
        attention_mask[row, :length] = 1
        trained = torch.tensor(example.trained, dtype=torch.bool)
        labels[row, :length] = torch.where(trained, tokens, IGNORED)
    return Batch(input_ids, attention_mask, labels)


def in_order(examples: Sequence[Example], batch_size: int, pad_token: int) -> Iterator[Batch]:
    """Every example once, unshuffled: for evaluation."""
    for start in range(0, len(examples), batch_size):
        yield collate(examples[start : start + batch_size], pad_token)
