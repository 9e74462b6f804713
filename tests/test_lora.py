"""LoRA: an adapter beside a frozen model learns, and is all that learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from engine.contract.adapter_targets import is_target
from engine.contract.errors import RequestError
from engine.data.batching import collate
from engine.inspect_model import shape_of
from engine.loss import summed_loss
from engine.methods.protocol import NonFiniteError
from engine.model import load_model
from engine.preparation import Prepared
from tests.tiny import (
    ARCHITECTURES,
    assert_same_state,
    prepared,
    scores,
    snapshot,
    tiny_model_folder,
    tiny_spec,
)

RANK, ALPHA = 4, 8.0
Ready = Callable[..., Prepared]


@pytest.fixture
def ready(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Ready:
    def ready(
        architecture: str = "llama", settings: dict[str, Any] | None = None, **train: Any
    ) -> Prepared:
        method = {"kind": "lora", "rank": RANK, "alpha": ALPHA, **(settings or {})}
        spec = tiny_spec(tiny_folder(architecture), chats_file, method, **train)
        return prepared(spec, tmp_path / "runs")

    return ready


def frozen(one: Prepared) -> dict[str, Tensor]:
    parameters = one.loaded.model.named_parameters()
    return {name: p.detach().clone() for name, p in parameters if not p.requires_grad}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_adapter_learns_and_the_model_stays(ready: Ready, architecture: str) -> None:
    one = ready(architecture, batch_size=2)
    model = one.loaded.model
    layers = shape_of(load_model(one.loaded.folder).model, "").linear_layers
    names = {f"{layer}.lora_{side}.default.weight" for layer in layers for side in "AB"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == names
    assert {name for name, _ in one.method.weights()} == names
    assert all(weight.dtype == torch.float32 for _, weight in one.method.weights())
    before, adapter = frozen(one), snapshot(one)
    assert {t.dtype for t in before.values()} == {torch.bfloat16}
    batch = one.batches(1)[0]
    losses = [one.method.step([batch], 1e-2, step).loss_nats for step in range(1, 21)]
    # A random mixture's layers have next to no say beside its experts, which are frozen.
    assert losses[-1] < (0.98 if architecture == "mixtral" else 0.95) * losses[0]
    after = frozen(one)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    moved = one.method.state_dict()
    assert [
        name for name in names if torch.equal(moved[f"{name}/weight"], adapter[f"{name}/weight"])
    ] == []
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_before_the_first_step_it_says_what_the_model_says(ready: Ready, architecture: str) -> None:
    """B is zero."""
    one = ready(architecture)
    plain = AutoModelForCausalLM.from_pretrained(one.loaded.folder).float()
    batch = one.batches(1)[0]
    expected = scores(plain, batch)
    assert torch.allclose(scores(one.loaded.model, batch), expected, atol=1e-5)


class PlainLora(nn.Module):
    """A layer of the published equation, in float32."""

    def __init__(self, linear: nn.Linear, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.linear, self.a, self.b = linear, nn.Parameter(a), nn.Parameter(b)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + ALPHA / RANK * (x @ self.a.T) @ self.b.T


@pytest.mark.parametrize("clip", [None, 0.1])
def test_three_steps_are_those_of_the_published_equation(ready: Ready, clip: float | None) -> None:
    one = ready(settings={"optimizer": "adamw"}, weight_decay=0.1, max_grad_norm=clip)
    twin: Any = AutoModelForCausalLM.from_pretrained(one.loaded.folder).float().train()
    twin.requires_grad_(False)
    weights = {name: weight.clone() for name, weight in one.method.weights()}
    layers: dict[str, PlainLora] = {}
    for path in {name.partition(".lora_")[0] for name in weights}:
        a, b = (weights[f"{path}.lora_{side}.default.weight"] for side in "AB")
        layers[path] = PlainLora(twin.get_submodule(path), a, b)
        parent, _, name = path.rpartition(".")
        setattr(twin.get_submodule(parent), name, layers[path])
    trained = [p for p in twin.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.999), weight_decay=0.1)
    for step in (1, 2, 3):
        (batch,) = one.batches(step)
        report = one.method.step([batch], 1e-3 * step, step)
        loss = summed_loss(twin, batch) / batch.num_target_tokens
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, clip or float("inf"))
        optimizer.param_groups[0]["lr"] = 1e-3 * step
        optimizer.step()
        optimizer.zero_grad()
        assert report.loss_nats / report.num_target_tokens == pytest.approx(loss.item(), rel=1e-5)
        assert report.grad_norm == pytest.approx(float(norm), rel=1e-3)
        assert report.grad_norm > 0.1, "or clipping to 0.1 would do nothing"
    for name, weight in one.method.weights():
        path, _, side = name.partition(".lora_")
        expected = layers[path].a if side[0] == "A" else layers[path].b
        assert torch.allclose(weight, expected, rtol=1e-3, atol=1e-5), name


def test_micro_batches_make_the_step_of_one_large_batch(ready: Ready) -> None:
    one, other = ready(grad_accumulation=2), ready()
    pad = one.loaded.pad_token
    short, long = sorted(one.training, key=lambda e: e.num_trained)[:2], one.training[:4]
    pieces = [collate(short, pad), collate(long, pad)]
    in_pieces = one.method.step(pieces, 1e-3, 1)
    at_once = other.method.step([collate([*short, *long], pad)], 1e-3, 1)
    assert in_pieces.num_target_tokens == at_once.num_target_tokens
    assert in_pieces.loss_nats == pytest.approx(at_once.loss_nats, rel=1e-5)
    assert in_pieces.grad_norm == pytest.approx(at_once.grad_norm, rel=1e-4)


def test_the_seed_decides_the_adapter(ready: Ready) -> None:
    one, same, other = (snapshot(ready(seed=seed)) for seed in (1, 1, 2))
    assert_same_state(one, same)
    matrices = [name for name in one if "lora_A" in name and name.endswith("/weight")]
    assert matrices
    assert not any(torch.equal(one[name], other[name]) for name in matrices)


def test_laying_out_an_adapter_draws_no_random_numbers_of_others(ready: Ready) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ready()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"])
def test_moments_exist_before_the_first_step_and_are_used(ready: Ready, optimizer: str) -> None:
    """Wide enough for 8 bits, which bitsandbytes keeps to matrices of 4,096 and more."""
    one = ready(settings={"optimizer": optimizer, "rank": 128})
    before = snapshot(one)
    one.method.step(one.batches(1), 1e-3, 1)
    after = one.method.state_dict()
    assert before.keys() == after.keys()
    eight_bits = [name for name, tensor in after.items() if tensor.dtype == torch.uint8]
    assert bool(eight_bits) == optimizer.endswith("8bit")
    seen: dict[str, set[str]] = {}
    shapes = {name: weight.shape for name, weight in one.method.weights()}
    for name, moment, values in one.method.moments():
        seen.setdefault(name, set()).add(moment)
        assert values.dtype == torch.float32
        assert values.shape == shapes[name]
        # B is zero, so A has no slope yet.
        assert bool(values.any()) == ("lora_B" in name), (name, moment)
    assert seen == {name: {"exp_avg", "exp_avg_sq"} for name in shapes}


def test_decay_pulls_the_adapter(ready: Ready) -> None:
    """With a slope of zero, decay alone moves it."""
    one = ready(weight_decay=0.5)
    before = snapshot(one)
    for parameter in one.loaded.model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(torch.zeros_like)
    one.method.step(one.batches(1), 1e-2, 1)
    for name, weight in one.method.weights():
        assert torch.allclose(weight, before[f"{name}/weight"] * 0.995, atol=0, rtol=1e-6)


def test_dropout_is_drawn_anew_at_every_step_and_off_in_evaluation(ready: Ready) -> None:
    one = ready(settings={"dropout": 0.5})
    batch = one.batches(1)[0]
    one.method.step([batch], 1e-2, 1)
    model = one.loaded.model.train()
    with torch.no_grad():
        first, second = (float(summed_loss(model, batch)) for _ in range(2))
    assert first != second
    assert torch.equal(scores(model, batch), scores(model, batch))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_checkpointed_activations_give_the_same_step_bitwise(
    ready: Ready, architecture: str
) -> None:
    states: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        one = ready(architecture, activation_checkpointing=checkpointing)
        for step in (1, 2):
            one.method.step(one.batches(step), 1e-3, step)
        states.append(snapshot(one))
    assert_same_state(*states)


def test_named_layers_alone_get_an_adapter(ready: Ready) -> None:
    one = ready(settings={"targets": "q_proj, mlp.up_proj,model.layers.1.self_attn.o_proj"})
    layers = {name.partition(".lora_")[0] for name, _ in one.method.weights()}
    assert layers == {
        *(f"model.layers.{block}.self_attn.q_proj" for block in (0, 1)),
        *(f"model.layers.{block}.mlp.up_proj" for block in (0, 1)),
        "model.layers.1.self_attn.o_proj",
    }


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        ("q_proj,query", "this model has no linear layer called query."),
        ("proj", "this model has no linear layer called proj."),
        ("lm_head", "this model has no linear layer called lm_head."),
        (" , ", "this model has no linear layer."),
    ],
)
def test_a_name_of_no_layer_is_refused_before_anything_is_made(
    ready: Ready, tmp_path: Path, targets: str, sentence: str
) -> None:
    with pytest.raises(RequestError) as found:
        ready(settings={"targets": targets})
    assert found.value.field == "method.targets"
    assert found.value.message == sentence
    assert found.value.advice == (
        "Use all-linear, or some of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("all-linear", True),
        ("c_attn", True),
        ("attn.c_attn", True),
        ("transformer.h.0.attn.c_attn", True),
        ("attn", False),
        ("c_proj", False),
        ("", False),
    ],
)
def test_a_name_is_a_path_or_its_end(targets: str, expected: bool) -> None:
    assert is_target("transformer.h.0.attn.c_attn", targets) == expected


def test_paged_moments_on_a_cpu_are_told_to_be_plain(ready: Ready, tmp_path: Path) -> None:
    ready(settings={"optimizer": "paged_adamw"})
    (run,) = (tmp_path / "runs").iterdir()
    told = "Paged moments need a GPU to page from: adamw is used."
    assert told in (run / "events.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("stored", [torch.float16, torch.float32], ids=str)
def test_the_base_is_kept_in_bfloat16_however_it_was_stored(
    chats_file: Path, tmp_path: Path, stored: torch.dtype
) -> None:
    folder = tiny_model_folder(tmp_path / "model", dtype=stored)
    one = prepared(tiny_spec(folder, chats_file, "lora"), tmp_path / "runs")
    assert {tensor.dtype for tensor in frozen(one).values()} == {torch.bfloat16}


@pytest.mark.parametrize("spoils_gradient", [False, True])
def test_what_is_no_number_moves_nothing(ready: Ready, spoils_gradient: bool) -> None:
    one = ready()
    one.method.step(one.batches(1), 1e-3, 1)
    before = snapshot(one)

    def spoil(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        if spoils_gradient:
            output.register_hook(lambda gradient: gradient * float("nan"))
            return output
        return output * float("nan")

    one.loaded.model.get_submodule("model.layers.1.mlp.down_proj").register_forward_hook(spoil)
    with pytest.raises(NonFiniteError) as found:
        one.method.step(one.batches(2), 1e-3, 2)
    assert found.value.weights_intact
    assert_same_state(before, snapshot(one))
    assert all(parameter.grad is None for parameter in one.loaded.model.parameters())


def test_a_damaged_weight_is_named(chats_file: Path, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"].view(-1)[5] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN"):
        prepared(tiny_spec(folder, chats_file, "lora"), tmp_path / "runs")
