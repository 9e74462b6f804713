"""The loss of every example on its own, so that two models can be compared example by example."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.data.batching import collate
from engine.data.chat import Example
from engine.data.token_store import lengths_of
from engine.loss import losses_of_rows
from engine.model import LoadedModel
from engine.model_traits import in_evaluation

# So many tokens share a forward pass, padding counted: the memory does not grow with the data.
BATCH_TOKENS = 4096
_MOST_EXAMPLES = 64
_LARGEST_EXPONENT = math.log(np.finfo(np.float64).max)


@dataclass(frozen=True)
class ExampleLosses:
    """What a model makes of some examples, in their order.

    Attributes:
        nats: Of each example, summed over its target tokens; float64.
        num_targets: Target tokens of each example; int64.
    """

    nats: np.ndarray
    num_targets: np.ndarray

    @property
    def num_target_tokens(self) -> int:
        """Of all examples."""
        return int(self.num_targets.sum())

    @property
    def loss_nats(self) -> float:
        """Mean over all target tokens, as training reports it."""
        return float(self.nats.sum()) / self.num_target_tokens

    @property
    def perplexity(self) -> float | None:
        """Exponential of the mean loss; None where it is no finite number."""
        return math.exp(self.loss_nats) if self.loss_nats < _LARGEST_EXPONENT else None

    def as_json(self) -> dict[str, Any]:
        """The numbers that `eval` promises."""
        return {
            "loss_nats": self.loss_nats,
            "perplexity": self.perplexity,
            "num_target_tokens": self.num_target_tokens,
        }


def example_losses(
    loaded: LoadedModel,
    examples: Sequence[Example],
    device: torch.device,
    done: Callable[[int], object],
) -> ExampleLosses:
    """Measure every example; those of like length share a forward pass, the longest first.

    Args:
        loaded: On the device.
        examples: At least one.
        device: Where the model is.
        done: Called with the number of examples after each pass.
    """
    nats = np.zeros(len(examples))
    targets = np.zeros(len(examples), dtype=np.int64)
    with in_evaluation(loaded.model):
        for chosen in _passes(lengths_of(examples)):
            batch = collate([examples[place] for place in chosen], loaded.pad_token)
            nats[chosen] = losses_of_rows(loaded.model, batch.to(device))
            targets[chosen] = batch.num_targets_of_rows
            done(len(chosen))
    return ExampleLosses(nats, targets)


def _passes(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of examples that go through the model together."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    start = 0
    while start < len(order):
        count = max(1, min(_MOST_EXAMPLES, BATCH_TOKENS // lengths[order[start]]))
        yield order[start : start + count]
        start += count
