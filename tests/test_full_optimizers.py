"""Full tuning with each optimizer and precision: the library's own step, rounded where asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.optim.adamw import AdamW8bit
from bitsandbytes.optim.lion import Lion
from transformers import AutoModelForCausalLM

from engine.loss import summed_loss
from engine.memory.layout import row_chunks
from engine.memory.plans import MemoryPlan
from engine.preparation import Prepared
from tests.tiny import assert_same_state, prepared, snapshot, tiny_spec

pytestmark = pytest.mark.slow

OPTIMIZERS = ("adamw", "adamw_8bit", "lion", "sgd")
RATES = {"adamw": 1e-3, "adamw_8bit": 1e-3, "lion": 3e-4, "sgd": 0.3}
Ready = Callable[..., Prepared]


@pytest.fixture
def ready(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Ready:
    def ready(optimizer: str, precision: str = "mixed", **train: Any) -> Prepared:
        method = {"kind": "full", "optimizer": optimizer, "precision": precision}
        spec = tiny_spec(tiny_folder("llama"), chats_file, method, **train)
        return prepared(spec, tmp_path)

    return ready


def library_step(name: str, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=RATES[name])
    if name == "lion":
        return Lion(parameters, lr=RATES[name], betas=(0.9, 0.99))
    if name == "adamw_8bit":
        return AdamW8bit(parameters, lr=RATES[name], weight_decay=0.0)
    return torch.optim.AdamW(parameters, lr=RATES[name], weight_decay=0.0, fused=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_are_those_of_the_library_bitwise(ready: Ready, name: str) -> None:
    one = ready(name, max_grad_norm=None)
    twin = AutoModelForCausalLM.from_pretrained(one.loaded.folder, dtype=torch.float32).train()
    optimizer = library_step(name, list(twin.parameters()))
    for step in (1, 2, 3):
        (batch,) = one.batches(step)
        one.method.step([batch], RATES[name], step)
        (summed_loss(twin, batch) / batch.num_target_tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = dict(twin.named_parameters())
    for weight_name, weight in one.method.weights():
        assert torch.equal(weight, expected[weight_name]), weight_name


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_state_taken_back_goes_on_bitwise(ready: Ready, name: str, precision: str) -> None:
    whole, half = ready(name, precision), ready(name, precision)
    for step in (1, 2):
        for one in (whole, half):
            one.method.step(one.batches(step), RATES[name], step)
    resumed = ready(name, precision)
    own = resumed.method.state_dict()
    saved = half.method.state_dict()
    assert own.keys() == saved.keys()
    for key, tensor in own.items():
        tensor.copy_(saved[key])
    for step in (3, 4):
        for one in (whole, resumed):
            one.method.step(one.batches(step), RATES[name], step)
    assert_same_state(snapshot(whole), snapshot(resumed))


def loss_drop(one: Prepared, rate: float, steps: int) -> float:
    losses = [one.method.step(one.batches(step), rate, step) for step in range(1, steps + 1)]
    first, last = (
        sum(report.loss_nats for report in some) / sum(r.num_target_tokens for r in some)
        for some in (losses[:5], losses[-5:])
    )
    return first - last


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_weights_in_16_bits_learn_what_32_bits_do(ready: Ready, name: str) -> None:
    """Updates far under half a step of bfloat16 survive, since rounding is by chance."""
    rate = RATES[name] / 3
    exact, rounded = (
        loss_drop(ready(name, precision), rate, steps=60) for precision in ("fp32", "bf16")
    )
    assert exact > 0.3
    assert rounded == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_in_16_bits_are_updated_some_rows_at_a_time(
    ready: Ready, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks change neither what the optimizer sees nor the size of its state."""
    whole = ready(name, "bf16")
    monkeypatch.setattr(MemoryPlan, "chunk_elements", staticmethod(lambda _: 2048))
    chunked = ready(name, "bf16")
    for one in (whole, chunked):
        one.method.step(one.batches(1), RATES[name], 1)
    assert len(chunked.method.state_dict()) > len(whole.method.state_dict()) or name == "sgd"
    if name == "adamw_8bit":
        return  # pieces under 4,096 weights keep 32-bit moments, so the states differ here
    moments = {(weight, moment): values for weight, moment, values in whole.method.moments()}
    assert bool(moments) is (name != "sgd")
    for weight, moment, values in chunked.method.moments():
        assert torch.equal(values, moments[weight, moment])


def test_chunks_cover_every_row_once_and_cut_no_block() -> None:
    for shape in [(7, 48), (1000, 300), (1, 5), (128_256, 64), (3, 100, 256), (9,)]:
        chunks = row_chunks(shape, 2048)
        rows = [row for start, stop in chunks for row in range(start, stop)]
        columns = shape[-1]
        assert rows == list(range(len(rows)))
        assert len(rows) * columns == torch.Size(shape).numel()
        assert all(start * columns % 256 == 0 for start, _ in chunks)


def test_the_moments_of_8_bits_are_close_to_those_of_32(ready: Ready) -> None:
    exact, coarse = ready("adamw"), ready("adamw_8bit")
    for one in (exact, coarse):
        one.method.step(one.batches(1), 1e-3, 1)
    expected = {(weight, moment): values for weight, moment, values in exact.method.moments()}
    found = {(weight, moment): values for weight, moment, values in coarse.method.moments()}
    assert found.keys() == expected.keys()
    for key, values in found.items():
        assert values.shape == expected[key].shape
        assert float((values - expected[key]).norm() / expected[key].norm()) < 0.03
