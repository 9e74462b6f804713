"""LOMO is gradient descent: torch's own SGD, bit for bit, where weights are in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.preparation import Prepared
from tests.tiny import prepared, tiny_spec

FLOAT32 = {"kind": "lomo", "precision": "fp32"}
STEPS = (1, 2, 3, 4)
Ready = Callable[..., Prepared]


@pytest.fixture
def ready(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Ready:
    def ready(architecture: str, settings: dict[str, Any], **train: Any) -> Prepared:
        method = {**FLOAT32, **settings}
        return prepared(tiny_spec(tiny_folder(architecture), chats_file, method, **train), tmp_path)

    return ready


def twin_of(one: Prepared) -> nn.Module:
    """transformers' own model, untouched."""
    return AutoModelForCausalLM.from_pretrained(one.loaded.folder, dtype=torch.float32).train()


def mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    return summed_loss(model, batch) / batch.num_target_tokens


def assert_same_weights(one: Prepared, twin: nn.Module, tolerance: float = 0.0) -> None:
    expected = dict(twin.named_parameters())
    for name, weight in one.method.weights():
        assert torch.allclose(weight, expected[name], rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize(
    ("architecture", "checkpointing"),
    [("llama", False), ("gpt2", False), ("mixtral", False), ("qwen2", False), ("qwen2", True)],
)
def test_its_steps_are_those_of_sgd_bitwise(
    ready: Ready, architecture: str, checkpointing: bool
) -> None:
    """Tied tables and recomputed activations included."""
    one = ready(architecture, {"clip": "none"}, activation_checkpointing=checkpointing)
    twin = twin_of(one)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in STEPS:
        (batch,) = one.batches(step)
        report = one.method.step([batch], 0.1, step)
        loss = mean_loss(twin, batch)
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in twin.parameters() if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad()
        assert report.loss_nats / report.num_target_tokens == pytest.approx(loss.item(), rel=1e-6)
        assert report.grad_norm == pytest.approx(float(norm), rel=1e-5)
        assert report.metrics == {}
    assert_same_weights(one, twin)


def test_decay_is_that_of_sgd_and_spares_norms_and_biases(ready: Ready) -> None:
    one = ready("opt", {"clip": "none"}, weight_decay=0.5)
    twin = twin_of(one)
    spared = [p for name, p in twin.named_parameters() if "norm" in name or "bias" in name]
    decaying = [p for name, p in twin.named_parameters() if not ("norm" in name or "bias" in name)]
    optimizer = torch.optim.SGD(
        [{"params": decaying, "weight_decay": 0.5}, {"params": spared}], lr=0.1
    )
    for step in STEPS:
        (batch,) = one.batches(step)
        one.method.step([batch], 0.1, step)
        mean_loss(twin, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same_weights(one, twin, tolerance=2e-6)
    undecayed = ready("opt", {"clip": "none"})
    for step in STEPS:
        undecayed.method.step(undecayed.batches(step), 0.1, step)
    with pytest.raises(AssertionError):
        assert_same_weights(undecayed, twin, tolerance=1e-3)


@pytest.mark.parametrize(("architecture", "checkpointing"), [("llama", False), ("qwen2", True)])
def test_clipping_by_length_is_that_of_torch(
    ready: Ready, architecture: str, checkpointing: bool
) -> None:
    train = {"max_grad_norm": 0.5, "activation_checkpointing": checkpointing}
    one = ready(architecture, {"clip": "two_pass_norm"}, **train)
    twin = twin_of(one)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in STEPS:
        (batch,) = one.batches(step)
        report = one.method.step([batch], 0.1, step)
        mean_loss(twin, batch).backward()
        length = float(nn.utils.clip_grad_norm_(twin.parameters(), 0.5))
        optimizer.step()
        optimizer.zero_grad()
        assert report.grad_norm == pytest.approx(length, rel=1e-5)
        assert report.metrics == {"clip_factor": pytest.approx(0.5 / (length + 1e-6), rel=1e-5)}
        assert report.metrics["clip_factor"] < 0.9, "or clipping would do next to nothing"
    assert_same_weights(one, twin, tolerance=1e-6)


def test_clipping_by_value_is_that_of_torch_bitwise(ready: Ready) -> None:
    one = ready("llama", {"clip": "value", "clip_value": 1e-3})
    twin = twin_of(one)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    clipped = 0
    for step in STEPS:
        (batch,) = one.batches(step)
        one.method.step([batch], 0.1, step)
        mean_loss(twin, batch).backward()
        clipped += sum(
            int((p.grad.abs() > 1e-3).sum()) for p in twin.parameters() if p.grad is not None
        )
        nn.utils.clip_grad_value_(twin.parameters(), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
    assert clipped > 100
    assert_same_weights(one, twin)


@pytest.mark.parametrize("limit", [None, 0.5])
def test_the_authors_package_ends_at_the_same_weights(ready: Ready, limit: float | None) -> None:
    lomo_optim = pytest.importorskip("lomo_optim")
    clip = "none" if limit is None else "two_pass_norm"
    one = ready("llama", {"clip": clip}, max_grad_norm=limit, weight_decay=0.1)
    twin = twin_of(one)
    for parameter in twin.parameters():
        # The package decays norms as well, which ours does not.
        parameter.requires_grad_(parameter.ndim > 1)
    theirs = lomo_optim.Lomo(twin, lr=0.1, clip_grad_norm=limit, weight_decay=0.1)
    for weight in one.loaded.model.parameters():
        weight.requires_grad_(weight.ndim > 1)
    for step in STEPS:
        (batch,) = one.batches(step)
        one.method.step([batch], 0.1, step)
        if limit is not None:
            theirs.grad_norm(mean_loss(twin, batch))
        theirs.fused_backward(mean_loss(twin, batch), 0.1)
    assert_same_weights(one, twin, tolerance=1e-6)
