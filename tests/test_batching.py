"""What a batch holds, in which order batches come, and which rows are kept apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.contract.spec import TrainSpec
from engine.data.batching import IGNORED, WINDOW, BatchOrder, collate, in_order
from engine.data.chat import ChatEncoder, Example
from engine.data.items import Chat, Turn
from engine.data.split import content_key, held_out
from engine.data.training_batches import TrainingBatches
from engine.loss import summed_loss
from engine.model import load_model
from tests.tiny import VOCABULARY, chat_rows, chats_of, tiny_tokenizer


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    encoder = ChatEncoder(tiny_tokenizer(), 128, "replies")
    return [encoder.encode(chat) for chat in chats_of(chat_rows(12))]


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
    batches = list(in_order(examples, range(len(examples)), 5, 0))
    assert [len(batch.input_ids) for batch in batches] == [5, 5, 2]
    assert sum(batch.num_tokens for batch in batches) == sum(len(e.tokens) for e in examples)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("count", "size"), [(10, 3), (7, 7), (3, 8), (1, 4), (100, 9), (97, 1)])
def test_every_pass_takes_every_example_once(count: int, size: int, grouped: bool) -> None:
    order = BatchOrder(count, size, 5, skewed_lengths(count) if grouped else None)
    stream = [index for number in range(3 * count) for index in order.batch(number)]
    passes = [stream[start : start + count] for start in range(0, 3 * count, count)]
    assert all(sorted(one) == list(range(count)) for one in passes)
    if count > 3 and not (grouped and count == size):  # a single batch has but one order
        assert passes[0] != passes[1] != passes[2]
        assert passes[0] != sorted(passes[0])


@pytest.mark.parametrize("grouped", [False, True])
def test_a_batch_depends_on_seed_and_number_alone(grouped: bool) -> None:
    lengths = skewed_lengths(50) if grouped else None
    forward = BatchOrder(50, 8, 3, lengths)
    batches = [forward.batch(number) for number in range(20)]
    backward = BatchOrder(50, 8, 3, lengths)
    assert [backward.batch(number) for number in reversed(range(20))] == batches[::-1]
    assert BatchOrder(50, 8, 3, lengths).batch(13) == batches[13]
    assert BatchOrder(50, 8, 4, lengths).batch(13) != batches[13]
    assert BatchOrder(50, 8, 2**63 - 1, lengths).batch(0)


def skewed_lengths(count: int) -> list[int]:
    """Most are short, a few are long, as chats are."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, generator=generator).mul_(0.8).add_(4).exp_().int().add(4).tolist()


def padding(order: BatchOrder, lengths: list[int], num_batches: int) -> float:
    """Share of all tokens that is padding."""
    batches = [[lengths[index] for index in order.batch(n)] for n in range(num_batches)]
    return 1 - sum(map(sum, batches)) / sum(len(batch) * max(batch) for batch in batches)


def test_grouping_by_length_leaves_far_less_padding() -> None:
    lengths = skewed_lengths(4003)
    shuffled, grouped = (
        padding(BatchOrder(4003, 8, 0, known), lengths, 1000) for known in (None, lengths)
    )
    assert shuffled > 0.4
    assert grouped < 0.4 * shuffled


def test_neither_long_nor_short_examples_come_first() -> None:
    """Sorted without a shuffle, lengths rise within each window: a loss like a saw."""
    lengths, passes = skewed_lengths(4003), 6
    order = BatchOrder(4003, 8, 0, lengths)
    per_pass, saw = [], []
    for number in range(passes):
        first = number * 500 + number  # whole batches of this pass
        means = [sum(lengths[i] for i in order.batch(first + place)) / 8 for place in range(495)]
        per_pass.append(correlation(list(range(495)), means))
        saw.append(correlation([place % WINDOW for place in range(495)], means))
    # By chance alone 1 / sqrt(495) each, and these are means of six.
    assert abs(sum(per_pass) / passes) < 3 / (495 * passes) ** 0.5
    assert abs(sum(saw) / passes) < 3 / (495 * passes) ** 0.5
    assert max(map(abs, per_pass)) < 4 / 495**0.5


def correlation(one: list[int], other: list[float]) -> float:
    return float(torch.corrcoef(torch.tensor([one, other], dtype=torch.float64))[0, 1])


def test_passes_are_grouped_anew() -> None:
    """No two examples share a batch for good."""
    lengths = skewed_lengths(400)
    order = BatchOrder(400, 8, 0, lengths)
    first, second = (
        {frozenset(order.batch(number)) for number in range(start, start + 50)} for start in (0, 50)
    )
    assert len(first & second) < 10


def test_a_spec_decides_how_batches_are_made(examples: list[Example]) -> None:
    longest = max(len(example.tokens) for example in examples)
    made = {
        batching: TrainingBatches(
            examples, TrainSpec(batching=batching, batch_size=3, grad_accumulation=2), 0, longest
        )
        for batching in ("grouped", "shuffled")
    }
    lengths = [len(example.tokens) for example in examples]
    for batching, batches in made.items():
        order = BatchOrder(12, 3, 0, lengths if batching == "grouped" else None)
        assert batches.widest == longest
        assert batches.num_steps(2.0) == 4
        assert [step for step in range(1, 9) if batches.begins_pass(step)] == [3, 5, 7]
        for number, batch in enumerate(batches.of_step(2)):
            chosen = [examples[index] for index in order.batch(2 + number)]
            assert torch.equal(batch.input_ids, collate(chosen, 0).input_ids)
            assert batch.position_ids is None
        assert batches.of_step(1, at_least=200)[0].input_ids.shape == (3, 200)


@pytest.mark.parametrize(("epochs", "batches"), [(1, 13), (0.5, 7), (3, 38), (0.001, 1), (0.08, 1)])
def test_passes_are_counted_in_whole_batches(epochs: float, batches: int) -> None:
    assert BatchOrder(100, 8, seed=0).num_batches(epochs) == batches


def numbered(count: int) -> list[Chat]:
    return [(Turn("user", f"Question {n}"), Turn("assistant", f"Answer {n}")) for n in range(count)]


def split_chats(chats: list[Chat], percent: float) -> tuple[list[Chat], list[Chat]]:
    """Those that stay, and those that are held out."""
    keys = np.array([content_key(chat) for chat in chats], dtype=np.uint64)
    pairs = list(zip(chats, held_out(keys, percent), strict=True))
    return [one for one, is_out in pairs if not is_out], [one for one, is_out in pairs if is_out]


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
