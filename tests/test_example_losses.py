"""The losses of examples add up to the loss that training reports, in passes of bounded size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data.batching import collate
from engine.data.chat import ChatEncoder, Example
from engine.evaluate import held_out_loss
from engine.example_losses import BATCH_TOKENS, ExampleLosses, _passes, example_losses
from engine.generate import never
from engine.loss import losses_of_rows, summed_loss
from engine.model import LoadedModel, load_model
from tests.tiny import ARCHITECTURES, chat_rows, chats_of, tiny_model_folder

CPU = torch.device("cpu")


def examples_for(loaded: LoadedModel, count: int = 12) -> list[Example]:
    encoder = ChatEncoder(loaded.tokenizer, 96, "replies")
    return [
        example
        for encoded in encoder.encode_all(chats_of(chat_rows(count)))
        if not isinstance(encoded, Exception)
        for example in encoded.examples
    ]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "opt", "mixtral"])
def test_rows_add_up_to_the_batch(tmp_path: Path, architecture: str) -> None:
    assert architecture in ARCHITECTURES
    loaded = load_model(tiny_model_folder(tmp_path, architecture), torch.float32)
    examples = [*examples_for(loaded, 5), Example((5, 6, 7), (False, False, False))]
    batch = collate(examples, loaded.pad_token)
    found = losses_of_rows(loaded.model, batch)
    with torch.no_grad():
        assert sum(found) == pytest.approx(float(summed_loss(loaded.model, batch)), rel=1e-5)
    assert found[-1] == 0.0
    assert batch.num_targets_of_rows[-1] == 0
    for example, loss in zip(examples[:-1], found, strict=False):
        with torch.no_grad():
            alone = float(summed_loss(loaded.model, collate([example], loaded.pad_token)))
        assert loss == pytest.approx(alone, rel=1e-4)


def test_the_mean_is_the_one_that_training_reports(tmp_path: Path) -> None:
    loaded = load_model(tiny_model_folder(tmp_path), torch.float32)
    examples = examples_for(loaded)
    told: list[int] = []
    found = example_losses(loaded, examples, CPU, told.append)
    reported = held_out_loss(loaded, examples, 4, CPU, never)
    assert reported is not None
    assert found.num_target_tokens == reported[1]
    assert found.loss_nats == pytest.approx(reported[0] / reported[1], rel=1e-5)
    assert found.perplexity == pytest.approx(np.exp(found.loss_nats))
    assert sum(told) == len(examples)
    # In the order of the examples, whatever shares a pass.
    alone = example_losses(loaded, examples[3:4], CPU, told.append)
    assert found.nats[3] == pytest.approx(alone.nats[0], rel=1e-4)
    assert found.num_targets[3] == alone.num_targets[0]


def test_a_perplexity_beyond_numbers_is_none() -> None:
    found = ExampleLosses(np.array([8000.0]), np.array([10]))
    assert found.loss_nats == 800
    assert found.as_json() == {"loss_nats": 800.0, "perplexity": None, "num_target_tokens": 10}


@given(lengths=st.lists(st.integers(1, 3 * BATCH_TOKENS), max_size=80))
def test_every_example_is_in_one_pass_of_bounded_size(lengths: list[int]) -> None:
    passes = list(_passes(lengths))
    assert sorted(place for one in passes for place in one) == list(range(len(lengths)))
    for one in passes:
        widest = max(lengths[place] for place in one)
        assert len(one) == 1 or widest * len(one) <= BATCH_TOKENS
    widths = [max(lengths[place] for place in one) for one in passes]
    assert widths == sorted(widths, reverse=True)  # what does not fit fails at once
