"""Every architecture with every preset learns, takes the forecast bytes and exports as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.contract.method_settings import QFT_PRESETS, QftSettings
from engine.contract.run_dir import RunDir
from engine.data.batching import Batch
from engine.export import export_model
from engine.memory.estimate import Term
from engine.preparation import Prepared
from tests.tiny import ARCHITECTURES, prepared, scores, tiny_spec

SETTINGS: dict[str, dict[str, Any]] = {
    **{preset: {"preset": preset} for preset in QFT_PRESETS},
    "adamw_stack": {"update": "adamw", "gradients": "stack"},
}
# Rounding to nearest loses an update under half a step, and a step is about 5e-4 here.
RATES = {"paper": 1e-2}
STEPS = 6


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Each storage once, however many tensors look at it."""
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(sizes.values())


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_learns_takes_the_forecast_bytes_and_exports_as_it_is(
    tiny_folder: Callable[[str], Path],
    chats_file: Path,
    tmp_path: Path,
    architecture: str,
    settings: str,
) -> None:
    method = {"kind": "qft", **SETTINGS[settings]}
    spec = tiny_spec(tiny_folder(architecture), chats_file, method, batch_size=2)
    one = prepared(spec, tmp_path)
    assert_forecast(one)
    batch = one.batches(3)[0]
    before = {name: weight.clone() for name, weight in one.method.weights()}
    assert_learns(one, batch, RATES.get(settings, 3e-3))
    unmoved = [name for name, weight in one.method.weights() if torch.equal(weight, before[name])]
    assert unmoved == []
    assert_exports(one, batch, tmp_path)


def assert_forecast(one: Prepared) -> None:
    """To the byte, by term, and nothing else lives as long as the run."""
    terms, state = one.forecast.terms, one.method.state_dict()
    sizes: dict[Term, int] = {"weights": 0, "outliers": 0, "residual": 0, "moments": 0}
    for name, tensor in state.items():
        kind, _, part = name.partition("/")[2].partition(".")
        term: Term = "weights" if kind == "weight" else "moments"
        if kind == "weight" and part.startswith("outlier_"):
            term = "outliers"
        if kind == "weight" and part == "residual":
            term = "residual"
        sizes[term] += tensor.untyped_storage().nbytes()
    assert {term: terms.get(term, 0) for term in sizes} == sizes
    assert one.forecast.states_bytes == bytes_of(state.values())
    buffers = bytes_of(one.loaded.model.buffers())
    anchors = bytes_of(p for p in one.loaded.model.parameters() if p.ndim == 0)  # of autograd
    assert bytes_of(one.live_tensors()) == bytes_of(state.values()) + buffers + anchors
    settings = one.spec.method
    assert isinstance(settings, QftSettings)
    assert (sizes["residual"] > 0) == (settings.residual_bits > 0)
    assert (sizes["outliers"] > 0) == (settings.outlier_percent > 0)


def assert_learns(one: Prepared, batch: Batch, rate: float) -> None:
    reports = [one.method.step([batch], rate, step) for step in range(1, STEPS + 1)]
    losses = [report.loss_nats / report.num_target_tokens for report in reports]
    assert losses[-1] < losses[0] - 0.2
    for report in reports:
        assert report.num_target_tokens == batch.num_target_tokens
        assert report.grad_norm > 0
        assert {"codes_changed_percent", "median_step"} <= report.metrics.keys()
    large = [p for p in one.loaded.model.parameters() if p.ndim > 0]
    assert all(parameter.grad is None for parameter in large)


def assert_exports(one: Prepared, batch: Batch, folder: Path) -> None:
    run = RunDir(folder / "run")
    run.path.mkdir()
    exported = export_model(run, one.loaded, one.method)
    loaded = AutoModelForCausalLM.from_pretrained(exported, local_files_only=True)
    assert loaded.dtype == torch.bfloat16
    found, expected = scores(loaded.float(), batch), scores(one.loaded.model, batch)
    # A mixture may send a token to another expert for a rounding error.
    assert float((found - expected).norm() / expected.norm()) < 0.015
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())
