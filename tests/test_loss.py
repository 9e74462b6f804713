"""The loss in chunks is the plain loss, and what it relies on is true of every architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from engine.casting import compute_in
from engine.data.batching import IGNORED, Batch
from engine.loss import summed_loss
from engine.memory.plans import MemoryPlan
from engine.model import load_model
from engine.model_traits import ModelTraits, traits_of
from engine.score_head import AfterHead, Head, ParameterWeight, summed_nats
from engine.tensor_meter import LiveTensorMeter
from tests.tiny import ARCHITECTURES, CONTEXT, VOCABULARY

FLOAT32 = 4
_LLAMA: dict[str, Any] = ARCHITECTURES["llama"]
SCALED: dict[str, dict[str, Any]] = {
    "cohere": {**_LLAMA, "logit_scale": 0.3},
    "granite": {**_LLAMA, "logits_scaling": 3.0},
}
# How many scores at once: all, a divisor of the vocabulary, and no divisor.
AT_ONCE = {"kept": 1 << 22, "fifth": VOCABULARY // 5, "odd": 77}


def tiny_model(architecture: str, **config: Any) -> Any:
    """Random weights, every one of them different from zero, biases and norms too."""
    settings = {**ARCHITECTURES, **SCALED}[architecture]
    rates = dict.fromkeys(("dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        chosen = {"vocab_size": VOCABULARY, "pad_token_id": 0, **rates, **settings, **config}
        made = AutoConfig.for_model(architecture, **chosen)
        model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.train()


def ragged_batch(lengths: tuple[int, ...] = (24, 9, 1, 17)) -> Batch:
    """Rows padded on the right; some tokens are not trained, and the last row has none that is."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), max(lengths))
    tokens = torch.randint(1, VOCABULARY, shape, generator=generator)
    mask = (torch.arange(shape[1]) < torch.tensor(lengths).unsqueeze(1)).long()
    trained = (torch.rand(shape, generator=generator) < 0.6) & mask.bool()
    trained[-1] = False
    return Batch(tokens * mask, mask, torch.where(trained, tokens, IGNORED))


def plain_loss(model: Any, batch: Batch) -> Tensor:
    """By the model's own scores, all of them, with padding masked."""
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    scores = output.logits[:, :-1].flatten(0, 1).float()
    targets = batch.labels[:, 1:].flatten()
    return functional.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum")


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_same_gradients(
    found: dict[str, Tensor], expected: dict[str, Tensor], rounding: float = 1e-6
) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        # Some gradients, such as of keys' biases, are nothing but rounding.
        torch.testing.assert_close(
            found[name],
            gradient,
            rtol=1e-4,
            atol=rounding * largest,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@contextmanager
def at_once(monkeypatch: pytest.MonkeyPatch, per_token: int, batch: Batch) -> Iterator[None]:
    """So many scores of each target token."""
    with monkeypatch.context() as patch:
        count = per_token * batch.num_target_tokens
        patch.setattr(MemoryPlan, "score_elements", staticmethod(lambda device: count))
        yield


@pytest.mark.parametrize("chunks", AT_ONCE)
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *SCALED])
def test_loss_and_gradients_are_those_of_the_plain_loss(
    monkeypatch: pytest.MonkeyPatch, architecture: str, chunks: str
) -> None:
    model, batch = tiny_model(architecture), ragged_batch()
    assert traits_of(model).after_head is not None
    expected = plain_loss(model, batch)
    wanted = gradients(model, expected)
    with at_once(monkeypatch, AT_ONCE[chunks], batch):
        found = summed_loss(model, batch)
        assert found.dtype == torch.float32
        assert found.shape == ()
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        assert_same_gradients(gradients(model, found), wanted)
        with torch.no_grad():
            assert float(summed_loss(model, batch)) == pytest.approx(
                float(expected.detach()), rel=1e-5
            )


@pytest.mark.parametrize(
    ("architecture", "after"),
    [
        ("llama", AfterHead()),
        ("gemma2", AfterHead(cap=30.0)),
        ("cohere", AfterHead(scale=float(torch.tensor(0.3)))),
        ("granite", AfterHead(scale=float(torch.tensor(1 / 3.0)))),
    ],
)
def test_what_a_model_does_to_its_scores_is_found_out(architecture: str, after: AfterHead) -> None:
    found = traits_of(tiny_model(architecture)).after_head
    assert found is not None
    assert found.cap == after.cap
    assert found.scale == pytest.approx(after.scale, rel=1e-6)


