"""What a batch holds, in which order batches come, and which rows are kept apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.data.batching import IGNORED, BatchOrder, collate, in_order
from engine.data.chat import ChatEncoder, Example
from engine.data.formats import Chat, Turn, to_chat
from engine.data.split import split_chats
from engine.loss import summed_loss
from engine.model import load_model
from tests.tiny import VOCABULARY, chat_rows, tiny_tokenizer


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    encoder = ChatEncoder(tiny_tokenizer(), 128, "replies")
    return [encoder.encode(to_chat(row, "messages")) for row in chat_rows(12)]


class Oracle(nn.Module):
    """Is sure of the token that stands `ahead` places further on."""

    def __init__(self, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        guess = input_ids.roll(-self.ahead, dims=1)
        return SimpleNamespace(logits=100.0 * nn.functional.one_hot(guess, VOCABULARY))


class Clueless(nn.Module):
    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, VOCABULARY))


def test_labels_are_of_the_next_token(examples: list[Example]) -> None:
    batch = collate(examples, pad_token=0)
    assert float(summed_loss(Oracle(ahead=1), batch)) < 1e-3
    for ahead in (0, 2):
        assert float(summed_loss(Oracle(ahead), batch)) > 50 * batch.num_target_tokens
    expected = batch.num_target_tokens * math.log(VOCABULARY)
    assert float(summed_loss(Clueless(), batch)) == pytest.approx(expected, rel=1e-5)


def test_the_count_is_that_of_the_trained_tokens(examples: list[Example]) -> None:
    batch = collate(examples, pad_token=0)
    assert batch.num_target_tokens == sum(example.num_trained for example in examples)
    assert batch.num_tokens == sum(len(example.tokens) for example in examples)
    first_only = collate([Example((5, 6), (True, False))], 0)
    assert first_only.num_target_tokens == 0, "nothing stands before the first token"


@pytest.mark.parametrize("at_least", [0, 200])
def test_padding_is_never_read_and_never_trained(examples: list[Example], at_least: int) -> None:
    """Not even where the pad token is the end of a turn, which is trained."""
    tokenizer = tiny_tokenizer()
    end = tokenizer.eos_token_id
    assert isinstance(end, int)
    batch = collate(examples, end, at_least)
    assert batch.input_ids.shape[1] == max(at_least, *(len(e.tokens) for e in examples))
    for row, example in enumerate(examples):
        length = len(example.tokens)
        assert batch.input_ids[row, :length].tolist() == list(example.tokens)
        assert bool((batch.input_ids[row, length:] == end).all())
        assert bool((batch.labels[row, length:] == IGNORED).all())
        assert batch.attention_mask[row].tolist() == [1] * length + [0] * (
            batch.attention_mask.shape[1] - length
        )
        ends = sum(token == end for token in example.tokens)
        trained_ends = int((batch.labels[row] == end).sum())
        assert 1 <= trained_ends < ends  # the user's ends are not learned


def test_company_and_padding_do_not_change_the_loss(
    tiny_folder: Callable[[str], Path], examples: list[Example]
) -> None:
    model = load_model(tiny_folder("llama"), torch.float32).model
    with torch.no_grad():
        alone = sum(float(summed_loss(model, collate([example], 0))) for example in examples)
        together = float(summed_loss(model, collate(examples, 0, at_least=150)))
    assert together == pytest.approx(alone, rel=1e-5)


def test_in_order_gives_every_example_once(examples: list[Example]) -> None:
    batches = list(in_order(examples, 5, 0))
    assert [len(batch.input_ids) for batch in batches] == [5, 5, 2]
    assert sum(batch.num_tokens for batch in batches) == sum(len(e.tokens) for e in examples)


@pytest.mark.parametrize(("count", "size"), [(10, 3), (7, 7), (3, 8), (1, 4), (100, 9)])
def test_every_pass_takes_every_example_once(count: int, size: int) -> None:
    order = BatchOrder(count, size, seed=5)
    stream = [index for number in range(3 * count) for index in order.batch(number)]
    passes = [stream[start : start + count] for start in range(0, 3 * count, count)]
    assert all(sorted(one) == list(range(count)) for one in passes)
    if count > 3:
        assert passes[0] != passes[1] != passes[2]
        assert passes[0] != sorted(passes[0])


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    forward = BatchOrder(50, 8, seed=3)
    batches = [forward.batch(number) for number in range(20)]
    backward = BatchOrder(50, 8, seed=3)
    assert [backward.batch(number) for number in reversed(range(20))] == batches[::-1]
    assert BatchOrder(50, 8, seed=3).batch(13) == batches[13]
    assert BatchOrder(50, 8, seed=4).batch(13) != batches[13]
    assert BatchOrder(50, 8, seed=2**63 - 1).batch(0)


@pytest.mark.parametrize(("epochs", "batches"), [(1, 13), (0.5, 7), (3, 38), (0.001, 1), (0.08, 1)])
def test_passes_are_counted_in_whole_batches(epochs: float, batches: int) -> None:
    assert BatchOrder(100, 8, seed=0).num_batches(epochs) == batches


def numbered(count: int) -> list[Chat]:
    return [(Turn("user", f"Question {n}"), Turn("assistant", f"Answer {n}")) for n in range(count)]


def test_the_split_goes_by_content() -> None:
    chats = numbered(200)
    training, evaluation = split_chats(chats, 10)
    assert len(evaluation) == 20
    assert Counter(training + evaluation) == Counter(chats)
    again = split_chats(chats[::-1], 10)
    assert (again[0][::-1], again[1][::-1]) == (training, evaluation)
    assert chats[:20] != evaluation
    positions = [chats.index(one) for one in training]
    assert positions == sorted(positions), "rows keep the order of the file"


def test_more_rows_move_few_across() -> None:
    _, before = split_chats(numbered(200), 10)
    _, after = split_chats(numbered(210), 10)
    assert len(set(before) & set(after)) >= 15


def test_a_duplicate_is_never_on_both_sides() -> None:
    chats = numbered(20) * 5
    training, evaluation = split_chats(chats, 25)
    assert len(evaluation) == 25
    assert not set(training) & set(evaluation)
    assert len(training) == 75


@pytest.mark.parametrize(("count", "percent"), [(1, 50), (2, 50), (3, 0), (2, 1), (3, 100)])
def test_a_row_stays_to_learn_from(count: int, percent: float) -> None:
    training, evaluation = split_chats(numbered(count), percent)
    assert len(training) >= 1
    assert len(training) + len(evaluation) == count
    if percent == 0:
        assert evaluation == []
    assert split_chats(numbered(1) * 9, 50) == (numbered(1) * 9, [])
