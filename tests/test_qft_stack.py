"""Gradients on a stack: the fused update to the bit, exact clipping, accumulation, second uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from engine.contract.errors import RequestError
from engine.contract.spec import RunSpec
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.memory.layout import Int8
from engine.memory.plans import MemoryPlan
from engine.methods.qft import QftMethod
from engine.methods.qft import method as qft_method
from engine.methods.qft.gradients import GradientStack
from engine.methods.qft.weight import TrainedWeight
from engine.preparation import Prepared
from engine.storage.dense import DenseStorage
from tests.published import ALL_IN_CODES, CPU, exact_gradients, twin_gradients
from tests.tiny import assert_same_state, float_twin, prepared, snapshot, tiny_spec

Ready = Callable[..., Prepared]
STACK = {"gradients": "stack"}
FUSED = {"gradients": "fused"}


@pytest.fixture
def ready(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Ready:
    def ready(architecture: str, settings: dict[str, Any], **train: Any) -> Prepared:
        method = {"kind": "qft", **settings}
        defaults = {"batch_size": 2, "weight_decay": 0.1, **train}
        return prepared(
            tiny_spec(tiny_folder(architecture), chats_file, method, **defaults), tmp_path
        )

    return ready


def moments_of(one: Prepared) -> dict[str, Tensor]:
    return {f"{name}/{moment}": values.clone() for name, moment, values in one.method.moments()}


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("architecture", "settings", "checkpointing"),
    [
        ("llama", {}, False),
        ("llama", {"update": "adamw", "moment_bits": 4, "outlier_percent": 1.0}, True),
        ("llama", {"residual_bits": 4, "rounding": "nearest", **ALL_IN_CODES}, True),
        ("qwen3", {"update": "adamw"}, False),
        ("qwen3", {"residual_bits": 8, **ALL_IN_CODES}, True),
        ("gpt2", {"scale_group": 32, "outlier_percent": 1.0, **ALL_IN_CODES}, False),
        ("opt", ALL_IN_CODES, True),
        ("mixtral", {}, True),
    ],
    ids=str,
)
def test_with_exact_gradients_the_stack_is_the_fused_update_bitwise(
    ready: Ready,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    settings: dict[str, Any],
    checkpointing: bool,
    compute: torch.dtype,
) -> None:
    exact_gradients(monkeypatch)
    monkeypatch.setattr(qft_method, "compute_dtype", lambda _: compute)
    states = []
    for mode, recompute in ((FUSED, False), (STACK, False), (STACK, True), (FUSED, True)):
        if recompute and not checkpointing:
            continue
        one = ready(architecture, {**settings, **mode}, activation_checkpointing=recompute)
        for step in (1, 2):
            one.method.new_epoch(step)
            one.method.step(one.batches(step), 1e-3, step)
        states.append(snapshot(one))
    for state in states[1:]:
        assert_same_state(states[0], state)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_clipping_is_by_the_exact_norm(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """Lion's first momentum is a hundredth of the gradient that it was given."""
    exact_gradients(monkeypatch, moments=True)
    one = ready(architecture, STACK, max_grad_norm=0.25)
    twin, batch = float_twin(one), one.batches(1)[0]
    (summed_loss(twin, batch) / batch.num_target_tokens).backward()
    parameters = dict(twin.named_parameters())
    norm = get_total_norm([p.grad for p in parameters.values() if p.grad is not None])
    clip_grads_with_norm_(parameters.values(), 0.25, norm)
    report = one.method.step([batch], 1e-3, 1)
    assert report.grad_norm == pytest.approx(float(norm), rel=1e-6)
    assert report.metrics["clip_factor"] == pytest.approx(0.25 / float(norm), rel=1e-5)
    assert 0 < report.metrics["clip_factor"] < 1
    length = 0.0
    for name, _, momentum in one.method.moments():
        gradient = parameters[name].grad
        assert gradient is not None
        assert float((100 * momentum - gradient).abs().max()) < 1e-6, name
        length += float((100 * momentum).square().sum())
    assert length**0.5 == pytest.approx(0.25, rel=1e-5)


def test_clipping_quantized_gradients_is_as_exact_as_their_codes(ready: Ready) -> None:
    one = ready("llama", STACK, max_grad_norm=0.25)
    batches = one.batches(1)
    gradients = twin_gradients(one, batches)
    norm = float(get_total_norm(list(gradients.values())))
    report = one.method.step(batches, 1e-3, 1)
    assert report.grad_norm == pytest.approx(norm, rel=1e-5)  # of what was not yet quantized
    for name, _, momentum in one.method.moments():
        clipped = gradients[name] * 0.25 / norm
        # Half a step of the gradient's codes and half a step of the momentum's.
        largest = float(clipped.abs().max())
        assert float((100 * momentum - clipped).abs().max()) < 1.05 * largest / 127, name