@pytest.mark.parametrize("bound", [None, 2.5])
def test_a_scale_and_a_cap_together(monkeypatch: pytest.MonkeyPatch, bound: float | None) -> None:
    """Against autograd of the formula, with scores far beyond the cap."""
    torch.manual_seed(2)
    hidden, weight, bias = torch.randn(9, 8), torch.randn(50, 8), torch.randn(50)
    targets, places = torch.randint(0, 50, (6,)), torch.tensor([0, 2, 3, 5, 7, 8])
    leaves = [tensor.requires_grad_() for tensor in (hidden, weight, bias)]
    scores = 1.7 * functional.linear(hidden, weight, bias)
    if bound is not None:
        scores = bound * torch.tanh(scores / bound)
    loss = functional.cross_entropy(scores[places], targets, reduction="sum")
    expected = torch.autograd.grad(3.0 * loss, leaves)
    for count in (1 << 22, 6 * 13):
        monkeypatch.setattr(MemoryPlan, "score_elements", staticmethod(lambda device, n=count: n))
        head = Head(ParameterWeight(weight), bias, AfterHead(1.7, bound))
        found = summed_nats(head, hidden, targets, places)
        torch.testing.assert_close(found, loss)
        for one, other in zip(torch.autograd.grad(3.0 * found, leaves), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunks", AT_ONCE)
def test_scores_too_large_for_exponentials(chunks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny_model("llama"), ragged_batch()
    with torch.no_grad():
        model.lm_head.weight.mul_(300.0)
    expected = plain_loss(model, batch)
    wanted = gradients(model, expected)
    assert float(expected.detach()) > 1000
    with at_once(monkeypatch, AT_ONCE[chunks], batch):
        found = summed_loss(model, batch)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        assert_same_gradients(gradients(model, found), wanted, rounding=1e-5)


def test_a_batch_without_targets_is_zero_and_so_are_its_gradients() -> None:
    model, batch = tiny_model("phi"), ragged_batch()
    nothing = Batch(batch.input_ids, batch.attention_mask, torch.full_like(batch.labels, IGNORED))
    loss = summed_loss(model, nothing)
    assert float(loss.detach()) == 0.0
    found = gradients(model, loss)
    assert "lm_head.weight" in found
    assert all(float(gradient.abs().max()) == 0 for gradient in found.values())


@pytest.mark.parametrize("chunks", AT_ONCE)
def test_a_frozen_head_passes_the_gradient_on(chunks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny_model("phi"), ragged_batch()
    model.lm_head.requires_grad_(False)
    wanted = gradients(model, plain_loss(model, batch))
    with at_once(monkeypatch, AT_ONCE[chunks], batch):
        assert_same_gradients(gradients(model, summed_loss(model, batch)), wanted)
    assert "lm_head.weight" not in wanted


@pytest.mark.parametrize("architecture", ["phi", "qwen2"])
def test_bfloat16_weights_that_compute_in_float32(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are float32; gradients arrive in the weights' own format."""
    model, batch = tiny_model(architecture).bfloat16(), ragged_batch()
    twin = tiny_model(architecture)
    twin.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    compute_in(model, torch.float32)
    expected = plain_loss(twin, batch)
    wanted = gradients(twin, expected)
    with at_once(monkeypatch, 77, batch):
        found = summed_loss(model, batch)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    got = {name.replace("parametrizations.", "").replace(".original", ""): gradient
           for name, gradient in gradients(model, found).items()}  # fmt: skip
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert got[name].dtype == torch.bfloat16
        apart = (got[name].float() - gradient).abs().max()
        assert float(apart) <= 2**-7 * float(gradient.abs().max()) + 1e-5, name


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("chunks", AT_ONCE)
def test_products_in_bfloat16_are_as_exact_as_the_models_own(
    chunks: str, automatic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under autocast weights and gradients are float32; otherwise everything is bfloat16."""
    model, batch = tiny_model("llama"), ragged_batch()
    exact = gradients(model, plain_loss(model, batch))
    dtype = torch.float32 if automatic else torch.bfloat16
    model = model.to(dtype)
    with (
        at_once(monkeypatch, AT_ONCE[chunks], batch),
        torch.autocast("cpu", torch.bfloat16, enabled=automatic),
    ):
        plain = gradients(model, plain_loss(model, batch))
        loss = summed_loss(model, batch)
        found = gradients(model, loss)
    assert loss.dtype == torch.float32
    for name, gradient in exact.items():
        assert found[name].dtype == dtype
        of_plain, of_found = (
            float((one[name].float() - gradient).norm()) for one in (plain, found)
        )
        assert of_found < 1.3 * of_plain + 1e-3 * float(gradient.norm()), name


def test_two_backward_passes_through_one_loss() -> None:
    model, batch = tiny_model("llama"), ragged_batch()
    loss = summed_loss(model, batch)
    once = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    again = torch.autograd.grad(loss, list(model.parameters()))
    for one, other in zip(once, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


class Shifted(nn.Module):
    """Adds to the scores what is neither a factor nor a limit."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY)
        self.shift = nn.Parameter(torch.linspace(-3, 3, VOCABULARY))

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.embedding(input_ids)) + self.shift)

    def get_output_embeddings(self) -> nn.Module:
        return self.head


class Doubling(nn.Linear):
    """A head that does more than its class says."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Padded(Shifted):
    """Lets every token see all others, so that padding is read."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        vectors = self.embedding(input_ids)
        weights = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mean = (vectors * weights.unsqueeze(-1)).sum(1, keepdim=True) / weights.sum(1)[
            :, None, None
        ]
        return SimpleNamespace(logits=self.head(vectors + mean))


@pytest.mark.parametrize("kind", ["shifted", "doubling", "padded"])
def test_what_is_not_understood_keeps_the_plain_loss(kind: str) -> None:
    torch.manual_seed(0)
    model: nn.Module = Padded() if kind == "padded" else Shifted()
    if kind == "doubling":
        model = tiny_model("llama")
        model.lm_head = Doubling(32, VOCABULARY, bias=False)
    batch = ragged_batch()
    expected = plain_loss(model, batch)
    found = summed_loss(model, batch)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert_same_gradients(gradients(model, found), gradients(model, expected))
    traits = traits_of(model)
    assert (traits.after_head is None) == (kind != "padded")
    assert traits.needs_mask == (kind == "padded")


def test_looking_at_a_model_leaves_it_as_it_was(tiny_folder: Callable[[str], Path]) -> None:
    model = load_model(tiny_folder("opt")).model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    traits_of(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


WINDOW: dict[str, Any] = {"sliding_window": 6}
WINDOWS: dict[str, dict[str, Any]] = {
    "mistral": WINDOW,
    "gemma2": WINDOW,
    "gemma3_text": {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen2": {**WINDOW, "use_sliding_window": True, "max_window_layers": 0},
    "phi3": WINDOW,
    "mixtral": WINDOW,
}


@pytest.mark.parametrize(
    ("architecture", "config"),
    [*((name, {}) for name in [*ARCHITECTURES, *SCALED]), *WINDOWS.items()],
    ids=str,
)
def test_padding_after_the_text_needs_no_mask(architecture: str, config: dict[str, Any]) -> None:
    model, batch = tiny_model(architecture, **config).eval(), ragged_batch()
    assert not traits_of(model).needs_mask
    with torch.no_grad():
        masked = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        bare = model(input_ids=batch.input_ids, attention_mask=None).logits
    real = batch.attention_mask.bool()
    torch.testing.assert_close(bare[real], masked[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_attention_is_the_fused_kernel_where_there_is_one(
    tiny_folder: Callable[[str], Path], architecture: str
) -> None:
    model: Any = load_model(tiny_folder(architecture)).model
    fused = architecture != "gemma2"  # whose attention has a cap, which the kernel lacks
    assert model.config._attn_implementation == ("sdpa" if fused else "eager")


def test_scores_of_a_large_vocabulary_are_never_whole() -> None:
    """128k words and 512 tokens: 256 MiB of scores in float32, several times over before."""
    vocabulary, tokens, hidden = 128 * 1024, 512, 64
    config = AutoConfig.for_model(
        "llama", **{**_LLAMA, "vocab_size": vocabulary, "hidden_size": hidden}
    )
    config.max_position_embeddings = max(CONTEXT, tokens)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    assert traits_of(model) == ModelTraits(AfterHead(), needs_mask=False)
    numbers = torch.randint(0, vocabulary, (2, tokens // 2 + 1))
    batch = Batch(numbers, torch.ones_like(numbers), numbers)
    assert batch.num_target_tokens == tokens
    with LiveTensorMeter([*model.parameters(), *model.buffers(), numbers]) as meter:
        held = meter.live_bytes
        loss = summed_loss(model, batch)
        forward = meter.peak_bytes - held
        (loss / tokens).backward()
        transient = meter.peak_bytes - held
    chunk = MemoryPlan.score_elements("cpu") * FLOAT32
    tables = 2 * vocabulary * hidden * FLOAT32  # the gradients of embedding and head
    assert forward < 2 * chunk
    assert transient < tables + 3 * chunk
    assert 3 * chunk < 0.2 * vocabulary * tokens * FLOAT32, "or the bound would prove nothing"
