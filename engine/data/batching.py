"""Which examples make which batch: decided by seed and number alone, so a resume needs no state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.data.chat import Example

IGNORED = -100


# Batches whose examples are sorted together by length.
WINDOW = 32


@dataclass(frozen=True)
class Batch:
    """One padded micro-batch. Everything has shape (rows, tokens), dtype int64.

    Attributes:
        input_ids: Tokens, padded on the right.
        attention_mask: One for a real token, zero for padding.
        labels: The token itself where it is trained, `IGNORED` elsewhere.
        position_ids: Where several conversations share a row: each token's place in its own. None
            where a row holds one conversation.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    position_ids: Tensor | None = None

    @property
    def num_target_tokens(self) -> int:
        """Tokens that the loss counts; the first of each row has nothing before it."""
        return sum(self.num_targets_of_rows)

    @property
    def num_targets_of_rows(self) -> list[int]:
        """The same of each row."""
        return (self.labels[:, 1:] != IGNORED).sum(dim=1).tolist()

    @property
    def num_tokens(self) -> int:
        """Real tokens, without padding."""
        return int(self.attention_mask.sum())

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.labels.to(device),
            None if self.position_ids is None else self.position_ids.to(device),
        )


class BatchOrder:
    """Shuffled passes over the examples, cut into batches; a batch may span two passes.

    Where lengths are given, examples of like length share a batch: each pass is shuffled, sorted
    within windows of `WINDOW` batches, and its batches are shuffled again, so that neither long nor
    short ones come first. The few examples in batches that span two passes are not sorted.

    Args:
        num_examples: Examples in one pass.
        batch_size: Examples in one batch.
        seed: Decides every shuffle.
        lengths: Of the examples, in tokens.
    """

    def __init__(
        self, num_examples: int, batch_size: int, seed: int, lengths: Sequence[int] | None = None
    ) -> None:
        assert num_examples > 0
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._seed = seed
        self._lengths = None if lengths is None else np.asarray(lengths)

    def batch(self, number: int) -> list[int]:
        """Indices of batch `number`, from 0."""
        first = number * self._batch_size
        return [self._at(position) for position in range(first, first + self._batch_size)]

    def num_batches(self, epochs: float) -> int:
        """Batches in so many passes, at least one."""
        return max(1, math.ceil(self._num_examples * epochs / self._batch_size))

    def pass_of(self, number: int) -> int:
        """The pass, from 0, in which batch `number` begins."""
        return number * self._batch_size // self._num_examples

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self._num_examples)
        return int(self._shuffled(epoch)[place])

    def _shuffled(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            order = generator.permutation(self._num_examples)
            self._order = order if self._lengths is None else self._grouped(order, epoch, generator)
        return self._order

    def _grouped(self, order: np.ndarray, epoch: int, generator: np.random.Generator) -> np.ndarray:
        """The same examples, those of like length in one batch."""
        assert self._lengths is not None
        size = self._batch_size
        begin = -epoch * self._num_examples % size  # where this pass's first whole batch begins
        end = begin + max(0, self._num_examples - begin) // size * size
        if end <= begin:
            return order
        batches: list[np.ndarray] = []
        for start in range(begin, end, WINDOW * size):
            window = order[start : min(start + WINDOW * size, end)]
            by_length = window[np.argsort(self._lengths[window], kind="stable")]
            batches.extend(by_length.reshape(-1, size))
        mixed = [batches[place] for place in generator.permutation(len(batches))]
        return np.concatenate([order[:begin], *mixed, order[end:]])


def collate(examples: Sequence[Example], pad_token: int, at_least: int = 0) -> Batch:
    """Pad on the right to the longest example, or to `at_least` tokens if that is more.

    A pad token is never attended to and never trained, even where it equals a real token's id.
    """
    width = max(at_least, *(len(example.tokens) for example in examples))
    batch = _empty_batch(len(examples), width, pad_token)
    for row, example in enumerate(examples):
        _put(batch, row, 0, example)
    return batch


def collate_packed(rows: Sequence[Sequence[Example]], pad_token: int, at_least: int = 0) -> Batch:
    """Several examples in each row, one after the other; positions begin anew with each.

    The first token of an example is not predicted from the example before. Padding counts on from
    the last example, so that a row of a single one looks like any other.
    """
    lengths = [[len(example.tokens) for example in row] for row in rows]
    width = max(at_least, *(sum(row) for row in lengths))
    batch = _empty_batch(len(rows), width, pad_token)
    positions = torch.arange(width).repeat(len(rows), 1)
    for number, row in enumerate(rows):
        start = 0
        for example in row:
            _put(batch, number, start, example)
            if start:
                batch.labels[number, start] = IGNORED
            positions[number, start:] = torch.arange(width - start)
            start += len(example.tokens)
    return replace(batch, position_ids=positions)


def _empty_batch(num_rows: int, width: int, pad_token: int) -> Batch:
    shape = (num_rows, width)
    return Batch(
        torch.full(shape, pad_token, dtype=torch.int64),
        torch.zeros(shape, dtype=torch.int64),
        torch.full(shape, IGNORED, dtype=torch.int64),
    )


def _put(batch: Batch, row: int, start: int, example: Example) -> None:
    """Write an example into a row of a batch, from `start` on."""
    place = slice(start, start + len(example.tokens))
    tokens = torch.tensor(example.tokens, dtype=torch.int64)
    batch.input_ids[row, place] = tokens
    batch.attention_mask[row, place] = 1
    trained = torch.tensor(example.trained, dtype=torch.bool)
    batch.labels[row, place] = torch.where(trained, tokens, IGNORED)


def in_order(
    examples: Sequence[Example], order: Sequence[int], batch_size: int, pad_token: int
) -> Iterator[Batch]:
    """Some examples, each once, in the order given: for evaluation."""
    for start in range(0, len(order), batch_size):
        chosen = [examples[index] for index in order[start : start + batch_size]]
        yield collate(chosen, pad_token)
