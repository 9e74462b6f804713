"""Codes, scales and stochastic rounding: right on average, right at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.memory.layout import Dense, Int8, Layout
from engine.quant.int8 import HEADROOM, LIMIT, scales_of
from engine.quant.randomness import RandomKey, uniform
from engine.quant.rounding import round_up_to_bfloat16, stochastic_bfloat16
from engine.quant.storage import DenseStorage, Int8Storage, allocate, quantized

CPU = torch.device("cpu")
KEY = RandomKey(seed=3, step=5, tensor=7)
ALL = slice(None)
ROW = Int8("row", "bfloat16")
LAYOUTS = [ROW, Int8(32, "bfloat16"), Int8(32, "float32"), Int8("row", "float32")]


def random_matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Like real weights: each row of its own size, a few large ones."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator) * 0.02
    return values * torch.logspace(-3, 1, rows).unsqueeze(1)


def constant_storage(code: int, rows: int, columns: int, scale: float = 2**-10) -> Int8Storage:
    return Int8Storage(
        torch.full((rows, columns), code, dtype=torch.int8),
        torch.full((rows, 1), scale, dtype=torch.bfloat16),
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("shape", [(64, 96), (5, 1), (3, 100), (1, 32), (2, 3, 64)], ids=str)
def test_a_stored_weight_is_within_half_a_scale(layout: Int8, shape: tuple[int, ...]) -> None:
    values = random_matrix(math.prod(shape[:-1]), shape[-1])
    storage = quantized(layout, values.view(shape), CPU)
    groups = layout.groups_per_row(shape[-1])
    assert groups == (shape[-1] // 32 if layout.group == 32 and shape[-1] % 32 == 0 else 1)
    assert storage.codes.shape == values.shape
    assert storage.scales.shape == (values.shape[0], groups)
    error = (storage.read(ALL) - values).abs()
    half = storage.scales.float().repeat_interleave(shape[-1] // groups, dim=1) / 2
    assert bool((error <= half * (1 + 1e-5)).all())


@pytest.mark.parametrize("headroom", [1.0, HEADROOM])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_no_value_overflows_its_scale(dtype: torch.dtype, headroom: float) -> None:
    values = random_matrix(4000, 8) * torch.logspace(-6, 20, 4000).unsqueeze(1)
    scales = scales_of(values, 1, dtype, headroom)
    largest = (values / scales.float()).abs().amax(dim=1)
    assert scales.dtype == dtype
    assert float(largest.max()) <= LIMIT / headroom * (1 + 1e-6)


def test_rounding_up_gives_the_smallest_bfloat16_not_below() -> None:
    values = torch.logspace(-30, 30, 50_001)
    values[0] = 1.0  # exact in bfloat16
    rounded = round_up_to_bfloat16(values)
    below = (rounded.view(torch.int16) - 1).view(torch.bfloat16)
    assert bool((rounded.float() >= values).all())
    assert bool((below.float() < values).all())
    assert float(rounded[0]) == 1.0


@pytest.mark.parametrize("change", [1e-1, -1e-1, 1e-2, -1e-2, 1e-4, -1e-4])
@pytest.mark.parametrize("code", [-126, -100, 0, 100, 126])
def test_a_change_under_one_step_is_right_on_average(code: int, change: float) -> None:
    storage = constant_storage(code, rows=1000, columns=1024)
    step = float(storage.scales[0, 0])
    storage.add(ALL, torch.full((1000, 1024), change * step), KEY)
    moved = (storage.codes.double() - code).mean()
    error = math.sqrt(abs(change) * (1 - abs(change)) / storage.codes.numel())
    assert abs(float(moved) - change) < 4 * error
    assert torch.equal(storage.scales, constant_storage(code, 1000, 1).scales)


def test_a_tiny_change_keeps_its_size_beside_a_large_code() -> None:
    """Added to 100 before rounding, 1e-6 steps would become 3.9e-6 in float32."""
    rows, columns, change, total, draws = 2048, 2048, 1e-6, 0.0, 0
    for chunk in range(4):
        storage = constant_storage(100, rows, columns)
        step = float(storage.scales[0, 0])
        storage.add(ALL, torch.full((rows, columns), change * step), KEY.of(chunk=chunk))
        total += float((storage.codes.double() - 100).sum())
        draws += rows * columns
    assert abs(total / draws - change) < 4 * math.sqrt(change / draws)


@pytest.mark.parametrize("change", [1.5, 2.3, 40.1])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_group_that_must_grow_stays_right_on_average(
    dtype: torch.dtype, sign: int, change: float
) -> None:
    storage = constant_storage(sign * 126, rows=2000, columns=512)
    storage = Int8Storage(storage.codes, storage.scales.to(dtype))
    storage.codes[:, 1::2] = sign * 50  # half of each group is nowhere near the limit
    step = float(storage.scales[0, 0])
    before = storage.read(ALL)
    storage.add(ALL, torch.full_like(before, sign * change * step), KEY)
    assert bool((storage.scales.float() > step).all())
    moved = ((storage.read(ALL) - before) / step).double()
    for part in (moved[:, ::2], moved[:, 1::2]):
        error = float(part.std()) / math.sqrt(part.numel())
        assert abs(float(part.mean()) - sign * change) < 4 * error + 1e-6


def test_only_overflowing_groups_grow() -> None:
    storage = constant_storage(0, rows=4, columns=8)
    storage.codes[2] = 126
    before = storage.scales.clone()
    step = float(before[0, 0])
    change = torch.zeros(4, 8)
    change[2] = 5 * step
    storage.add(ALL, change, KEY)
    assert bool(storage.scales[2, 0] > before[2, 0])
    assert torch.equal(storage.scales[[0, 1, 3]], before[[0, 1, 3]])
    assert int(storage.codes[[0, 1, 3]].count_nonzero()) == 0
    assert int(storage.codes.abs().max()) <= LIMIT


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_rounding_to_nearest_loses_a_change_under_half_a_step(layout: Int8) -> None:
    storage = quantized(layout, random_matrix(40, 64), CPU)
    before = storage.codes.clone()
    steps = storage.scales.float().repeat_interleave(64 // storage.scales.shape[1], dim=1)
    for _ in range(10):
        storage.add(ALL, 0.49 * steps, None)
    assert torch.equal(storage.codes, before)
    storage.add(ALL, 0.51 * steps, None)
    assert torch.equal(storage.codes, (before + 1).clamp(max=LIMIT))


def test_zero_rows_stay_zero_and_can_move() -> None:
    storage = quantized(ROW, torch.zeros(3, 8), CPU)
    assert torch.equal(storage.read(ALL), torch.zeros(3, 8))
    storage.add(ALL, torch.full((3, 8), 0.01), KEY)
    assert torch.allclose(storage.read(ALL), torch.full((3, 8), 0.01), rtol=0.02)


def test_rows_outside_the_slice_stay() -> None:
    storage = quantized(ROW, random_matrix(6, 16), CPU)
    before = storage.read(ALL)
    storage.add(slice(2, 4), torch.full((2, 16), 0.1), KEY)
    storage.write(slice(5, 6), torch.full((1, 16), 0.3))
    after = storage.read(ALL)
    assert torch.equal(after[[0, 1, 4]], before[[0, 1, 4]])
    assert bool((after[2:4] > before[2:4]).any())
    assert torch.allclose(after[5], torch.tensor(0.3), rtol=0.01)


@pytest.mark.parametrize("layout", [ROW, Dense("float32"), Dense("bfloat16")], ids=str)
def test_what_was_read_is_a_copy(layout: Layout) -> None:
    storage = allocate(layout, (2, 8), CPU)
    storage.write(ALL, torch.ones(2, 8))
    storage.read(ALL).zero_()
    assert torch.allclose(storage.read(ALL), torch.ones(2, 8), rtol=0.01)


def test_an_eight_bit_moment_decays() -> None:
    moment = allocate(Int8(256, "float32"), (2, 300), CPU)
    start = random_matrix(2, 300)
    moment.write(ALL, start)
    for _ in range(100):
        moment.write(ALL, 0.99 * moment.read(ALL))
    largest = start.abs().amax(dim=1)
    assert torch.allclose(moment.read(ALL).abs().amax(dim=1), largest * 0.99**100, rtol=1e-3)


@pytest.mark.parametrize("value", [1.0 + 2**-9, -3.1415926, 1e-20, -7e30])
def test_bfloat16_is_right_on_average(value: float) -> None:
    storage = DenseStorage(torch.zeros(1000, 1024, dtype=torch.bfloat16))
    storage.add(ALL, torch.full((1000, 1024), value), KEY)
    found = storage.values.double()
    exact = float(torch.tensor(value, dtype=torch.float32))
    assert found.unique().numel() == 2
    error = float(found.std()) / math.sqrt(found.numel())
    assert abs(float(found.mean()) - exact) < 4 * error


def test_bfloat16_keeps_what_it_can_hold() -> None:
    held = torch.tensor([0.0, -0.0, 1.0, -2.5, 2.0**-120, math.inf, -math.inf])
    for random in (torch.zeros(7), torch.full((7,), 1 - 2**-24)):
        assert torch.equal(stochastic_bfloat16(held, random).float(), held)
    every_bit = torch.tensor([2**31 - 1, -1], dtype=torch.int32).view(torch.float32)
    numbers = torch.cat([torch.tensor([math.nan]), every_bit])
    assert bool(stochastic_bfloat16(numbers, torch.full((3,), 0.9)).isnan().all())


def test_dense_storage_without_a_key_rounds_to_nearest() -> None:
    storage = DenseStorage(torch.ones(2, 4, dtype=torch.bfloat16))
    storage.add(ALL, torch.full((2, 4), 1e-3), None)
    assert torch.equal(storage.values, torch.ones(2, 4, dtype=torch.bfloat16))
    exact = allocate(Dense("float32"), (2, 4), CPU)
    exact.add(ALL, torch.full((2, 4), 1e-3), KEY)
    assert torch.equal(exact.read(ALL), torch.full((2, 4), 1e-3))


def test_the_same_key_gives_the_same_numbers() -> None:
    again = RandomKey(seed=3, step=5, tensor=7)
    assert torch.equal(uniform((40, 30), KEY, CPU), uniform((40, 30), again, CPU))
    # The shape only folds them: a prefix is a prefix.
    assert torch.equal(uniform((40, 30), KEY, CPU).flatten(), uniform((1200,), KEY, CPU))
    assert torch.equal(uniform((1200,), KEY, CPU)[:7], uniform((7,), KEY, CPU))


@pytest.mark.parametrize(
    "other",
    [
        RandomKey(4, 5, 7),
        RandomKey(3, 6, 7),
        RandomKey(3, 5, 8),
        RandomKey(5, 3, 7),
        RandomKey(2**63 - 1, 5, 7),
        KEY.of(stream=1),
        KEY.of(chunk=1),
    ],
    ids=["seed", "step", "tensor", "swapped", "largest_seed", "stream", "chunk"],
)
def test_another_key_gives_other_numbers(other: RandomKey) -> None:
    one, two = uniform((10_000,), KEY, CPU), uniform((10_000,), other, CPU)
    assert float((one == two).float().mean()) < 0.01
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 4 / math.sqrt(10_000)


def test_numbers_fill_the_unit_interval_evenly() -> None:
    numbers = uniform((1_000_000,), KEY, CPU).double()
    assert 0 <= float(numbers.min()) < 1e-5
    assert 1 - 1e-5 < float(numbers.max()) < 1
    counts = torch.histc(numbers, bins=100, min=0, max=1)
    chi_square = float(((counts - 10_000) ** 2 / 10_000).sum())
    assert 50 < chi_square < 160  # 99 degrees of freedom
    assert bool((numbers * 2**24 == (numbers * 2**24).floor()).all())


def test_rows_draw_by_the_chunk_they_are_in() -> None:
    """A chunk's key is its first row, so a tensor cut in another way draws other numbers.

    What a resume relies on: plan and device alone decide the chunk size, never a setting.
    """
    change = torch.full((8, 64), 0.5 * 2**-10)

    def codes(*chunks: slice) -> Tensor:
        storage = constant_storage(0, 8, 64)
        for rows in chunks:
            storage.add(rows, change[rows], KEY.of(chunk=rows.start))
        return storage.codes

    halves = codes(slice(0, 4), slice(4, 8))
    assert torch.equal(halves, codes(slice(4, 8), slice(0, 4)))  # the order does not matter
    assert torch.equal(halves[:4], codes(slice(0, 8))[:4])
    assert not torch.equal(halves[4:], codes(slice(0, 8))[4:])
    assert not torch.equal(halves[:4], halves[4:])
