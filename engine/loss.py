"""The loss: nats over the tokens that are trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.data.batching import IGNORED, Batch
from engine.model_traits import ModelTraits, head_of, hidden_states, traits_of
from engine.score_head import summed_nats


def summed_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the next token, summed over target tokens; a float32 scalar.

    The labels are shifted by one here: position t predicts the label at t + 1. Scores are computed
    for target tokens alone, some words of the vocabulary at a time, wherever the model's head is
    understood; see `engine.model_traits`.
    """
    traits = traits_of(model)
    inputs = _inputs(batch, traits)
    if traits.after_head is None:
        return _loss_of_all_scores(model(**inputs, use_cache=False).logits, batch.labels)
    hidden = hidden_states(model, **inputs)
    labels = functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORED).flatten()
    places = (labels != IGNORED).nonzero().squeeze(1)
    head = head_of(model, traits.after_head)
    return summed_nats(head, hidden.flatten(0, 1), labels[places], places)


@torch.no_grad()
def losses_of_rows(model: nn.Module, batch: Batch) -> list[float]:
    """The same of each row alone, in nats: their sum is the loss of the batch."""
    traits = traits_of(model)
    inputs = _inputs(batch, traits)
    if traits.after_head is None:
        scores = model(**inputs, use_cache=False).logits
        rows = zip(scores.split(1), batch.labels.split(1), strict=True)
        return [float(_loss_of_all_scores(*row)) for row in rows]
    hidden = hidden_states(model, **inputs)
    head = head_of(model, traits.after_head)
    losses: list[float] = []
    for row, labels in zip(hidden, batch.labels[:, 1:], strict=True):
        places = (labels != IGNORED).nonzero().squeeze(1)
        found = summed_nats(head, row, labels[places], places) if len(places) else 0.0
        losses.append(float(found))
    return losses


def _inputs(batch: Batch, traits: ModelTraits) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": None}
    if batch.position_ids is not None:
        inputs["position_ids"] = batch.position_ids
    elif traits.needs_mask:
        inputs["attention_mask"] = batch.attention_mask
    return inputs


def _loss_of_all_scores(scores: Tensor, labels: Tensor) -> Tensor:
    """The same from what the model itself makes. `scores`: (conversations, tokens, vocabulary)."""
    return functional.cross_entropy(
        scores[:, :-1].flatten(0, 1).float(),
        labels[:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )
