"""QLoRA: the base is what bitsandbytes keeps in 4 bits, and stays it, whatever is done between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from bitsandbytes.functional import quantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from engine.adapters import freeze, merged_weights
from engine.contract.errors import RequestError
from engine.evaluate import held_out_loss, sample_replies
from engine.four_bit import (
    FourBitFormat,
    dequantized,
    is_four_bit,
    quantize_linear_layers,
    scale_tensors,
)
from engine.generate import never
from engine.model import load_model
from engine.preparation import Prepared
from engine.roles import named_weights
from engine.tensor_meter import LiveTensorMeter
from tests.tiny import (
    ARCHITECTURES,
    assert_same_state,
    prepared,
    scores,
    snapshot,
    tiny_model_folder,
    tiny_spec,
)

NF4 = FourBitFormat("nf4", double_quant=True)
CPU = torch.device("cpu")
# "QLoRA: Efficient Finetuning of Quantized LLMs", appendix E.
NF4_VALUES = (
    *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
)
WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}
Ready = Callable[..., Prepared]


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of at least 64 values: narrower ones no fused kernel takes."""
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "wide", **WIDE)


@pytest.fixture
def ready(
    tiny_folder: Callable[[str], Path], wide_folder: Path, chats_file: Path, tmp_path: Path
) -> Ready:
    def ready(
        architecture: str = "wide", settings: dict[str, Any] | None = None, **train: Any
    ) -> Prepared:
        folder = wide_folder if architecture == "wide" else tiny_folder(architecture)
        method = {"kind": "qlora", "rank": 8, **(settings or {})}
        return prepared(tiny_spec(folder, chats_file, method, **train), tmp_path / "runs")

    return ready


def four_bit_layers(model: nn.Module) -> dict[str, Linear4bit]:
    return {
        name.removesuffix(".base_layer"): cast("Linear4bit", module)
        for name, module in model.named_modules()
        if is_four_bit(module)
    }


def nearest_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes two to a byte, the first in the high bits, and values: by looking at all sixteen."""
    blocks = weight.float().view(-1, 64)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    values = torch.tensor(NF4_VALUES)
    codes = ((blocks / scales)[..., None] - values).abs().argmin(dim=-1)
    packed = codes.view(-1, 2)[:, 0] * 16 + codes.view(-1, 2)[:, 1]
    return packed.to(torch.uint8), (values[codes] * scales).view_as(weight)


def test_codes_are_the_nearest_of_the_sixteen_published_values(wide_folder: Path) -> None:
    model = load_model(wide_folder, torch.bfloat16).model
    original = {
        named.name.removesuffix(".weight"): named.parameter.detach().clone()
        for named in named_weights(model)
    }
    count = quantize_linear_layers(model, NF4, CPU, torch.float32)
    layers = four_bit_layers(model)
    assert count == len(layers) == 14
    for name, layer in layers.items():
        codes, values = nearest_nf4(original[name])
        own = cast("Any", layer.weight).data.flatten()
        # A value just between two codes may go either way.
        assert float((own != codes).double().mean()) < 2e-3, name
        found = dequantized(layer).float()
        # Double quantization moves a scale by up to some percent.
        assert float((found - values).norm() / values.norm()) < 0.02, name
        again, state = quantize_4bit(original[name], quant_type="nf4", compress_statistics=True)
        assert torch.equal(own, again.flatten())
        assert torch.equal(cast("Any", layer.weight).quant_state.absmax, state.absmax)


@pytest.mark.parametrize(("double_quant", "bits"), [(True, 4.127), (False, 4.5)])
def test_a_weight_takes_the_published_number_of_bits(double_quant: bool, bits: float) -> None:
    """4 for the code; 8/64 + 32/(64 * 256), or 32/64, for its share of a scale."""
    holder: Any = nn.Module()
    holder.layer = nn.Linear(512, 2048, bias=False, dtype=torch.bfloat16)
    holder.get_output_embeddings = lambda: None
    form = FourBitFormat("nf4", double_quant)
    assert quantize_linear_layers(holder, form, CPU, torch.float32) == 1
    held = [holder.layer.weight, *scale_tensors(holder)]
    tables = 4 * 16 + (4 * 256 + 4) * double_quant  # of the values, and the mean scale
    size = sum(tensor.nbytes for tensor in held) - tables
    assert 8 * size / (512 * 2048) == pytest.approx(bits, abs=5e-4)


def test_each_matrix_is_freed_once_it_is_in_four_bits(tmp_path: Path) -> None:
    """Nothing but the 4-bit weights is left, and one matrix at a time was there twice."""
    config: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}
    model = load_model(tiny_model_folder(tmp_path / "model", **config)).model
    largest = 256 * 512
    with LiveTensorMeter(model.parameters()) as meter:
        before = meter.live_bytes
        quantize_linear_layers(model, NF4, CPU, torch.float32)
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *scale_tensors(model)))
    assert meter.live_bytes < held + 4096  # a table that bitsandbytes keeps for itself
    # Its codes, its scales, and what quantizing needs: less than a copy in float32.
    assert meter.peak_bytes < before + 4 * largest
    assert before - held > 2 * sum(p.numel() for p in model.parameters() if p.dtype == torch.uint8)


@pytest.mark.parametrize(
    "settings",
    [{}, {"quant_type": "fp4"}, {"double_quant": False}, {"preset": "paper"}],
    ids=str,
)
def test_twenty_steps_lower_the_loss_and_leave_the_base(
    ready: Ready, settings: dict[str, Any]
) -> None:
    one = ready(settings={"rank": 8, **settings})
    layers = four_bit_layers(one.loaded.model)
    before = {name: cast("Any", layer.weight).data.clone() for name, layer in layers.items()}
    batch = one.batches(1)[0]
    losses = [one.method.step([batch], 1e-2, step).loss_nats for step in range(1, 21)]
    assert losses[-1] < 0.9 * losses[0]
    for name, layer in layers.items():
        weight: Any = layer.weight
        assert torch.equal(weight.data, before[name])
        assert weight.quant_type == settings.get("quant_type", "nf4")
        assert weight.quant_state.nested == settings.get("double_quant", True)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "gpt2"])
def test_every_architecture_learns_beside_four_bits(ready: Ready, architecture: str) -> None:
    one = ready(architecture, batch_size=2)
    model = one.loaded.model
    layers = {name.partition(".lora_")[0] for name, _ in one.method.weights()}
    assert layers == set(four_bit_layers(model))
    kept = {p.dtype for name, p in model.named_parameters() if "bias" not in name}
    assert kept == {torch.uint8, torch.bfloat16, torch.float32}
    assert all(
        p.dtype == torch.bfloat16
        for name, p in model.named_parameters()
        if "embed" in name or "lm_head" in name or "norm" in name.lower()
    )
    batch = one.batches(1)[0]
    losses = [one.method.step([batch], 5e-3, step).loss_nats for step in range(1, 13)]
    assert losses[-1] < (0.99 if architecture == "mixtral" else 0.97) * losses[0]


def test_a_layer_computes_with_what_its_codes_mean(ready: Ready) -> None:
    """Forward and the gradient of its input, against a plain layer of the dequantized weight."""
    (layer, *_) = four_bit_layers(ready().loaded.model).values()
    inputs = torch.randn(3, 5, layer.in_features, requires_grad=True)
    twin = inputs.detach().clone().requires_grad_(True)
    found, expected = layer(inputs), nn.functional.linear(twin, dequantized(layer).float())
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(
        cast("Tensor", inputs.grad), cast("Tensor", twin.grad), rtol=1e-4, atol=1e-5
    )


def test_evaluation_does_not_change_how_it_trains(ready: Ready) -> None:
    """Passes in evaluation mode without gradients are where bitsandbytes repacks its weights."""
    one, other = ready(), ready()
    before = {name: dequantized(one) for name, one in four_bit_layers(one.loaded.model).items()}
    for step in range(1, 4):
        measured = held_out_loss(one.loaded, one.evaluation, 4, CPU, never)
        assert measured is not None
        assert len(sample_replies(one.loaded, ["And then?"], never)) == 1
        batches = one.batches(step)
        assert one.method.step(batches, 1e-2, step) == other.method.step(batches, 1e-2, step)
    assert_same_state(snapshot(one), snapshot(other))
    for name, layer in four_bit_layers(one.loaded.model).items():
        assert torch.equal(dequantized(layer), before[name]), name
    # On a processor that would not repack anyway, this alone can tell.
    layers = four_bit_layers(one.loaded.model).values()
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    flows: dict[str, bool] = {}
    for name, layer in four_bit_layers(one.loaded.model).items():
        inputs = torch.randn(2, layer.in_features, requires_grad=True)
        layer(inputs).sum().backward()
        flows[name] = inputs.grad is not None and bool(inputs.grad.any())
    assert flows == dict.fromkeys(before, True)


def test_merged_weights_say_what_base_and_adapter_say(ready: Ready) -> None:
    """After an evaluation too; each weight of the original once, in bfloat16."""
    one = ready()
    batch = one.batches(1)[0]
    for step in range(1, 13):
        one.method.step([batch], 1e-2, step)
    expected = scores(one.loaded.model, batch)
    merged = dict(merged_weights(one.loaded.model))
    twin = AutoModelForCausalLM.from_pretrained(one.loaded.folder)
    base = scores(twin.float(), batch)
    assert merged.keys() == {named.name for named in named_weights(twin)}
    assert {weight.dtype for weight in merged.values()} == {torch.bfloat16}
    with torch.no_grad():
        for named in named_weights(twin):
            named.parameter.copy_(merged[named.name])
    found = scores(twin, batch)
    assert float((found - expected).norm() / expected.norm()) < 0.02
    assert float((base - expected).norm() / expected.norm()) > 0.2


def test_ten_steps_are_five_and_five_bitwise_with_moments_in_eight_bits(ready: Ready) -> None:
    settings = {"rank": 64, "dropout": 0.1, "optimizer": "adamw_8bit"}
    whole, first = ready(settings=settings), ready(settings=settings)

    def work(one: Prepared, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            one.method.step(one.batches(step), 1e-2, step)

    work(whole, range(1, 11))
    work(first, range(1, 6))
    saved = snapshot(first)
    assert {tensor.dtype for tensor in saved.values()} == {torch.uint8, torch.float32}
    resumed = ready(settings=settings)
    assert resumed.method.state_dict().keys() == saved.keys()
    for name, tensor in resumed.method.state_dict().items():
        tensor.copy_(saved[name])
    work(resumed, range(6, 11))
    assert_same_state(snapshot(resumed), snapshot(whole))
    assert not torch.equal(*(next(iter(state.values())) for state in (saved, snapshot(whole))))


def test_checkpointed_activations_give_the_same_step_bitwise(ready: Ready) -> None:
    states: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        one = ready(activation_checkpointing=checkpointing)
        for step in (1, 2):
            one.method.step(one.batches(step), 1e-3, step)
        states.append(snapshot(one))
    assert_same_state(*states)


def test_a_model_without_such_layers_is_told_to_use_lora(ready: Ready, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as found:
        ready("gpt2")
    assert found.value.as_json() == {
        "class": "bad_request",
        "field": "method.kind",
        "message": "this model has no linear layer that can be kept in 4 bits.",
        "advice": "Use lora, which keeps the model in 16 bits.",
    }
    assert not (tmp_path / "runs").exists()


def test_biases_stay_what_they_are_in_the_format_of_the_products(
    tiny_folder: Callable[[str], Path],
) -> None:
    model = load_model(tiny_folder("opt")).model
    original = {name: p.clone() for name, p in model.named_parameters() if name.endswith("bias")}
    freeze(model, NF4, CPU)
    layers = four_bit_layers(model)
    assert layers
    for name, layer in layers.items():
        assert layer.bias.dtype == torch.float32
        assert torch.equal(layer.bias, original[f"{name}.bias"].float())
