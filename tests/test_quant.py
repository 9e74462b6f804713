"""Codes, scales, packing, products and random numbers: right at the edges and on average."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.memory.layout import Dense, Int4, Int8, Layout, SquareRoot
from engine.quant.int8 import HEADROOM, LIMIT, scales_of
from engine.quant.int8_product import input_gradient_int8, int8_hardware, product_int8
from engine.quant.packing import pack, unpack
from engine.quant.randomness import RandomKey, add_uniform
from engine.quant.rounding import round_up_to_bfloat16, stochastic_bfloat16
from engine.storage.allocate import allocate, quantized

CPU = torch.device("cpu")
KEY = RandomKey(seed=3, step=5, tensor=7)
LAYOUTS = [
    Int8("row", "bfloat16"),
    Int8(32, "bfloat16"),
    Int8(32, "float32"),
    Int8("row", "float32"),
]
MOMENTS: list[Layout] = [
    Int8(256, "float32"),
    Int4(128),
    SquareRoot(8, 256),
    SquareRoot(4, 128),
    Dense("float32"),
]


def every(storage: Any) -> slice:
    return slice(0, storage.num_rows)


def random_matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Like real weights: each row of its own size, a few large ones."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator) * 0.02
    return values * torch.logspace(-3, 1, rows).unsqueeze(1)


def spread(storage: Any) -> Tensor:
    """The scale of every element."""
    scales = storage.tensors()["scales"].float()
    return scales.repeat_interleave(storage.num_columns // scales.shape[1], dim=1)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("shape", [(64, 96), (5, 1), (3, 100), (1, 32), (2, 3, 64), (7,)], ids=str)
def test_a_stored_weight_is_within_half_a_scale(layout: Int8, shape: tuple[int, ...]) -> None:
    values = random_matrix(math.prod(shape[:-1]), shape[-1])
    storage = quantized(layout, values.view(shape), CPU)
    groups = layout.groups_per_row(shape[-1])
    assert groups == (shape[-1] // 32 if layout.group == 32 and shape[-1] % 32 == 0 else 1)
    assert storage.tensors()["codes"].shape == values.shape
    assert storage.tensors()["scales"].shape == (values.shape[0], groups)
    error = (storage.read(every(storage)) - values).abs()
    assert bool((error <= spread(storage) / 2 * (1 + 1e-5)).all())


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


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([1, 4, 8]),
    rows=st.integers(1, 9),
    columns=st.integers(1, 33),
    seed=st.integers(0, 2**31),
)
def test_packing_is_a_round_trip(bits: int, rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, columns), dtype=torch.uint8, generator=generator)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, math.ceil(columns * bits / 8))
    assert torch.equal(unpack(packed, columns, bits), codes)


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(MOMENTS),
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    column=st.sampled_from([1, 31, 128, 255, 256, 512]),
)
def test_a_moment_of_any_shape_is_zero_at_first_and_keeps_what_is_written(
    layout: Layout, shape: list[int], column: int
) -> None:
    storage = allocate(layout, (*shape, column), CPU)
    matrix = storage.read(every(storage))
    assert matrix.shape == (math.prod(shape), column)
    assert matrix.dtype == torch.float32
    assert int(matrix.count_nonzero()) == 0
    values = random_matrix(*matrix.shape).abs()
    storage.write(every(storage), values.clone())
    found = storage.read(every(storage))
    largest = values.amax(dim=1, keepdim=True)
    share = 0.251 if isinstance(layout, Int4) else 0.15
    assert bool((found - values).abs().le(largest * share + 1e-9).all())


@pytest.mark.parametrize("layout", [Int4(128), SquareRoot(8, 256), SquareRoot(4, 128)], ids=str)
def test_a_coarse_moment_is_right_on_average(layout: Any) -> None:
    """A second moment by its root, which is what AdamW divides by."""
    generator = torch.Generator().manual_seed(5)
    values = torch.rand(1, 512, generator=generator) * 0.8 + 0.2
    values[:, ::128] = 1.0  # the largest of each group, which its scale keeps exact
    signed = isinstance(layout, Int4)
    exact = (values * (torch.arange(512) % 2 * 2 - 1) if signed else values).double()
    storage = allocate(layout, (4096, 512), CPU)
    written = (values if not signed else exact.float()).expand(4096, 512).clone()
    storage.write(every(storage), written if signed else written.square(), KEY)
    found = storage.read(every(storage)).double()
    found = found if signed else found.sqrt()
    error = found.std(dim=0) / math.sqrt(4096)
    apart = (found.mean(dim=0) - exact[0]).abs()
    # Four bits are rounded by 16 random bits.
    assert bool((apart < 5 * error + (1e-5 if signed else 1e-6)).all())
    assert abs(float((found - exact).mean())) < 4 * float(found.std(dim=0).max()) / 1448
    gap = 0.501 if signed else 1.001  # the largest two of the signed levels are half and all
    assert float((found - exact).abs().max()) < gap * float(spread(storage).max())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("key", [KEY, None], ids=["stochastic", "nearest"])
def test_no_second_moment_that_was_written_is_zero(bits: Any, key: RandomKey | None) -> None:
    """AdamW divides by it: a zero beside a large one would throw the weight away."""
    values = torch.zeros(64, 256)
    values[:, 7] = 1.0
    storage = allocate(SquareRoot(bits, 128), (64, 256), CPU)
    storage.write(every(storage), values, key)
    found = storage.read(every(storage))
    assert float(found.min()) > 0
    # Where a whole group is zero, as a token's that was never seen, next to nothing is stored.
    assert float(found[:, 128:].sqrt().max()) < 1e-11
    assert float(found[:, :128].sqrt().min()) == pytest.approx(1 / (2**bits - 1), rel=1e-5)


@pytest.mark.parametrize("layout", MOMENTS, ids=str)
def test_a_moment_decays_to_zero(layout: Layout) -> None:
    """Slowly: the step of a bfloat16 scale would be coarser than the decay of one step."""
    storage = allocate(layout, (2, 256), CPU)
    start = random_matrix(2, 256).abs()
    storage.write(every(storage), start.clone())
    stochastic = not isinstance(layout, Int8 | Dense)
    for step in range(700):
        key = RandomKey(0, step, 0) if stochastic else None
        storage.write(every(storage), 0.99 * storage.read(every(storage)), key)
    found, expected = storage.read(every(storage)), start.amax(dim=1) * 0.99**700
    assert torch.allclose(found.amax(dim=1), expected, rtol=0.35 if layout == Int4(128) else 0.02)
    for step in range(4000):
        key = RandomKey(1, step, 0) if stochastic else None
        storage.write(every(storage), 0.9 * storage.read(every(storage)), key)
    assert float(storage.read(every(storage)).abs().max()) < 1e-9


@pytest.mark.parametrize("layout", MOMENTS, ids=str)
def test_a_moment_that_is_no_number_stays_none(layout: Layout) -> None:
    storage = allocate(layout, (3, 256), CPU)
    values = torch.ones(3, 256)
    values[1, 5] = math.nan
    storage.write(every(storage), values, KEY)
    found = storage.read(every(storage))
    assert bool(found[1].isnan().any())
    assert not bool(found[[0, 2]].isnan().any())


@pytest.mark.parametrize("shape", [(5, 64, 32), (1, 96, 48), (300, 17, 64)], ids=str)
def test_products_of_eight_bit_numbers_are_close_to_float(shape: tuple[int, int, int]) -> None:
    tokens, outputs, inputs = shape
    generator = torch.Generator().manual_seed(6)
    weight = quantized(Int8("row", "bfloat16"), random_matrix(outputs, inputs), CPU)
    codes, scales = weight.tensors()["codes"], weight.tensors()["scales"]
    matrix = weight.read(every(weight))
    activations = torch.randn(tokens, inputs, generator=generator)
    slopes = torch.randn(tokens, outputs, generator=generator)
    for found, exact in (
        (product_int8(activations, codes, scales), activations @ matrix.T),
        (input_gradient_int8(slopes, codes, scales), slopes @ matrix),
    ):
        assert found.dtype == torch.float32
        # Half a step of up to 1/127 in every activation, of random sign.
        assert float((found - exact).norm() / exact.norm()) < 0.02
    half = product_int8(activations.bfloat16(), codes, scales)
    assert half.dtype == torch.bfloat16


def test_products_of_whole_numbers_are_exact() -> None:
    """Activations up to 127 are their own codes."""
    generator = torch.Generator().manual_seed(7)
    codes = torch.randint(-127, 128, (40, 64), generator=generator, dtype=torch.int8)
    scales = torch.ones(40, 1, dtype=torch.bfloat16)
    whole = torch.randint(-127, 128, (30, 64), generator=generator).float()
    whole[:, 0] = 127
    assert torch.equal(product_int8(whole, codes, scales), whole @ codes.float().T)
    slopes = torch.randint(-127, 128, (30, 40), generator=generator).float()
    slopes[:, 3] = -127
    assert torch.equal(input_gradient_int8(slopes, codes, scales), slopes @ codes.float())
    assert torch.equal(product_int8(torch.zeros(3, 64), codes, scales), torch.zeros(3, 40))
    assert isinstance(int8_hardware(CPU), bool)


def test_an_activation_that_is_no_number_spoils_its_product() -> None:
    codes = torch.ones(4, 8, dtype=torch.int8)
    scales = torch.ones(4, 1, dtype=torch.bfloat16)
    for bad in (math.nan, math.inf):
        inputs = torch.ones(3, 8)
        inputs[1, 2] = bad
        found = product_int8(inputs, codes, scales)
        assert not bool(torch.isfinite(found[1]).any())
        assert bool(torch.isfinite(found[[0, 2]]).all())


@pytest.mark.parametrize("value", [1.0 + 2**-9, -3.1415926, 1e-20, -7e30])
def test_bfloat16_is_right_on_average(value: float) -> None:
    found = stochastic_bfloat16(torch.full((1000, 1024), value), KEY).double()
    exact = float(torch.tensor(value, dtype=torch.float32))
    assert found.unique().numel() == 2
    error = float(found.std()) / math.sqrt(found.numel())
    assert abs(float(found.mean()) - exact) < 4 * error


def test_bfloat16_keeps_what_it_can_hold() -> None:
    held = torch.tensor([[0.0, -0.0, 1.0, -2.5, 2.0**-120, math.inf, -math.inf]])
    for step in range(50):
        rounded = stochastic_bfloat16(held.clone(), RandomKey(0, step, 0))
        assert torch.equal(rounded.float(), held)
    every_bit = torch.tensor([2**31 - 1, -1], dtype=torch.int32).view(torch.float32)
    numbers = torch.cat([torch.tensor([math.nan]), every_bit]).unsqueeze(0)
    assert bool(stochastic_bfloat16(numbers, KEY).isnan().all())


def numbers_of(key: RandomKey, rows: int = 100, columns: int = 100) -> Tensor:
    """What is added to zeros: uniform in [0, 1)."""
    return add_uniform(torch.zeros(rows, columns), key).flatten()


def test_the_same_key_gives_the_same_numbers() -> None:
    assert torch.equal(numbers_of(KEY), numbers_of(RandomKey(seed=3, step=5, tensor=7)))


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
    one, two = numbers_of(KEY), numbers_of(other)
    assert float((one == two).float().mean()) < 0.01
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 4 / math.sqrt(10_000)


def test_numbers_fill_the_unit_interval_evenly() -> None:
    numbers = numbers_of(KEY, 1000, 1000).double()
    assert 0 <= float(numbers.min()) < 2e-5
    assert 1 - 2e-5 < float(numbers.max()) < 1.00001
    counts = torch.histc(numbers, bins=100, min=0, max=1)
    chi_square = float(((counts - 10_000) ** 2 / 10_000).sum())
    assert 50 < chi_square < 160  # 99 degrees of freedom


def test_neighbours_are_independent() -> None:
    """In a row, in a column, and next to one another in a packed byte."""
    numbers = numbers_of(KEY, 1000, 1000).view(1000, 1000).double() - 0.5
    for one, two in (
        (numbers[:, 1:], numbers[:, :-1]),
        (numbers[1:], numbers[:-1]),
        (numbers[:, 4:], numbers[:, :-4]),
        (numbers[1:].square(), numbers[:-1].square()),
    ):
        pair = torch.stack([one.flatten(), two.flatten()])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / 1000
