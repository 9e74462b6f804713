"""QFT's layers are those of the model, whatever they are stored in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.contract.errors import RequestError, RequestErrors
from engine.data.batching import Batch
from engine.memory.plans import MemoryPlan
from engine.methods.protocol import NonFiniteError
from engine.methods.qft import method as qft_method
from engine.model import load_model
from engine.preparation import Prepared
from tests.published import ALL_IN_CODES, exact_gradients, stored_weights
from tests.tiny import ARCHITECTURES, assert_same_state, float_twin, prepared, snapshot, tiny_spec

Ready = Callable[..., Prepared]
STACK = {"gradients": "stack"}
NAN = float("nan")


@pytest.fixture
def ready(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Ready:
    def ready(architecture: str = "llama", **settings: Any) -> Prepared:
        train = {name: settings.pop(name) for name in ("seed", "batch_size") if name in settings}
        train = {"batch_size": 2, "grad_accumulation": settings.pop("accumulation", 1), **train}
        checkpointing = settings.pop("checkpointing", False)
        method = {"kind": "qft", **settings}
        folder = tiny_folder(architecture)
        spec = tiny_spec(
            folder, chats_file, method, activation_checkpointing=checkpointing, **train
        )
        return prepared(spec, tmp_path)

    return ready


def logits(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


@pytest.mark.parametrize("codes", [{}, ALL_IN_CODES, {"outlier_percent": 1.0}], ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_output_is_that_of_the_dequantized_twin(
    ready: Ready, architecture: str, codes: dict[str, Any]
) -> None:
    one = ready(architecture, **codes)
    batch = one.batches(1)[0]
    found, twin = logits(one.loaded.model, batch), logits(float_twin(one), batch)
    assert torch.allclose(found, twin, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [100, 1 << 18])
@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2"])
def test_a_layer_has_the_gradients_of_its_twin(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, architecture: str, chunk: int
) -> None:
    """Through the layer alone; the weight's own is a hundred times Lion's first momentum."""
    monkeypatch.setattr(MemoryPlan, "chunk_elements", staticmethod(lambda device: chunk))
    exact_gradients(monkeypatch, moments=True)
    one = ready(architecture)
    name = {"llama": "model.layers.0.mlp.up_proj", "gpt2": "transformer.h.0.mlp.c_fc"}.get(
        architecture, "model.decoder.layers.0.fc1"
    )
    layer = one.loaded.model.get_submodule(name)
    weight = dict(one.method.weights())[f"{name}.weight"].clone().requires_grad_()
    inputs = torch.randn(3, 5, 32, requires_grad=True)
    twin_inputs = inputs.detach().clone().requires_grad_()
    outputs = layer(inputs)
    matrix = weight.T if architecture == "gpt2" else weight
    bias: Any = getattr(layer, "bias", None)
    twin_outputs = functional.linear(twin_inputs, matrix, None if bias is None else bias.detach())
    assert torch.allclose(outputs, twin_outputs, atol=1e-6)
    slope = torch.randn_like(outputs)
    outputs.backward(slope)
    twin_outputs.backward(slope)
    moments = {name: values for name, _, values in one.method.moments()}
    assert inputs.grad is not None
    assert twin_inputs.grad is not None
    assert weight.grad is not None
    assert torch.allclose(inputs.grad, twin_inputs.grad, atol=1e-5)
    assert torch.allclose(100 * moments[f"{name}.weight"], weight.grad, atol=2e-5)


@pytest.mark.parametrize("settings", [{}, {"update": "adamw", **STACK}], ids=str)
def test_int8_products_train_as_well(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    # Right on any CPU; refused on one where they are slow.
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    exact, rounded = ready(**settings), ready(matmul="int8", **settings)
    batch = exact.batches(1)[0]
    one, two = (logits(each.loaded.model, batch) for each in (exact, rounded))
    assert not torch.equal(one, two)
    assert float((one - two).norm() / one.norm()) < 0.02
    norms = [each.method.step([batch], 1e-3, 1).grad_norm for each in (exact, rounded)]
    assert norms[1] == pytest.approx(norms[0], rel=0.02)
    losses = [rounded.method.step([batch], 3e-3, step).loss_nats for step in range(2, 12)]
    assert losses[-1] < 0.9 * losses[0]


def test_int8_products_are_refused_where_they_are_slow_before_anything_is_created(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(RequestErrors, match="no fast 8-bit products") as found:
        ready(matmul="int8")
    assert [error.field for error in found.value.errors] == ["method.matmul"]
    assert not any(path.name.startswith("20") for path in tmp_path.iterdir())


@pytest.mark.parametrize(("size", "chunks"), [(1, 64), (64, 32), (130, 16), (2048, 1)])
def test_chunks_are_whole_rows_and_take_each_once(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, size: int, chunks: int
) -> None:
    seen: dict[str, list[slice]] = {}
    original = qft_method.QftMethod._update

    def noting(self: Any, weight: Any, rows: slice, gradient: Tensor) -> None:
        seen.setdefault(weight.name, []).append(rows)
        original(self, weight, rows, gradient)

    monkeypatch.setattr(qft_method.QftMethod, "_update", noting)
    monkeypatch.setattr(MemoryPlan, "chunk_elements", staticmethod(lambda device: size))
    one = ready()
    one.method.step(one.batches(1), 1e-3, 1)
    found = seen["model.layers.0.mlp.up_proj.weight"]  # 64 rows of 32
    assert len(found) == chunks
    assert [row for rows in found for row in range(rows.start, rows.stop)] == list(range(64))


def test_small_rates_move_codes_only_with_stochastic_rounding(ready: Ready) -> None:
    moved = {}
    for rounding in ("stochastic", "nearest"):
        one = ready(rounding=rounding)
        before = snapshot(one)
        report = one.method.step(one.batches(1), 1e-5, 1)
        moved[rounding] = report.metrics["codes_changed_percent"]
        codes = [name for name in before if name.endswith("weight.codes")]
        changed = sum(int((before[n] != one.method.state_dict()[n]).sum()) for n in codes)
        total = sum(before[name].numel() for name in codes)
        assert moved[rounding] == pytest.approx(100 * changed / total)
    assert moved["nearest"] == 0
    assert 0.1 < moved["stochastic"] < 20


def test_the_seed_decides_the_rounding(ready: Ready) -> None:
    states = []
    for seed in (0, 0, 1):
        one = ready(seed=seed)
        one.method.step(ready(seed=0).batches(1), 1e-4, 1)
        states.append(snapshot(one))
    assert_same_state(states[0], states[1])
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(states[0][f"{name}/weight.codes"], states[2][f"{name}/weight.codes"])
    assert torch.equal(states[0][f"{name}/momentum.codes"], states[2][f"{name}/momentum.codes"])


@pytest.mark.parametrize("settings", [{}, {**STACK, **ALL_IN_CODES}], ids=str)
def test_bfloat16_computation_trains(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """As on a GPU; what is small is stored in float32 all the same, or in codes."""
    monkeypatch.setattr(qft_method, "compute_dtype", lambda _: torch.bfloat16)
    one = ready("opt", **settings)
    batch = one.batches(1)[0]
    found = logits(one.loaded.model, batch)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), logits(float_twin(one), batch), atol=0.02)
    losses = [one.method.step([batch], 3e-3, step).loss_nats for step in range(1, 9)]
    assert losses[-1] < 0.9 * losses[0]
    small = [s for s in stored_weights(one, snapshot(one)) if not s.decays]
    assert len(small) > 10
    parts = {next(iter(stored.weight.tensors().values())).dtype for stored in small}
    assert parts == {torch.int8 if settings else torch.float32}


def spoil(model: Any, times: float) -> None:
    """Multiply one layer's gradient in every backward pass from here on."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        output.register_hook(lambda gradient: gradient * times)

    model.model.layers[0].mlp.down_proj.register_forward_hook(hook)


WEIGHT = r"model\.layers\.0\.mlp\.down_proj\.weight"


@pytest.mark.parametrize("times", [NAN, float("inf")])
@pytest.mark.parametrize("codes", [{}, ALL_IN_CODES], ids=str)
def test_a_gradient_that_is_no_number_stops_a_fused_step(
    ready: Ready, times: float, codes: dict[str, Any]
) -> None:
    one = ready(**codes)
    spoil(one.loaded.model, times)
    with pytest.raises(NonFiniteError, match=WEIGHT) as found:
        one.method.step(one.batches(1), 1e-3, 1)
    assert not found.value.weights_intact
    assert all(parameter.grad is None for parameter in one.loaded.model.parameters())


@pytest.mark.parametrize("times", [NAN, float("inf")])
@pytest.mark.parametrize("settings", [{}, {"update": "adamw", "outlier_percent": 1.0}], ids=str)
def test_a_gradient_that_is_no_number_moves_nothing_on_a_stack(
    ready: Ready, times: float, settings: dict[str, Any]
) -> None:
    one = ready(**STACK, **settings)
    one.method.step(one.batches(1), 1e-3, 1)
    before = snapshot(one)
    spoil(one.loaded.model, times)
    with pytest.raises(NonFiniteError, match=WEIGHT) as found:
        one.method.step(one.batches(2), 1e-3, 2)
    assert found.value.weights_intact
    assert_same_state(before, snapshot(one))


@pytest.mark.parametrize("settings", [{}, {**STACK, "accumulation": 3}], ids=str)
def test_a_loss_that_is_no_number_moves_nothing(ready: Ready, settings: dict[str, Any]) -> None:
    """Not even where earlier micro-batches have gradients on the stack; and nothing stays there."""
    one, untouched = ready(**settings), ready(**settings)
    model: Any = one.loaded.model
    before = snapshot(one)
    calls: list[int] = []

    def overflow(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        calls.append(1)
        return output * float("inf") if len(calls) == len(one.batches(1)) else output

    handle = model.model.norm.register_forward_hook(overflow)
    with pytest.raises(NonFiniteError, match="the loss") as found:
        one.method.step(one.batches(1), 1e-3, 1)
    assert found.value.weights_intact
    assert_same_state(before, snapshot(one))
    handle.remove()
    for each in (one, untouched):
        each.method.step(each.batches(1), 1e-3, 1)
    assert_same_state(snapshot(one), snapshot(untouched))


def test_a_damaged_weight_is_refused(ready: Ready, tiny_folder: Callable[[str], Path]) -> None:
    one = ready()
    loaded: Any = load_model(tiny_folder("llama"), None)
    with torch.no_grad():
        loaded.model.model.norm.weight[3] = NAN
    with pytest.raises(RequestError, match=r"model\.norm\.weight holds NaN or infinity"):
        qft_method.QftMethod().prepare(loaded.model, one.spec, one.device)
