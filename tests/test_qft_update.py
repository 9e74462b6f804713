"""The fused 8-bit update is the published one, to within one step of what is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.memory.layout import Dense, Int8
from engine.memory.plans import MemoryPlan
from engine.preparation import Prepared
from tests.published import (
    ALL_IN_CODES,
    Stored,
    Update,
    exact_gradients,
    exact_step,
    moment_error,
    stored_weights,
)
from tests.tiny import prepared, snapshot, tiny_spec

Ready = Callable[..., Prepared]
ADAMW = {"update": "adamw"}
FOUR = {"moment_bits": 4}
NEAREST = {"rounding": "nearest"}
WHOLE = 1 << 18


@pytest.fixture
def ready(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Ready:
    def ready(architecture: str, settings: dict[str, Any], **train: Any) -> Prepared:
        method = {"kind": "qft", **settings}
        spec = tiny_spec(tiny_folder(architecture), chats_file, method, batch_size=2, **train)
        return prepared(spec, tmp_path)

    return ready


@pytest.mark.parametrize(
    ("architecture", "settings", "decay", "chunk"),
    [
        ("llama", {}, 0.0, WHOLE),
        ("llama", NEAREST, 0.1, 1),
        ("llama", FOUR, 0.1, 300),
        ("llama", {"residual_bits": 4}, 0.1, 300),
        ("llama", {"residual_bits": 8, **FOUR}, 0.1, WHOLE),
        ("llama", {"residual_bits": 8, **NEAREST}, 0.0, WHOLE),
        ("llama", {"outlier_percent": 1.0, "scale_group": 32}, 0.1, WHOLE),
        ("llama", {"outlier_percent": 2.0, "residual_bits": 4, **NEAREST}, 0.1, 1),
        ("llama", {"scale_group": 32, **ALL_IN_CODES}, 0.1, 700),
        ("llama", ADAMW, 0.1, 300),
        ("llama", {**ADAMW, **FOUR, "residual_bits": 4}, 0.0, WHOLE),
        ("llama", {**ADAMW, **NEAREST, "outlier_percent": 1.0, "scale_group": 64}, 0.1, WHOLE),
        ("qwen3", {}, 0.1, 300),
        ("qwen3", {**ADAMW, **FOUR, **ALL_IN_CODES}, 0.1, WHOLE),
        ("gemma3_text", ALL_IN_CODES, 0.1, WHOLE),
        ("opt", {"residual_bits": 4, **ALL_IN_CODES}, 0.1, 300),
        ("opt", {"scale_group": 32, **FOUR}, 0.1, 300),
        ("gpt2", {"outlier_percent": 1.0, **ALL_IN_CODES}, 0.1, WHOLE),
        ("gpt2", ADAMW, 0.1, 300),
        ("gpt_neox", {**NEAREST, **ALL_IN_CODES}, 0.0, WHOLE),
        ("mixtral", {**ADAMW, **ALL_IN_CODES}, 0.1, 300),
    ],
    ids=str,
)
def test_the_fused_update_is_the_published_one(
    ready: Ready,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    settings: dict[str, Any],
    decay: float,
    chunk: int,
) -> None:
    monkeypatch.setattr(MemoryPlan, "chunk_elements", staticmethod(lambda device: chunk))
    one = ready(architecture, settings, weight_decay=decay, seed=11)
    for step in (1, 2):
        one.method.step(one.batches(step), 1e-3, step)
    batches = one.batches(3)
    exact = exact_step(one, batches, 1e-3, 3)
    one.method.step(batches, 1e-3, 3)
    errors: list[Tensor] = []
    for stored in stored_weights(one, snapshot(one)):
        # Some gradients pass through bfloat16, which is a quarter of a code's step.
        doubt = 0.3 if stored.tied or stored.plan.weight == Dense("bfloat16") else 0.0
        update = exact[stored.name]
        errors.append(weight_errors(stored, update, nearest="nearest" in settings.values()))
        for layout, (name, storage) in zip(
            stored.plan.moments, stored.moments.items(), strict=True
        ):
            error, most = moment_error(storage, layout, update.moments[name])
            beyond = update.sure & (error > most + doubt)
            assert float(beyond.double().mean()) < 0.01, (stored.name, name)
    if settings.get("rounding") != "nearest":  # the errors of stochastic rounding even out
        every = torch.cat(errors)
        assert abs(float(every.mean())) < 5 * 0.5 / len(every) ** 0.5


def weight_errors(stored: Stored, update: Update, *, nearest: bool) -> Tensor:
    """In steps, one for each code; where a sign hangs on the last bit, two may differ."""
    apart = stored.values().double() - update.weight
    step = stored.step().double()
    layout = stored.plan.weight
    most = step * (0.501 if nearest else 1.001)
    if isinstance(layout, Int8) and (not nearest or layout.residual_bits):
        most = torch.where(step == update.step_before, most, 2 * most)  # a group grew: twice
    beyond = update.sure & (apart.abs() > most + 1e-6 * update.weight.abs() + 1e-9)
    assert float(beyond.double().mean()) < 0.01, stored.name
    return (apart / step)[~beyond & update.sure] if isinstance(layout, Int8) else apart.new_zeros(0)


@pytest.mark.parametrize("update", ["lion", "adamw"])
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_many_steps_follow_the_published_algorithm(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, update: str, rounding: str
) -> None:
    """With fine residuals and exact moments a master weight stays with its float64 twin."""
    exact_gradients(monkeypatch, moments=True)
    settings = {"update": update, "rounding": rounding, "residual_bits": 8}
    one = ready("llama", settings, weight_decay=0.1)
    before = {s.name: s.values().double() for s in stored_weights(one, snapshot(one))}
    apart = {name: torch.zeros_like(values) for name, values in before.items()}
    for step in range(1, 7):
        exact = exact_step(one, one.batches(step), 1e-3, step)
        one.method.step(one.batches(step), 1e-3, step)
        for stored in stored_weights(one, snapshot(one)):
            apart[stored.name] += stored.values().double() - exact[stored.name].weight
    for stored in stored_weights(one, snapshot(one)):
        if isinstance(stored.plan.weight, Int8):
            # Six roundings: a random walk of steps no longer than one.
            drift = apart[stored.name] / stored.step()
            assert float((drift.abs() < 6).double().mean()) > 0.99, stored.name
            assert float(drift.square().mean().sqrt()) < 1.3, stored.name
            moved = stored.values().double() - before[stored.name]
            assert float(moved.abs().mean()) > 20 * float(stored.step().mean())


@pytest.mark.parametrize("size", [1, 64, 700, 1 << 20])
def test_the_size_of_chunks_decides_only_the_random_numbers(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Nothing random is left with fine codes rounded to nearest, and nothing differs."""
    settings = {**NEAREST, "residual_bits": 8, **ALL_IN_CODES}
    states = []
    for chunk in (1 << 18, size):
        monkeypatch.setattr(MemoryPlan, "chunk_elements", staticmethod(lambda device, n=chunk: n))
        one = ready("qwen3", settings, weight_decay=0.1)
        for step in (1, 2):
            one.method.step(one.batches(step), 1e-3, step)
        states.append({stored.name: stored for stored in stored_weights(one, snapshot(one))})
    for name, stored in states[0].items():
        apart = (stored.values() - states[1][name].values()).abs()
        assert float((apart > 1.01 * stored.step()).float().mean()) < 0.005, name