@pytest.mark.parametrize("limit", [None, 1e6])
def test_a_short_gradient_is_not_clipped(ready: Ready, limit: float | None) -> None:
    one, two = ready("llama", STACK), ready("llama", STACK, max_grad_norm=limit)
    reports = [each.method.step(each.batches(1), 1e-3, 1) for each in (one, two)]
    assert reports[1].metrics.get("clip_factor") == (None if limit is None else 1.0)
    assert_same_state(snapshot(one), snapshot(two))


@pytest.mark.parametrize("exact", [True, False])
def test_four_small_batches_are_one_large_one(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    if exact:
        exact_gradients(monkeypatch, moments=True)
    one = ready("qwen3", STACK, grad_accumulation=4)
    two = ready("qwen3", STACK)
    small = one.batches(1)
    large = Batch(
        *(torch.cat([getattr(batch, part) for batch in small]) for part in
          ("input_ids", "attention_mask", "labels"))
    )  # fmt: skip
    assert len(small) == 4
    reports = [one.method.step(small, 1e-3, 1), two.method.step([large], 1e-3, 1)]
    assert reports[0].num_target_tokens == reports[1].num_target_tokens
    assert reports[0].loss_nats == pytest.approx(reports[1].loss_nats, rel=1e-5)
    assert reports[0].grad_norm == pytest.approx(reports[1].grad_norm, rel=1e-5 if exact else 1e-2)
    found, expected = moments_of(one), moments_of(two)
    for name, values in found.items():
        apart = float((values - expected[name]).norm() / expected[name].norm())
        assert apart < (1e-4 if exact else 0.04), name


class Twice(nn.Module):
    """Goes through one weight twice: one layer, one layer by two names, or two layers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(320, 8, padding_idx=5)
        self.layer = nn.Linear(8, 8)
        if kind != "layer":
            self.other = self.layer
        if kind == "weight":
            self.other = nn.Linear(8, 8)
            self.other.weight = self.layer.weight
        self.head = nn.Linear(8, 320)

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        hidden = self.layer(self.embedding(input_ids)).relu()
        return SimpleNamespace(logits=self.head(getattr(self, "other", self.layer)(hidden)))

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def over(kind: str, settings: dict[str, Any], spec: RunSpec) -> tuple[Twice, QftMethod]:
    """The method on such a model, whose weights are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = Twice(kind)
    method = QftMethod()
    changed = {"kind": "qft", **settings}
    spec = RunSpec.model_validate({**spec.as_json(), "method": changed})
    method.prepare(model, spec, CPU)
    return model, method


@pytest.fixture
def spec(tiny_folder: Callable[[str], Path], chats_file: Path) -> RunSpec:
    return tiny_spec(tiny_folder("llama"), chats_file)


def batch_of(*tokens: int) -> Batch:
    numbers = torch.tensor([tokens])
    return Batch(numbers, torch.ones_like(numbers), numbers)


@pytest.mark.parametrize("kind", ["layer", "names"])
def test_a_layer_used_twice_is_refused_by_fused_updates(spec: RunSpec, kind: str) -> None:
    method = over(kind, FUSED, spec)[1]
    with pytest.raises(RequestError, match=r"layer\.weight is used twice in one pass") as found:
        method.step([batch_of(1, 2, 3)], 1e-3, 1)
    assert found.value.field == "method.gradients"
    assert "fused updates have already changed it" in str(found.value)


def test_a_shared_weight_learns_where_only_one_of_its_layers_is_reached(spec: RunSpec) -> None:
    """The other layer's share of the gradient never comes; the update must not wait for it."""
    moved: dict[str, Tensor] = {}
    for name, mode in (("fused", FUSED), ("stack", STACK)):
        model, method = over("weight", mode, spec)
        model.register_module("other", nn.Identity())
        before = dict(method.weights())["layer.weight"].clone()
        method.step([batch_of(1, 2, 3)], 1e-2, 1)
        moved[name] = dict(method.weights())["layer.weight"] - before
    # A gradient too small for its 8 bits is zero on the stack, so not every sign is the same.
    assert torch.cosine_similarity(moved["fused"].flatten(), moved["stack"].flatten(), 0) > 0.7


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("layer", STACK), ("names", STACK), ("weight", STACK), ("weight", FUSED)],
    ids=str,
)
def test_a_weight_used_twice_learns_from_both_uses(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, kind: str, mode: dict[str, str]
) -> None:
    exact_gradients(monkeypatch, moments=True)
    (_, method), batch = over(kind, mode, spec), batch_of(1, 2, 3, 4, 5, 6, 7)
    twin = Twice(kind)
    twin.load_state_dict(dict(method.weights()), strict=False)
    (summed_loss(twin, batch) / batch.num_target_tokens).backward()
    gradient = twin.layer.weight.grad
    assert gradient is not None
    losses = [method.step([batch], 1e-9, 1).loss_nats]
    momentum = next(m for name, _, m in method.moments() if name == "layer.weight")
    most = float(gradient.abs().max()) * (1e-5 if mode == STACK else 2**-8)
    assert float((100 * momentum - gradient).abs().max()) < most
    losses += [method.step([batch], 1e-2, step).loss_nats for step in range(2, 30)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("mode", [FUSED, STACK], ids=str)
@pytest.mark.parametrize("codes", [{}, ALL_IN_CODES], ids=str)
def test_what_stands_for_padding_learns_nothing(
    spec: RunSpec, mode: dict[str, str], codes: dict[str, Any]
) -> None:
    model, method = over("weight", {**mode, **codes}, spec)
    before = model.embedding.weight.detach().clone()
    for step in range(1, 4):
        method.step([batch_of(5, 5, 1, 2, 5, 3)], 1e-2, step)
    after = model.embedding.weight.detach()
    changed = (after != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == [1, 2]  # the last token of all predicts nothing


def test_tied_embeddings_learn_from_both_ends(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact_gradients(monkeypatch, moments=True)
    for settings in ({**STACK, **ALL_IN_CODES}, {**FUSED, **ALL_IN_CODES}, STACK, FUSED):
        one = ready("qwen3", settings)
        model, batches = one.loaded.model, one.batches(1)
        gradient = twin_gradients(one, batches)["model.embed_tokens.weight"]
        one.method.step(batches, 1e-3, 1)
        moments = {name: values for name, _, values in one.method.moments()}
        assert "lm_head.weight" not in moments
        apart = (100 * moments["model.embed_tokens.weight"] - gradient).abs().max()
        exact = "stack" in settings.values()
        assert float(apart) < float(gradient.abs().max()) * (1e-5 if exact else 2**-8)
        used = batches[0].input_ids.unique()
        unused = torch.ones(len(gradient), dtype=torch.bool)
        unused[used] = False
        assert float(gradient[unused].abs().max()) > 0, "from the head alone"
        ends: Any = model
        assert torch.equal(ends.model.embed_tokens.weight, ends.lm_head.weight)


def test_rounding_errors_of_many_pushes_even_out() -> None:
    """Sixteen micro-batches: with the same noise each time the errors would add up to 3 steps."""
    layout = Int8(256, "float32")
    storage = DenseStorage(torch.zeros(64, 256))
    weight = TrainedWeight("w", 3, (64, 256), False, storage, (), layout, decays=True)
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(64, 256, generator=generator) for _ in range(16)]
    stack = GradientStack(seed=5)
    stack.begin(1)
    for gradient in gradients:
        stack.receive(weight, slice(0, 64), gradient)
    popped: list[Tensor] = []
    stack.pop_all(lambda _, rows, gradient: popped.append(gradient), 1.0)
    exact = torch.stack(gradients).sum(0)
    step = exact.abs().amax(dim=1, keepdim=True) / 127
    assert float(((popped[0] - exact) / step).square().mean().sqrt()) < 1.6


@pytest.mark.parametrize("settings", [STACK, FUSED, {**FUSED, **ALL_IN_CODES}], ids=str)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "phi", "gemma2"])
def test_a_head_in_chunks_learns_as_a_whole_one(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, architecture: str, settings: dict[str, str]
) -> None:
    """Tied or not, with a bias or with a cap on its scores: the gradient is autograd's."""
    exact_gradients(monkeypatch, moments=True)
    # Sixty-four rows to an update, and scores for two updates at a time: chunks of 128, 128, 64.
    monkeypatch.setattr(MemoryPlan, "chunk_elements", staticmethod(lambda device: 64 * 32))
    one = ready(architecture, settings)
    batches = one.batches(1)
    wanted = twin_gradients(one, batches)
    most = 130 * batches[0].num_target_tokens
    monkeypatch.setattr(MemoryPlan, "score_elements", staticmethod(lambda device: most))
    one.method.step(batches, 1e-3, 1)
    exact = "stack" in settings.values()
    for name, _, values in one.method.moments():
        apart = (100 * values - wanted[name]).abs().max()
        largest = float(wanted[name].abs().max())
        assert float(apart) < largest * (1e-4 if exact else 2**-8) + 1e-7, name
