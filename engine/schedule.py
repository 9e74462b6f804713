"""The learning rate of a step: a pure function, so there is nothing to save and restore."""

from __future__ import annotations

import math

from engine.contract.spec import TrainSpec


def learning_rate(step: int, num_steps: int, train: TrainSpec) -> float:
    """The rate of optimizer step `step`, from 1 to `num_steps`.

    It rises evenly over the warm-up, then stays, falls evenly, or falls along half a cosine.
    """
    assert train.learning_rate is not None
    assert train.warmup_steps is not None
    warmup = min(train.warmup_steps, num_steps - 1)
    if step <= warmup:
        return train.learning_rate * step / (warmup + 1)
    progress = (step - warmup - 1) / max(1, num_steps - warmup)
    if train.schedule == "constant":
        share = 1.0
    elif train.schedule == "linear":
        share = 1.0 - progress
    else:
        share = 0.5 * (1.0 + math.cos(math.pi * progress))
    return train.learning_rate * share
