"""The loss: nats over the tokens that are trained."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from engine.data.batching import IGNORED, Batch


def summed_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the next token, summed over target tokens; a float32 scalar.

    The labels are shifted by one here: position t predicts the label at t + 1.
    """
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    scores = output.logits[:, :-1].flatten(0, 1).float()
    targets = batch.labels[:, 1:].flatten()
    return functional.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum")
