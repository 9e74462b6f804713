"""The ablation's own code: a few steps on a tiny model, and the numbers are real."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.ablation_data import Material, texts
from benchmarks.ablation_references import ReferenceMethod
from benchmarks.ablation_summary import rates, rows
from benchmarks.qft_ablation import Length, run_all, write_result
from benchmarks.qft_phases import PHASES, Stopwatch, timed
from engine.contract.durable import read_json
from engine.methods import METHODS
from engine.schedule import learning_rate
from tests.tiny import chat_rows

CPU = torch.device("cpu")
NAMES = ["fp32 Lion", "fp32 AdamW", "fp32 Lion from 8-bit start", "bf16 Lion, nearest"]
NAMES += ["bf16 Lion, stochastic", "QFT balanced", "QFT nearest", "QFT-AdamW"]
LENGTH = Length(steps=4, batch_size=2, warmup_steps=1)


@pytest.fixture
def material(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Material:
    text = tmp_path / "rows.txt"
    text.write_text("\n".join(json.dumps(row) for row in chat_rows(60)), encoding="utf-8")
    return texts(tiny_folder("llama"), [text], length=24)


def test_it_reports_real_and_different_numbers(material: Material, tmp_path: Path) -> None:
    before = copy.deepcopy(material.loaded.model.state_dict())
    *_, section = run_all(material, LENGTH, NAMES, seeds=1)
    after = material.loaded.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before), "one start for all"
    found = rows(section)
    assert len(found) == 3 * len(NAMES)
    losses = [row.after for row in found]
    assert all(loss is not None and 0 < loss < 10 for loss in losses)
    assert len(set(losses)) > len(NAMES)
    for reference in ("fp32 Lion", "fp32 AdamW"):
        assert [row.share for row in rates(found, reference)] == [100, 100, 100]
    highest = {row.variant: row for row in found if row.learning_rate >= 1e-3}
    assert highest["fp32 Lion"].after < highest["fp32 Lion"].before  # pyright: ignore
    lowest = {row.variant: row for row in found if row.learning_rate < 1e-4}
    for coarse, fine in (
        ("QFT nearest", "QFT balanced"),
        ("bf16 Lion, nearest", "bf16 Lion, stochastic"),
    ):
        assert lowest[coarse].changed_percent < lowest[fine].changed_percent
    assert lowest["QFT balanced"].before != lowest["fp32 Lion"].before
    assert lowest["QFT balanced"].before == lowest["fp32 Lion from 8-bit start"].before
    write_result(tmp_path / "result.json", "one", section)
    write_result(tmp_path / "result.json", "two", section)
    document = read_json(tmp_path / "result.json")
    assert document is not None
    assert document["models"] == {"one": section, "two": section}


def test_the_reference_is_the_product_in_float32(material: Material) -> None:
    """AdamW of the references and of `full` are one: what differs in the ablation is storage."""
    spec = LENGTH.spec(None, 1e-3, seed=0)
    methods = ReferenceMethod("adamw"), METHODS["full"]()
    for method in methods:
        model = copy.deepcopy(material.loaded.model).train()
        method.prepare(model, spec, CPU)
        for step in range(1, LENGTH.steps + 1):
            rate = learning_rate(step, LENGTH.steps, spec.train)
            method.step([material.batch(spec, step)], rate, step)
    ours, theirs = (dict(method.weights()) for method in methods)
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name], rtol=1e-4, atol=1e-6), name


def test_phases_add_up_to_the_step(material: Material) -> None:
    spec = LENGTH.spec({"kind": "qft", "gradients": "stack"}, 1e-3, seed=0)
    method = METHODS["qft"]()
    method.prepare(copy.deepcopy(material.loaded.model).train(), spec, CPU)
    watch = Stopwatch()
    with timed(watch), watch.phase("rest"):
        method.step([material.batch(spec, 1)], 1e-3, 1)
    assert set(watch.seconds) == set(PHASES)
    assert all(seconds > 0 for seconds in watch.seconds.values())
