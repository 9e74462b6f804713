"""Tokens on disk are those that were written, whatever happens to the writer or the disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from engine.data import token_store
from engine.data.chat import Example
from engine.data.token_store import StoredExamples, StoreWriter, TokenStore, lengths_of, open_store

EXAMPLES = [
    Example((5, 7, 70_000), (False, True, True)),
    Example((1, 2), (True, True)),
    Example(tuple(range(40)), (True,) * 40),
]


def written(place: Path) -> TokenStore:
    writer = StoreWriter(place)
    for number, example in enumerate(EXAMPLES, start=1):
        writer.add(example, 10 * number, 2**64 - number, len(example.tokens) + 1)
    return writer.commit({"of": "tests"})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    for store in (written(tmp_path / "one"), TokenStore(tmp_path / "one")):
        assert [store.example(number) for number in range(len(store))] == EXAMPLES
        assert store.numbers.tolist() == [10, 20, 30]
        assert [int(key) for key in store.keys] == [2**64 - 1, 2**64 - 2, 2**64 - 3]
        assert store.lengths.tolist() == [4, 3, 41]
        assert store.about == {"of": "tests"}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_examples_come_in_the_order_asked_for(tmp_path: Path) -> None:
    store = written(tmp_path / "one")
    some = StoredExamples(store, np.array([2, 0]))
    assert list(some) == [EXAMPLES[2], EXAMPLES[0]]
    assert some[-1] == EXAMPLES[0]
    assert some[:1] == [EXAMPLES[2]]
    assert lengths_of(some) == [40, 3] == lengths_of(list(some))
    with pytest.raises(IndexError):
        some[2]


def test_trained_tokens_are_counted_as_the_loss_counts_them(tmp_path: Path) -> None:
    store = written(tmp_path / "one")
    for numbers in ([0], [1, 2], [0, 1, 2], []):
        expected = sum(sum(EXAMPLES[number].trained[1:]) for number in numbers)
        assert store.num_trained(np.array(numbers, dtype=np.int64)) == expected


def test_a_writer_that_gives_up_leaves_nothing(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "one")
    writer.add(EXAMPLES[0], 1, 1, 3)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_one_store_is_left(tmp_path: Path) -> None:
    slow = StoreWriter(tmp_path / "one")
    slow.add(EXAMPLES[1], 1, 1, 2)
    written(tmp_path / "one")
    assert slow.commit({}).about == {"of": "tests"}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("file", ["tokens.bin", "trained.bin", "index.npz", "about.json"])
def test_a_store_that_is_not_whole_is_made_again(tmp_path: Path, file: str) -> None:
    place = tmp_path / "one"
    written(place)
    (place / file).write_bytes((place / file).read_bytes()[:-3])
    assert open_store(place) is None
    assert not place.exists()
    assert open_store(place) is None
    assert len(written(place)) == 3


def _used(folder: Path, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(folder, (then, then))


def test_stores_not_used_for_longest_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, name in ((300, "old"), (200, "used"), (100, "new")):
        written(tmp_path / name)
        _used(tmp_path / name, age)
    assert open_store(tmp_path / "used") is not None
    size = sum(file.stat().st_size for file in (tmp_path / "new").iterdir())
    monkeypatch.setattr(token_store, "MOST_BYTES", 2 * size + 50)
    left_over = tmp_path / ".new-left"
    left_over.mkdir()
    _used(left_over, 90_000)
    written(tmp_path / "last")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "used"]
