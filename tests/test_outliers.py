"""The largest weights are apart in float32: exactly those, exactly where they were."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.memory.layout import Int8, block_rows
from engine.quant.randomness import RandomKey
from engine.storage.allocate import quantized
from engine.storage.outliers import OutlierStorage

CPU = torch.device("cpu")
KEY = RandomKey(seed=1, step=2, tensor=3)
# Blocks of many rows, of one row, one row that is larger than 16 bits can count, several blocks.
SHAPES = [(7, 40), (40, 7), (3, 65_536), (5, 40_000), (2, 70_000), (300, 700), (3, 200, 16)]


def every(storage: Any) -> slice:
    return slice(0, storage.num_rows)


def made(
    shape: tuple[int, ...],
    percent: float = 1.0,
    seed: int = 0,
    scale_dtype: Any = "bfloat16",
    **settings: Any,
) -> tuple[OutlierStorage, Tensor]:
    """A storage and the matrix that went in, all of whose magnitudes differ."""
    matrix = distinct(math.prod(shape[:-1]), shape[-1], seed)
    layout = Int8("row", scale_dtype, outlier_percent=percent, **settings)
    storage = quantized(layout, matrix.view(shape), CPU)
    return cast(OutlierStorage, storage), matrix


def distinct(rows: int, columns: int, seed: int) -> Tensor:
    """Magnitudes from 0.001 to 1 in random order, with random signs."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(rows * columns, generator=generator)
    magnitudes = torch.linspace(0.001, 1.0, rows * columns, dtype=torch.float64)[order].float()
    signs = torch.randint(0, 2, (rows * columns,), generator=generator) * 2 - 1
    return (magnitudes * signs).view(rows, columns)


def places(storage: OutlierStorage) -> Tensor:
    """Flat positions of what is apart: where a change of the values alone is seen."""
    parts = storage.tensors()
    kept, before = parts["outlier_values"].clone(), storage.read(every(storage))
    parts["outlier_values"].add_(100.0)
    moved = storage.read(every(storage)) - before
    parts["outlier_values"].copy_(kept)
    return (moved > 50).flatten().nonzero().flatten()


def largest(matrix: Tensor, count: int) -> Tensor:
    return matrix.abs().flatten().topk(count).indices.sort().values


def assert_exactly(storage: OutlierStorage, matrix: Tensor, expected: Tensor) -> None:
    """Apart is what is expected, bitwise; the rest is codes that the outliers do not stretch."""
    assert torch.equal(places(storage), expected)
    found = storage.read(every(storage)).flatten()
    assert torch.equal(found[expected], matrix.flatten()[expected])
    parts = storage.tensors()
    assert int(parts["codes"].flatten()[expected].count_nonzero()) == 0
    rest = matrix.clone()
    rest.view(-1)[expected] = 0.0
    scales = parts["scales"].float()
    assert bool((scales <= 1.05 * 1.01 * rest.abs().amax(dim=1, keepdim=True) / 127 + 1e-11).all())
    apart = (storage.read(every(storage)) - matrix).abs()
    assert bool((apart <= 0.501 * scales).all())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_largest_percent_is_apart_exactly(shape: tuple[int, ...]) -> None:
    storage, matrix = made(shape)
    count = round(matrix.numel() / 100)
    assert storage.tensors()["outlier_values"].numel() == count
    assert_exactly(storage, matrix, largest(matrix, count))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 3000),
    percent=st.floats(0.05, 2.0),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_share(rows: int, columns: int, percent: float, seed: int) -> None:
    count = round(rows * columns * percent / 100)
    storage, matrix = made((rows, columns), percent, seed)
    if count == 0:
        assert "outlier_values" not in storage.tensors()
        return
    assert_exactly(storage, matrix, largest(matrix, count))


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 4),
    columns=st.sampled_from([32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 90_000]),
    where=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=30),
)
def test_positions_at_the_edges_of_sixteen_bits(
    rows: int, columns: int, where: list[float]
) -> None:
    """Wherever they lie within a block or a row."""
    count = round(rows * columns / 100)
    matrix = distinct(rows, columns, 0)
    chosen = torch.tensor([int(share * rows * columns) for share in where]).unique()
    edges = [0, 32_767, 32_768, 65_535, 65_536, columns - 1, rows * columns - 1]
    edges = [place for place in edges if place < rows * columns]
    chosen = torch.cat([chosen, torch.tensor(edges)]).unique()[:count]
    matrix.view(-1)[chosen] = 5 + torch.arange(len(chosen)).float()
    layout = Int8("row", "bfloat16", outlier_percent=1.0)
    storage = cast(OutlierStorage, quantized(layout, matrix, CPU))
    assert_exactly(storage, matrix, largest(matrix, count))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_some_rows_are_those_of_the_whole(shape: tuple[int, ...]) -> None:
    """In chunks of whole blocks, read, seen, changed and written."""
    storage, matrix = made(shape)
    whole = storage.read(every(storage))
    seen = storage.dequantized(every(storage), torch.bfloat16)
    height = storage.row_multiple
    assert height == block_rows(shape[-1])
    target = distinct(*matrix.shape, seed=5)
    for start in range(0, storage.num_rows, height):
        rows = slice(start, min(start + height, storage.num_rows))
        assert torch.equal(storage.read(rows), whole[rows])
        assert torch.equal(storage.dequantized(rows, torch.bfloat16), seen[rows])
        storage.add(rows, torch.ones_like(whole[rows]), 0.25, KEY.of(chunk=start))
    kept, found = places(storage), storage.read(every(storage))
    assert torch.equal(found.flatten()[kept], whole.flatten()[kept] + 0.25)
    step = storage.tensors()["scales"].float()
    assert bool(((found - whole - 0.25).abs() < 2 * step + 1e-6).all())
    for start in range(0, storage.num_rows, height):
        rows = slice(start, min(start + height, storage.num_rows))
        storage.write(rows, target[rows].clone())
    assert torch.equal(places(storage), kept)
    assert torch.equal(storage.read(every(storage)).flatten()[kept], target.flatten()[kept])


