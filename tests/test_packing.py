"""Several chats in one row: nothing is lost, little is padding, and none sees another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.contract.errors import RequestError
from engine.contract.spec import TrainSpec
from engine.data.batching import IGNORED, collate, collate_packed
from engine.data.chat import ChatEncoder, Example
from engine.data.packing import pack
from engine.data.training_batches import TrainingBatches
from engine.loss import summed_loss
from engine.model import load_model
from engine.model_traits import keeps_packed_apart
from tests.test_loss import SCALED, WINDOWS, assert_same_gradients, gradients, tiny_model
from tests.tiny import (
    ARCHITECTURES,
    CONTEXT,
    assert_same_state,
    chat_rows,
    chats_of,
    prepared,
    snapshot,
    tiny_spec,
    tiny_tokenizer,
)

# Architectures whose attention in transformers does not look at positions.
ONE_TEXT_A_ROW = {"opt"}


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Every word trained, the first of each chat too."""
    encoder = ChatEncoder(tiny_tokenizer(), 128, "all")
    return [encoder.encode(chat) for chat in chats_of(chat_rows(7))]


def skewed(count: int) -> list[int]:
    """Most are short, a few are long, as chats are."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(count, generator=generator).mul_(0.8).add_(4).exp_()
    return [min(512, max(4, int(length))) for length in wide]


def test_every_example_is_in_one_row_and_no_row_is_too_long() -> None:
    lengths = skewed(3000)
    rows = pack(lengths, 512, seed=1)
    assert sorted(index for row in rows for index in row) == list(range(3000))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert max(filled) <= 512
    assert sum(filled) > 0.97 * 512 * len(rows)
    assert pack(lengths, 512, seed=1) == rows
    assert pack(lengths, 512, seed=2) != rows


def test_the_first_row_with_room_is_taken() -> None:
    lengths, capacity = skewed(60), 600
    shuffled = [row[0] for row in pack([capacity] * 60, capacity, seed=3)]  # one to a row
    assert shuffled != sorted(shuffled)
    by_hand: list[list[int]] = []
    for index in shuffled:
        fitting = (
            row for row in by_hand if sum(lengths[i] for i in row) + lengths[index] <= capacity
        )
        row = next(fitting, None)
        if row is None:
            by_hand.append([index])
        else:
            row.append(index)
    assert pack(lengths, capacity, seed=3) == by_hand


def test_a_packed_batch_holds_what_it_should(examples: list[Example]) -> None:
    rows = [examples[:3], examples[3:4], examples[4:]]
    batch = collate_packed(rows, pad_token=0, at_least=200)
    assert batch.position_ids is not None
    assert batch.input_ids.shape == (3, 200)
    assert batch.num_tokens == sum(len(example.tokens) for example in examples)
    # Of each chat all tokens but the first, which nothing stands before.
    assert batch.num_target_tokens == sum(len(example.tokens) - 1 for example in examples)
    for number, row in enumerate(rows):
        start = 0
        for example in row:
            place = slice(start, start + len(example.tokens))
            assert batch.input_ids[number, place].tolist() == list(example.tokens)
            assert batch.position_ids[number, place].tolist() == list(range(len(example.tokens)))
            expected = list(example.tokens[1:])
            assert batch.labels[number, start + 1 : place.stop].tolist() == expected
            assert start == 0 or int(batch.labels[number, start]) == IGNORED
            start = place.stop
        assert bool((batch.labels[number, start:] == IGNORED).all())
        assert int(batch.attention_mask[number].sum()) == start
        assert batch.position_ids[number].diff().eq(1).sum() == 200 - len(row)
    moved = batch.to(torch.device("cpu"))
    assert moved.position_ids is not None
    assert torch.equal(moved.position_ids, batch.position_ids)


@pytest.mark.parametrize(
    ("architecture", "config"),
    [*((name, {}) for name in [*ARCHITECTURES, *SCALED]), *WINDOWS.items()],
    ids=str,
)
def test_packed_chats_have_the_loss_and_the_gradients_they_have_alone(
    architecture: str, config: dict[str, object], examples: list[Example]
) -> None:
    model = tiny_model(architecture, **config)
    packs = architecture not in ONE_TEXT_A_ROW
    assert keeps_packed_apart(model) == packs
    rows = pack([len(example.tokens) for example in examples], CONTEXT, seed=0)
    assert {len(row) for row in rows} >= {1, 4}
    together = collate_packed([[examples[index] for index in row] for row in rows], pad_token=0)
    packed = summed_loss(model, together)
    alone = torch.stack([summed_loss(model, collate([one], 0)) for one in examples]).sum()
    same = abs(float(packed.detach() - alone.detach())) < 1e-5 * float(alone.detach())
    assert same == packs
    if packs:
        assert_same_gradients(gradients(model, packed), gradients(model, alone), rounding=1e-5)


def test_a_model_that_reads_a_row_as_one_text_is_refused(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_folder("opt"), chats_file, batching="packed")
    with pytest.raises(RequestError, match="as a single chat") as found:
        prepared(spec, tmp_path)
    assert found.value.field == "train.batching"


@pytest.mark.parametrize("method", ["qft", "full"])
def test_a_packed_run_goes_on_as_it_would_have(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path, method: str
) -> None:
    """Batches depend on their number alone, and the same steps end in the same bits."""
    spec = tiny_spec(
        tiny_folder("llama"), chats_file, method, batching="packed", batch_size=2, steps=None,
        epochs=2.0,
    )  # fmt: skip
    one, two = (prepared(spec, tmp_path / name) for name in "ab")
    for step in range(1, one.num_steps + 1):
        one.method.step(one.batches(step), 1e-3, step)
    for step in range(one.num_steps, 0, -1):
        two.batches(step)
    for step in range(1, one.num_steps + 1):
        two.method.step(two.batches(step), 1e-3, step)
    assert_same_state(snapshot(one), snapshot(two))


def test_passes_over_packed_rows_are_counted(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(
        tiny_folder("llama"), chats_file, batching="packed", batch_size=2, steps=None, epochs=3.0
    )
    one = prepared(spec, tmp_path)
    lengths = [len(example.tokens) for example in one.training]
    num_rows = len(pack(lengths, 96, spec.train.seed))
    assert num_rows < 0.7 * len(lengths)
    assert one.num_steps == -(-3 * num_rows // 2)
    begins = [step for step in range(1, one.num_steps + 1) if one.begins_epoch(step)]
    assert begins == [-(-num_rows // 2) + 1, num_rows + 1]
    batches = [one.batches(step)[0] for step in range(1, num_rows + 1)]  # two passes, exactly
    assert sum(batch.num_tokens for batch in batches) == 2 * sum(lengths)
    assert max(batch.input_ids.shape[1] for batch in batches) <= 96
    assert batches[0].input_ids.shape[1] == max(b.input_ids.shape[1] for b in batches)


def test_batches_are_cut_from_rows(examples: list[Example]) -> None:
    train = TrainSpec(batching="packed", batch_size=2, seed=4)
    batches = TrainingBatches(examples, train, 0, most_tokens=128)
    rows = pack([len(example.tokens) for example in examples], 128, 4)
    assert len(rows) == 4, "two batches are one pass"
    seen: Counter[tuple[int, ...]] = Counter()
    for batch in (batches.batch(0), batches.batch(1)):
        assert batch.position_ids is not None
        for row in range(2):
            starts = (batch.position_ids[row] == 0).nonzero().flatten().tolist()
            stops = [*starts[1:], int(batch.attention_mask[row].sum())]
            for start, stop in zip(starts, stops, strict=True):
                seen[tuple(batch.input_ids[row, start:stop].tolist())] += 1
    assert seen == Counter(example.tokens for example in examples)


def test_the_starter_learns_from_packed_chats(chats_file: Path, tmp_path: Path) -> None:
    spec = tiny_spec(Path("starter"), chats_file, "full", batching="packed", batch_size=2)
    one = prepared(spec, tmp_path)
    assert keeps_packed_apart(load_model(one.loaded.folder).model)
    batch = one.batches(1)
    losses = [one.method.step(batch, 1e-3, step).loss_nats for step in range(1, 5)]
    assert losses[-1] < 0.8 * losses[0]
