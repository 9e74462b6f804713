"""AdaLomo is the published rule: written here a second time, on whole tensors, and compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.memory.plans import MemoryPlan
from engine.optim.adalomo import second_moment_decay
from engine.preparation import Prepared
from tests.tiny import prepared, snapshot, tiny_spec

RATE = 5e-2
STEPS = 20
Ready = Callable[..., Prepared]


@pytest.fixture
def ready(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Ready:
    def ready(architecture: str = "llama", precision: str = "fp32", **train: Any) -> Prepared:
        method = {"kind": "adalomo", "precision": precision}
        return prepared(tiny_spec(tiny_folder(architecture), chats_file, method, **train), tmp_path)

    return ready


def mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    return summed_loss(model, batch) / batch.num_target_tokens


class Published:
    """Algorithm 1 of the paper for one weight, in float64: the reference."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.double()
        self.parts = [Published(part) for part in weight] if weight.ndim > 2 else []
        self.row: Any = 0.0
        self.column: Any = 0.0
        self.whole: Any = 0.0

    def step(self, gradient: Tensor, step: int, rate: float, decay: float) -> None:
        if self.parts:
            for part, piece in zip(self.parts, gradient, strict=True):
                if bool(piece.any()):
                    part.step(piece, step, rate, decay)
            self.weight = torch.stack([part.weight for part in self.parts])
            return
        gradient = gradient.double()
        keep = 1 - step**-0.8
        square = gradient**2 + 1e-30
        if gradient.ndim == 2:
            self.row = keep * self.row + (1 - keep) * square.mean(1)
            self.column = keep * self.column + (1 - keep) * square.mean(0)
            moment = torch.outer(self.row, self.column) / self.row.mean()
        else:
            self.whole = keep * self.whole + (1 - keep) * square
            moment, decay = self.whole, 0.0
        direction = gradient / moment.sqrt()
        direction /= max(1.0, float(direction.square().mean().sqrt()))
        size = max(1e-3, float(self.weight.square().mean().sqrt()))
        self.weight = self.weight - rate * size * (direction + decay * self.weight)


@pytest.mark.parametrize(
    ("architecture", "decay", "elements"),
    [
        ("llama", 0.0, None),
        ("qwen2", 0.1, 200),
        ("opt", 0.1, 500),
        ("mixtral", 0.1, None),
        ("mixtral", 0.0, 200),
    ],
)
def test_twenty_steps_are_the_published_ones(
    ready: Ready,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    decay: float,
    elements: int | None,
) -> None:
    """Some rows at a time or all at once; experts each by itself."""
    if elements is not None:
        monkeypatch.setattr(MemoryPlan, "chunk_elements", staticmethod(lambda _: elements))
    one = ready(architecture, weight_decay=decay, batch_size=2)
    parameters = dict(one.loaded.model.named_parameters())
    published = {name: Published(weight) for name, weight in one.method.weights()}
    before = {name: weight.clone() for name, weight in one.method.weights()}
    gradients: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        # Before the method's own hook, which frees it. A tied table's comes in two shares.
        parameter.register_hook(lambda share, name=name: _add(gradients, name, share))
    for step in range(1, STEPS + 1):
        gradients.clear()
        one.method.step(one.batches(step), RATE, step)
        for name, gradient in gradients.items():
            published[name].step(gradient, step, RATE, decay)
    for name, weight in one.method.weights():
        expected = published[name].weight
        assert torch.allclose(weight.double(), expected, rtol=0, atol=1e-6), name
        moved = (expected - before[name].double()).abs().max()
        assert float(moved) > 1e-4, "or the tolerance would prove nothing"


def _add(gradients: dict[str, Tensor], name: str, share: Tensor) -> None:
    gradients[name] = share.clone() if name not in gradients else gradients[name] + share


def test_an_expert_that_no_token_came_to_stays_as_it_is(ready: Ready) -> None:
    one = ready("mixtral", weight_decay=0.5)
    experts = {n: p for n, p in one.loaded.model.named_parameters() if p.ndim == 3}
    assert len(experts) == 4
    for parameter in experts.values():
        parameter.register_hook(lambda gradient: gradient * _all_but_the_second(gradient))
    one.method.step(one.batches(1), RATE, 1)
    before = snapshot(one)
    one.method.step(one.batches(2), RATE, 2)
    for key, after in snapshot(one).items():
        name = key.partition("/")[0]
        if name in experts:
            stack = (4, -1)
            same = (after.view(stack) == before[key].view(stack)).all(dim=1)
            assert same.tolist() == [False, True, False, False], key


def _all_but_the_second(gradient: Tensor) -> Tensor:
    mask = torch.ones(len(gradient), 1, 1)
    mask[1] = 0.0
    return mask


def test_every_update_has_the_size_that_the_rate_says(ready: Ready) -> None:
    """At most the learning rate times the weights' own root mean square, for each matrix."""
    one = ready()
    before = {name: weight.clone() for name, weight in one.method.weights()}
    one.method.step(one.batches(1), RATE, 1)
    for name, weight in one.method.weights():
        size = max(1e-3, float(before[name].square().mean().sqrt()))
        moved = float((weight - before[name]).square().mean().sqrt())
        assert 0.3 * RATE * size < moved < 1.001 * RATE * size, name


def test_moments_have_the_shape_of_their_weights(ready: Ready) -> None:
    one = ready("mixtral")
    shapes = {name: weight.shape for name, weight in one.method.weights()}
    found = {name: values for name, moment, values in one.method.moments()}
    assert {name: values.shape for name, values in found.items()} == shapes
    assert not any(bool(values.any()) for values in found.values()), "zero before the first step"
    squares: dict[str, Tensor] = {}
    for name, parameter in one.loaded.model.named_parameters():
        parameter.register_hook(lambda g, name=name: squares.update({name: g.square()}) or None)
    one.method.step(one.batches(1), RATE, 1)
    for name, moment, values in one.method.moments():
        assert moment == "exp_avg_sq"
        # The factors keep the mean of all of a weight's squares.
        assert float(values.mean()) == pytest.approx(float(squares[name].mean()), rel=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_authors_package_ends_at_the_same_weights(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, decay: float
) -> None:
    lomo_optim = pytest.importorskip("lomo_optim")
    # The package makes its moments on a GPU, whatever the weights are on.
    monkeypatch.setattr(Tensor, "cuda", lambda tensor: tensor)
    one = ready("llama", weight_decay=decay, batch_size=2)
    twin = AutoModelForCausalLM.from_pretrained(one.loaded.folder, dtype=torch.float32).train()
    for model in (twin, one.loaded.model):
        for parameter in model.parameters():
            # The package decays norms as well, which ours does not.
            parameter.requires_grad_(parameter.ndim > 1 or not decay)
    theirs = lomo_optim.AdaLomo(twin, lr=RATE, loss_scale=None, weight_decay=decay)
    for step in range(1, STEPS + 1):
        (batch,) = one.batches(step)
        one.method.step([batch], RATE, step)
        theirs.fused_backward(mean_loss(twin, batch), RATE)
    expected = dict(twin.named_parameters())
    for name, weight in one.method.weights():
        assert torch.allclose(weight, expected[name], rtol=0, atol=1e-6), name


def test_the_first_step_forgets_what_was_before() -> None:
    """Decay of the second moment is none at first, and ever slower after."""
    decays = [second_moment_decay(step) for step in (1, 2, 10, 1000)]
    assert decays[0] == 0
    assert decays == sorted(decays)
    assert decays[1] == pytest.approx(1 - 1 / math.pow(2, 0.8))
