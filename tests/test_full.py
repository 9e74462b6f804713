"""Full tuning is AdamW as torch has it: the yardstick has to be true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from engine.data.batching import Batch, collate
from engine.loss import summed_loss
from engine.methods.protocol import NonFiniteError
from engine.preparation import Prepared
from tests.tiny import (
    ARCHITECTURES,
    assert_same_state,
    prepared,
    snapshot,
    tiny_model_folder,
    tiny_spec,
)

Ready = Callable[..., Prepared]


@pytest.fixture
def ready(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Ready:
    def ready(architecture: str = "llama", **train: Any) -> Prepared:
        return prepared(tiny_spec(tiny_folder(architecture), chats_file, "full", **train), tmp_path)

    return ready


def untouched_twin(one: Prepared, decay: float) -> tuple[nn.Module, torch.optim.AdamW]:
    """transformers' model with torch's optimizer; norms and biases do not decay."""
    twin = AutoModelForCausalLM.from_pretrained(one.loaded.folder, dtype=torch.float32).train()
    spared = [p for name, p in twin.named_parameters() if "norm" in name or "bias" in name]
    decaying = [p for name, p in twin.named_parameters() if not ("norm" in name or "bias" in name)]
    groups = [{"params": decaying, "weight_decay": decay}, {"params": spared, "weight_decay": 0.0}]
    return twin, torch.optim.AdamW(groups, fused=True)


def mean_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    return summed_loss(model, batch) / batch.num_target_tokens


@pytest.mark.parametrize("architecture", ["llama", "opt", "mixtral"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_three_steps_are_those_of_torch_bitwise(
    ready: Ready, architecture: str, clip: float | None
) -> None:
    one = ready(architecture, weight_decay=0.1, max_grad_norm=clip)
    twin, optimizer = untouched_twin(one, decay=0.1)
    for step in (1, 2, 3):
        (batch,) = one.batches(step)
        report = one.method.step([batch], 1e-3 * step, step)
        loss = mean_loss(twin, batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(twin.parameters(), clip or float("inf"))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * step
        optimizer.step()
        optimizer.zero_grad()
        assert report.loss_nats / report.num_target_tokens == pytest.approx(loss.item(), rel=1e-6)
        assert report.grad_norm == pytest.approx(float(norm), rel=1e-6)
        assert report.grad_norm > 0.5, "or clipping to 0.5 would do nothing"
    expected = dict(twin.named_parameters())
    for name, weight in one.method.weights():
        assert torch.equal(weight, expected[name]), name
    assert all(parameter.grad is None for parameter in one.loaded.model.parameters())


def test_decay_spares_norms_and_biases(ready: Ready) -> None:
    """With a slope of zero, decay alone moves what it moves."""
    one = ready("opt", weight_decay=0.5)
    before = {name: weight.clone() for name, weight in one.method.weights()}
    for parameter in one.loaded.model.parameters():
        parameter.register_hook(torch.zeros_like)
    one.method.step(one.batches(1), 1e-2, 1)
    for name, weight in one.method.weights():
        spared = "norm" in name or "bias" in name
        assert torch.allclose(weight, before[name] * (1 if spared else 0.995), atol=0, rtol=1e-6)


def test_micro_batches_make_the_step_of_one_large_batch(ready: Ready) -> None:
    """Every target token weighs the same, wherever it is."""
    one, other = ready(grad_accumulation=3), ready()
    pad = one.loaded.pad_token
    short, long = sorted(one.training, key=lambda e: e.num_trained)[:3], one.training[:5]
    pieces = [collate(short, pad), collate(long[:1], pad), collate(long[1:], pad)]
    assert len({piece.num_target_tokens for piece in pieces}) == 3
    whole = collate([*short, *long], pad)
    in_pieces, at_once = one.method.step(pieces, 1e-3, 1), other.method.step([whole], 1e-3, 1)
    assert in_pieces.num_target_tokens == at_once.num_target_tokens
    assert in_pieces.loss_nats == pytest.approx(at_once.loss_nats, rel=1e-5)
    assert in_pieces.grad_norm == pytest.approx(at_once.grad_norm, rel=1e-4)
    expected = other.method.state_dict()
    for name, found in one.method.state_dict().items():
        if name.endswith("/exp_avg"):
            assert torch.allclose(found, expected[name], rtol=1e-3, atol=1e-7), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_falls_and_every_weight_moves(ready: Ready, architecture: str) -> None:
    one = ready(architecture, batch_size=2)
    batch = one.batches(1)[0]
    before = {name: weight.clone() for name, weight in one.method.weights()}
    losses = [one.method.step([batch], 5e-3, step).loss_nats for step in range(1, 13)]
    assert losses[-1] < 0.8 * losses[0]
    unmoved = [name for name, weight in one.method.weights() if torch.equal(weight, before[name])]
    assert unmoved == []


def test_checkpointed_activations_give_the_same_step_bitwise(ready: Ready) -> None:
    states = []
    for checkpointing in (False, True):
        one = ready(activation_checkpointing=checkpointing)
        one.method.step(one.batches(1), 1e-3, 1)
        states.append(snapshot(one))
    assert_same_state(*states)


@pytest.mark.parametrize(
    ("module", "spoils_gradient", "what"),
    [("model.norm", False, "the loss"), ("model.layers.0.mlp.down_proj", True, "a gradient")],
)
def test_what_is_no_number_moves_nothing(
    ready: Ready, module: str, spoils_gradient: bool, what: str
) -> None:
    one = ready()
    before = snapshot(one)

    def spoil(_: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        if spoils_gradient:
            output.register_hook(lambda gradient: gradient * float("nan"))
            return output
        return output * float("nan")

    one.loaded.model.get_submodule(module).register_forward_hook(spoil)
    with pytest.raises(NonFiniteError, match=what) as found:
        one.method.step(one.batches(1), 1e-3, 1)
    assert found.value.weights_intact
    assert_same_state(before, snapshot(one))
    assert all(parameter.grad is None for parameter in one.loaded.model.parameters())


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
@pytest.mark.parametrize("method", ["qft", "full"])
def test_loaded_weights_that_are_no_numbers_are_named(
    chats_file: Path, tmp_path: Path, method: str, name: str
) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[5] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{name} holds NaN"):
        prepared(tiny_spec(folder, chats_file, method), tmp_path / "runs")