@pytest.mark.parametrize("shape", [*SHAPES, (1, 70_001), (131, 1000)], ids=str)
@pytest.mark.parametrize("bits", [0, 4, 8])
@pytest.mark.parametrize("key", [KEY, None], ids=["stochastic", "nearest"])
def test_choosing_anew_moves_membership_and_keeps_values(
    shape: tuple[int, ...], bits: Any, key: RandomKey | None
) -> None:
    storage, matrix = made(shape, residual_bits=bits, scale_dtype="bfloat16" if key else "float32")
    old = places(storage)
    # Half of the outliers shrink to something small; others grow past them.
    shrink = old[::2]
    change = torch.zeros_like(matrix)
    change.view(-1)[shrink] = -0.9 * matrix.flatten()[shrink]
    storage.add(every(storage), change, 1.0, KEY)
    before = storage.read(every(storage))
    storage.choose(key)
    after, new = storage.read(every(storage)), places(storage)
    # Codes may be equally large; which of those is apart does not matter.
    magnitudes = before.abs().flatten()
    assert torch.equal(magnitudes[new].sort().values, magnitudes.topk(len(old)).values.flip(0))
    assert not torch.equal(new, old)
    # Bitwise, whether it was apart already or comes now.
    assert torch.equal(after.flatten()[new], before.flatten()[new])
    assert int(storage.tensors()["codes"].flatten()[new].count_nonzero()) == 0
    # What leaves becomes a code, and what stays in codes stays; a scale may have grown to hold it.
    step = storage.tensors()["scales"].float().expand_as(before)
    assert bool(((after - before).abs() <= 1.001 * step).all())
    stayed = torch.ones(before.numel(), dtype=torch.bool)
    stayed[old], stayed[new] = False, False
    moved = (after - before).flatten()[stayed] / step.flatten()[stayed]
    assert abs(float(moved.mean())) < 5 * 0.5 / math.sqrt(len(moved))
    magnitudes = storage.read(every(storage)).abs().flatten()
    storage.choose(key)
    kept = storage.read(every(storage)).abs().flatten()[places(storage)]
    assert torch.equal(kept.sort().values, magnitudes.topk(len(old)).values.flip(0))


def test_choosing_anew_depends_on_nothing_but_the_key() -> None:
    found = []
    for key in (KEY, KEY, KEY.of(stream=9)):
        storage, matrix = made((300, 700))
        storage.add(every(storage), -0.5 * matrix, 1.0, KEY)
        storage.choose(key)
        found.append({name: part.clone() for name, part in storage.tensors().items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not torch.equal(found[0]["codes"], found[2]["codes"])


def test_a_state_that_is_copied_in_is_read_at_once() -> None:
    """As a resume does: positions of the storage that was there are not remembered."""
    one, two = made((300, 700), seed=1)[0], made((300, 700), seed=2)[0]
    two.read(every(two))
    for name, part in two.tensors().items():
        part.copy_(one.tensors()[name])
    assert torch.equal(two.read(every(two)), one.read(every(one)))
    assert torch.equal(two.read(slice(None)), one.read(every(one)))
