"""The batches that a run trains on, as its spec asks for them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.contract.spec import TrainSpec
from engine.data.batching import Batch, BatchOrder, collate, collate_packed
from engine.data.chat import Example
from engine.data.packing import pack
from engine.data.token_store import lengths_of


class TrainingBatches:
    """Every micro-batch of a run by its number: nothing else decides what is in it.

    Args:
        examples: To train on.
        train: Says how many make a batch, how they are chosen, and the seed.
        pad_token: Fills rows up.
        most_tokens: Tokens that a row may have, no fewer than the longest example.
    """

    def __init__(
        self, examples: Sequence[Example], train: TrainSpec, pad_token: int, most_tokens: int
    ) -> None:
        self._examples = examples
        self._pad_token = pad_token
        self._per_step = train.grad_accumulation
        self._packed = train.batching == "packed"
        lengths = lengths_of(examples)
        self._rows = (
            pack(lengths, most_tokens, train.seed)
            if self._packed
            else [[number] for number in range(len(lengths))]
        )
        # Tokens in the widest row: no batch is wider.
        self.widest = max(sum(lengths[index] for index in row) for row in self._rows)
        grouped = lengths if train.batching == "grouped" else None
        self._order = BatchOrder(len(self._rows), train.batch_size, train.seed, grouped)

    def batch(self, number: int, at_least: int = 0) -> Batch:
        """Micro-batch `number`, from 0, in main memory, at least so many tokens wide."""
        rows = [
            [self._examples[index] for index in self._rows[row]]
            for row in self._order.batch(number)
        ]
        if self._packed:
            return collate_packed(rows, self._pad_token, at_least)
        return collate([example for row in rows for example in row], self._pad_token, at_least)

    def num_steps(self, epochs: float) -> int:
        """Optimizer steps in so many passes."""
        return -(-self._order.num_batches(epochs) // self._per_step)

    def begins_pass(self, step: int) -> bool:
        """Whether step `step`, from 1, is the first that begins within a further pass."""
        before, now = (self._order.pass_of(n * self._per_step) for n in (step - 2, step - 1))
        return step > 1 and now > before

    def of_step(self, step: int, at_least: int = 0) -> list[Batch]:
        """The micro-batches of optimizer step `step`, from 1, in main memory."""
        first = (step - 1) * self._per_step
        return [self.batch(first + number, at_least) for number in range(self._per_step)]
