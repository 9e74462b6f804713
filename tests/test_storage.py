"""Stored weights: an update is right on average however small, and nothing else changes."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from engine.memory.layout import Dense, Int8, Layout
from engine.quant.randomness import RandomKey
from engine.storage.allocate import allocate, quantized
from engine.storage.protocol import Change, WeightStorage

CPU = torch.device("cpu")
KEY = RandomKey(seed=3, step=5, tensor=7)
STEP = 2.0**-10
STOCHASTIC: dict[str, Layout] = {
    "row": Int8("row", "bfloat16"),
    "groups": Int8(32, "bfloat16"),
    "float32_scales": Int8("row", "float32"),
    "residual1": Int8("row", "bfloat16", residual_bits=1),
    "residual4": Int8("row", "bfloat16", residual_bits=4),
    "residual8": Int8(32, "bfloat16", residual_bits=8),
    "outliers": Int8("row", "bfloat16", outlier_percent=1.0),
    "outliers_residual4": Int8(32, "bfloat16", residual_bits=4, outlier_percent=1.0),
    "bfloat16": Dense("bfloat16"),
}
FINE = {"residual1": 2, "residual4": 16, "residual8": 256, "outliers_residual4": 16}
ROWS, COLUMNS = 1024, 1024


def every(storage: Any) -> slice:
    return slice(0, storage.num_rows)


def weights(layout: Layout, shape: tuple[int, ...]) -> WeightStorage:
    return cast(WeightStorage, allocate(layout, shape, CPU))


def at_code(name: str, code: int, rows: int = ROWS, columns: int = COLUMNS) -> WeightStorage:
    """Every weight at one code of the step 2**-10; with outliers, those are 128 steps large."""
    layout = STOCHASTIC[name]
    storage = weights(layout, (rows, columns))
    parts = storage.tensors()
    if isinstance(layout, Dense):
        parts["values"].fill_(code * STEP)
        return storage
    if isinstance(layout, Int8) and layout.outlier_percent:
        matrix = torch.full((rows, columns), code * STEP)
        count = layout.num_outliers((rows, columns))
        matrix.view(-1)[torch.linspace(0, matrix.numel() - 1, count).long()] = 128 * STEP
        storage = quantized(layout, matrix, CPU)
        parts = storage.tensors()
        parts["codes"].masked_fill_(parts["codes"] != 0, code)
    else:
        parts["codes"].fill_(code)
    parts["scales"].fill_(STEP)
    if "residual" in parts:
        parts["residual"].fill_(0x77)
    return storage


def change(
    storage: WeightStorage, size: float, key: RandomKey | None = KEY, *, signs: bool = False
) -> Change:
    """Add `size` to every weight by a direction and a rate, as an update does.

    With `signs` as Lion does without weight decay, else by directions of any length.
    """
    length = 1.0 if signs else 1.25
    direction = torch.full((storage.num_rows, storage.num_columns), -math.copysign(length, size))
    return storage.add(every(storage), direction, -abs(size) / length, key, signs=signs)


@pytest.mark.parametrize("size", [1e-1, -1e-1, 1e-2, -1e-2, 1e-4, -1e-4])
@pytest.mark.parametrize("code", [-126, -100, 0, 100, 126])
@pytest.mark.parametrize(
    ("name", "signs"),
    [(name, False) for name in STOCHASTIC if name != "bfloat16"]
    + [("row", True), ("groups", True), ("outliers", True), ("residual1", True)],
)
def test_a_change_under_one_step_is_right_on_average(
    name: str, signs: bool, code: int, size: float
) -> None:
    storage = at_code(name, code)
    scales = storage.tensors()["scales"].clone()
    before = storage.read(every(storage)).double()
    fine = FINE.get(name, 1)
    change(storage, size * STEP / fine, signs=signs)
    moved = (storage.read(every(storage)).double() - before) * fine / STEP
    inner = before.abs() < 127.5 * STEP  # not the outliers, which are exact
    share = abs(size) * (1 - abs(size))
    error = math.sqrt(share / int(inner.sum()))
    assert int(inner.sum()) > 990_000
    assert abs(float(moved[inner].mean()) - size) < 4 * error + 1e-7
    assert torch.equal(storage.tensors()["scales"], scales)
    if not bool(inner.all()):
        # A float32 of 128 steps is known to its 24 bits.
        assert torch.allclose(moved[~inner], torch.tensor(size).double(), atol=128 * fine * 2**-23)


@pytest.mark.parametrize("size", [1e-1, -1e-1, 1e-2, -1e-2, 1e-4, -1e-4])
@pytest.mark.parametrize("value", [-1.5, -1.0, 0.0, 1.0, 3.0])
def test_a_change_of_a_bfloat16_is_right_on_average(value: float, size: float) -> None:
    """One step from 1.0 is 2**-7 away from zero, half of it towards zero."""
    storage = at_code("bfloat16", 0)
    storage.tensors()["values"].fill_(value)
    change(storage, size * 2.0**-7)
    moved = (storage.read(every(storage)).double() - value) * 2**7
    error = float(moved.std()) / math.sqrt(moved.numel())
    assert abs(float(moved.mean()) - size) < 4 * error + 3e-5  # 16 random bits of a float32
    if value == 0:
        assert float(moved.std()) < 0.01 * abs(size), "near zero a bfloat16 is fine"


@pytest.mark.parametrize("size", [1e-5, 1e-6])
@pytest.mark.parametrize(
    ("name", "signs"),
    [("row", False), ("row", True), ("residual1", True), ("residual4", False), ("outliers", False)],
)
def test_a_tiny_change_keeps_its_size_beside_a_large_code(
    name: str, signs: bool, size: float
) -> None:
    """Added to 100 before rounding, 1e-6 steps would become 3.9e-6 in float32."""
    storage, fine, rounds = at_code(name, 100, 4096), FINE.get(name, 1), 16
    before = storage.read(every(storage))
    inner = before < 127.5 * STEP
    for chunk in range(rounds):
        change(storage, size * STEP / fine, KEY.of(chunk=chunk), signs=signs)
    moved = storage.read(every(storage)).sub_(before).mul_(inner)
    draws = int(inner.sum()) * rounds
    assert draws > 2**26 * 0.98
    mean = float(moved.double().sum()) * fine / STEP / draws
    assert abs(mean - size) < 4 * math.sqrt(size / draws)


@pytest.mark.parametrize("size", [0.5, -0.5, 0.01])
@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("name", ["row", "groups", "outliers", "residual1"])
def test_a_code_at_the_limit_goes_over_it_on_average(name: str, signs: bool, size: float) -> None:
    storage = at_code(name, round(math.copysign(127, size)))
    before = storage.read(every(storage)).double()
    grown = change(storage, size * STEP, signs=signs).groups
    assert int(grown) > 0
    moved = ((storage.read(every(storage)).double() - before) / STEP)[before.abs() < 127.5 * STEP]
    # What a row rounds anew hangs together, so rows are the draws.
    error = max(float(moved.std()) / math.sqrt(moved.numel()), 1e-5)
    assert abs(float(moved.mean()) - size) < 4 * error
    assert int(storage.tensors()["codes"].abs().max()) <= 127


@pytest.mark.parametrize("size", [2.5, -2.5, 40.1, -40.1])
@pytest.mark.parametrize(
    "name", ["row", "groups", "float32_scales", "residual1", "residual4", "residual8"]
)
def test_a_group_that_must_grow_stays_right_on_average(name: str, size: float) -> None:
    sign = math.copysign(1, size)
    storage = at_code(name, round(sign * 126))
    storage.tensors()["codes"][:, 1::2] = round(sign * 50)  # half of a group is far from the limit
    before = storage.read(every(storage)).double()
    grown = change(storage, size * STEP).groups
    assert int(grown) == storage.tensors()["scales"].numel()
    assert bool((storage.tensors()["scales"].float() > STEP).all())
    moved = (storage.read(every(storage)).double() - before) / STEP
    for part in (moved[:, ::2], moved[:, 1::2]):
        error = float(part.std()) / math.sqrt(part.numel())
        assert abs(float(part.mean()) - size) < 4 * error + 1e-6
    assert int(storage.tensors()["codes"].abs().max()) <= 127


@pytest.mark.parametrize("name", ["row", "residual8"])
def test_only_groups_that_overflow_grow(name: str) -> None:
    storage = at_code(name, 0, rows=4, columns=8)
    storage.tensors()["codes"][2] = 127
    scales = storage.tensors()["scales"].clone()
    direction = torch.zeros(4, 8)
    direction[2] = 5.0
    found = storage.add(every(storage), direction, STEP, KEY)
    after = storage.tensors()["scales"]
    assert int(found.groups) == 1
    assert bool((after[2] > scales[2]).all())
    assert torch.equal(after[[0, 1, 3]], scales[[0, 1, 3]])
    assert int(storage.tensors()["codes"][[0, 1, 3]].count_nonzero()) == 0


@pytest.mark.parametrize(
    ("bits", "fine", "rounding"),
    [
        (1, 2, "stochastic"),
        (4, 16, "stochastic"),
        (8, 256, "stochastic"),
        (4, 16, "nearest"),
        (8, 256, "nearest"),
    ],
)
def test_a_master_weight_follows_float32(bits: Any, fine: int, rounding: str) -> None:
    """Equal updates of a third of a fine step: exact on average, and by 8 bits of their own."""
    layout = Int8("row", "bfloat16", residual_bits=bits)
    generator = torch.Generator().manual_seed(1)
    storage = quantized(layout, torch.randn(64, 512, generator=generator) * 0.02, CPU)
    step = storage.tensors()["scales"].float() / fine
    master = storage.read(every(storage))
    for number in range(300):
        size = 0.3 if rounding == "stochastic" else 0.6
        sign = 1 if number % 3 else -1
        direction = (sign * size * step).expand(64, 512).clone()
        key = RandomKey(0, number, 0) if rounding == "stochastic" else None
        storage.add(every(storage), direction, 1.0, key)
        master += sign * size * step
    apart = (storage.read(every(storage)) - master) / step
    if rounding == "stochastic":
        # A random walk of 300 roundings, each with variance 0.3 * 0.7.
        assert float(apart.square().mean().sqrt()) == pytest.approx(math.sqrt(63), rel=0.05)
        assert abs(float(apart.mean())) < 5 * math.sqrt(63 / apart.numel())
    else:  # each 0.6 became 1, a hundred times more often up than down
        assert float(apart.median()) == pytest.approx(40, abs=0.01)
        assert float((apart - 40).abs().max()) < 0.6  # half a step where a group grew


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_passes_see_the_codes_alone(bits: Any) -> None:
    layout = Int8(32, "bfloat16", residual_bits=bits)
    values = torch.randn(16, 64, generator=torch.Generator().manual_seed(2))
    storage = quantized(layout, values, CPU)
    scales = storage.tensors()["scales"].float().repeat_interleave(32, dim=1)
    seen = storage.dequantized(every(storage), torch.float32)
    assert torch.equal(seen, storage.tensors()["codes"].float() * scales)
    fine = 2**bits
    assert float(((storage.read(every(storage)) - values) / scales).abs().max()) < 0.501 / fine
    assert float(((seen - values) / scales).abs().max()) < 0.51 + 0.5 / fine


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_changes_are_counted_and_versions_told(name: str) -> None:
    storage = at_code(name, 5, rows=64, columns=128)
    before = storage.version, storage.tensors().get("codes", torch.zeros(1)).clone()
    found = change(storage, 0.4 * STEP)
    assert storage.version != before[0]
    codes = storage.tensors().get("codes", torch.zeros(1))
    assert int(found.codes) == int((codes != before[1]).sum())
    assert int(found.groups) == 0
    coarse = ("row", "groups", "float32_scales", "outliers", "residual1")
    assert (int(found.codes) > 0) == (name in coarse)


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_rows_outside_the_slice_stay_and_what_was_read_is_a_copy(name: str) -> None:
    layout = STOCHASTIC[name]
    matrix = torch.randn(6, 65_536 // 2, generator=torch.Generator().manual_seed(3))
    storage = weights(layout, (6, 32_768))
    if isinstance(layout, Int8):
        storage = quantized(layout, matrix, CPU)
    before = storage.read(every(storage))
    storage.add(slice(2, 4), torch.ones(2, 32_768), 0.1, KEY)
    after = storage.read(every(storage))
    assert torch.equal(after[[0, 1, 4, 5]], before[[0, 1, 4, 5]])
    assert float((after[2:4] - before[2:4]).mean()) == pytest.approx(0.1, rel=0.01)
    storage.read(every(storage)).zero_()
    assert torch.equal(storage.read(every(storage)), after)
    assert torch.equal(storage.read(slice(2, 4)), after[2:4])


def test_without_a_key_all_is_rounded_to_nearest() -> None:
    half = torch.full((2, 4), 1.0)
    storage = weights(Dense("bfloat16"), (2, 4))
    storage.write(every(storage), torch.ones(2, 4))
    storage.add(every(storage), half.clone(), 1e-3, None)
    assert torch.equal(storage.read(every(storage)), torch.ones(2, 4))
    exact = weights(Dense("float32"), (2, 4))
    exact.add(every(exact), half, 1e-3, KEY)
    assert torch.equal(exact.read(every(exact)), torch.full((2, 4), 1e-3))
    for name in ("row", "groups", "float32_scales"):
        codes = at_code(name, 100, rows=4, columns=32)
        codes.tensors()["codes"][:, 0] = 127  # so that the scale stays
        for _ in range(10):
            direction = torch.ones(4, 32)
            direction[:, 0] = 0.0
            codes.add(every(codes), direction, 0.49 * STEP, None)
        assert set(codes.tensors()["codes"].flatten().tolist()) == {100, 127}


@pytest.mark.parametrize("name", list(STOCHASTIC))
@pytest.mark.parametrize("key", [KEY, None], ids=["stochastic", "nearest"])
def test_zero_rows_stay_zero_and_can_move(name: str, key: RandomKey | None) -> None:
    layout = STOCHASTIC[name]
    storage = weights(layout, (3, 128))
    if isinstance(layout, Int8):
        storage = quantized(layout, torch.zeros(3, 128), CPU)
    assert torch.equal(storage.dequantized(every(storage), torch.float32), torch.zeros(3, 128))
    # A residual has no value of zero, but of a quarter of the smallest step.
    assert float(storage.read(every(storage)).abs().max()) < 1e-12
    change(storage, 0.01, key)
    assert torch.allclose(storage.read(every(storage)), torch.tensor(0.01), rtol=0.02)


@pytest.mark.parametrize("name", list(STOCHASTIC))
def test_what_is_no_number_is_seen_by_whoever_sums_the_gradient(name: str) -> None:
    """A code cannot be NaN: the method judges gradients before, or refuses the step after.

    What is written or rounded to nearest stays NaN by its scale.
    """
    layout = STOCHASTIC[name]
    values = torch.randn(4, 128, generator=torch.Generator().manual_seed(4))
    values[2, 3] = math.nan
    storage = weights(layout, (4, 128))
    storage.write(every(storage), values.clone())
    found = storage.read(every(storage))
    assert bool(found[2].isnan().any())
    assert not bool(found[[0, 1, 3]].isnan().any())


def test_rows_draw_by_the_chunk_they_are_in() -> None:
    """A chunk's key is its first row, so a tensor cut in another way draws other numbers.

    What a resume relies on: plan and device alone decide the chunk size, never a setting.
    """

    def codes(*chunks: slice) -> Tensor:
        storage = at_code("row", 0, 8, 64)
        for rows in chunks:
            direction = torch.ones(rows.stop - rows.start, 64)
            storage.add(rows, direction, 0.5 * STEP, KEY.of(chunk=rows.start))
        return storage.tensors()["codes"]

    halves = codes(slice(0, 4), slice(4, 8))
    assert torch.equal(halves, codes(slice(4, 8), slice(0, 4)))  # the order does not matter
    assert torch.equal(halves[:4], codes(slice(0, 8))[:4])
    assert not torch.equal(halves[4:], codes(slice(0, 8))[4:])
    assert not torch.equal(halves[:4], halves[4:])
