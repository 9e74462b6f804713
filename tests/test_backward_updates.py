"""What LOMO and AdaLomo share: updates inside the backward pass, one gradient alive at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from engine.contract.spec_file import validate_spec
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.memory.plans import MemoryPlan
from engine.methods import METHODS
from engine.methods.protocol import NonFiniteError
from engine.preparation import Prepared
from engine.roles import named_weights
from engine.tensor_meter import LiveTensorMeter
from tests.tiny import (
    ARCHITECTURES,
    assert_same_state,
    prepared,
    snapshot,
    tiny_model_folder,
    tiny_spec,
)

KINDS = ("lomo", "adalomo")
RATES = {"lomo": 0.3, "adalomo": 5e-2}
CPU = torch.device("cpu")
Ready = Callable[..., Prepared]


@pytest.fixture
def ready(tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path) -> Ready:
    def ready(method: dict[str, Any], architecture: str | Path = "llama", **train: Any) -> Prepared:
        folder = tiny_folder(architecture) if isinstance(architecture, str) else architecture
        settings = {"precision": "bf16", **method}
        return prepared(tiny_spec(folder, chats_file, settings, **train), tmp_path)

    return ready


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_and_every_matrix_moves(ready: Ready, kind: str, architecture: str) -> None:
    one = ready({"kind": kind}, architecture, batch_size=2)
    batch = one.batches(1)[0]
    before = {name: weight.clone() for name, weight in one.method.weights()}
    rate = RATES[kind]
    losses = [one.method.step([batch], rate, step).loss_nats for step in range(1, 13)]
    assert losses[-1] < 0.92 * losses[0]
    after = dict(one.method.weights())
    assert {weight.dtype for weight in after.values()} == {torch.bfloat16}
    # A norm's weight of 1 has coarse steps in bfloat16, and may stay for a while.
    unmoved = [name for name in before if torch.equal(before[name], after[name])]
    assert [name for name in unmoved if before[name].ndim > 1] == []


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mixtral", "opt"])
@pytest.mark.parametrize("clip", ["none", "two_pass_norm"])
def test_one_gradient_is_alive_at_a_time(ready: Ready, clip: str, architecture: str) -> None:
    method = {"kind": "lomo", "clip": clip}
    one = ready(method, architecture, max_grad_norm=None if clip == "none" else 1.0)
    parameters = list(one.loaded.model.parameters())
    arrived: list[int] = []

    def look(parameter: Tensor) -> None:
        arrived.append(id(parameter))
        assert all(p.grad is None for p in parameters), "it has been used and freed"

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(look)  # after the method's own
    one.method.step(one.batches(1), 1e-3, 1)
    passes = 1 if clip == "none" else 2
    assert sorted(arrived) == sorted(passes * [id(parameter) for parameter in parameters])
    assert all(p.grad is None for p in parameters)


def test_a_weight_that_is_needed_after_its_update_is_an_error(ready: Ready) -> None:
    """And not a wrong gradient in silence."""
    one = ready({"kind": "lomo", "precision": "fp32"})
    model: Any = one.loaded.model
    weight = model.model.norm.weight
    with torch.no_grad():
        before = weight._version
    one.method.step(one.batches(1), 1e-3, 1)
    assert weight._version > before
    inputs = torch.ones(3, weight.numel(), requires_grad=True)
    later = (inputs * weight.detach()).sum()  # its backward needs the weight as it is now
    one.method.step(one.batches(2), 1e-3, 2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        later.backward()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_second_pass_sees_what_the_first_saw(
    ready: Ready, tmp_path: Path, kind: str, checkpointing: bool
) -> None:
    """Dropout included: a limit that is never reached changes nothing."""
    rates: dict[str, Any] = {"dropout": 0.2, "attention_dropout": 0.1, "activation_dropout": 0.1}
    folder = tiny_model_folder(tmp_path / "model", "opt", **rates)
    states = []
    for limit in (None, 1e6):
        clip = "none" if limit is None else "two_pass_norm"
        train = {"max_grad_norm": limit, "activation_checkpointing": checkpointing}
        one = ready({"kind": kind, "clip": clip, "precision": "fp32"}, folder, **train)
        torch.manual_seed(3)
        reports = [one.method.step(one.batches(step), 1e-2, step) for step in (1, 2)]
        assert [report.metrics.get("clip_factor") for report in reports] == 2 * [limit and 1.0]
        states.append((snapshot(one), [report.grad_norm for report in reports]))
    (plain, lengths), (clipped, measured) = states
    assert lengths == pytest.approx(measured, rel=1e-6)
    for name, weight in plain.items():
        # The bias of a key has no gradient but rounding, which AdaLomo makes as long as any.
        if "k_proj.bias" not in name:
            assert torch.allclose(weight, clipped[name], rtol=1e-4, atol=2e-7), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "opt"])
def test_frozen_embeddings_stay_and_cost_nothing(
    ready: Ready, kind: str, architecture: str
) -> None:
    one = ready({"kind": kind, "embedding_rate": 0.0, "precision": "fp32"}, architecture)
    model: Any = one.loaded.model
    tables = {w.name for w in named_weights(model) if w.role == "embedding"}
    before = {name: weight.clone() for name, weight in one.method.weights()}
    assert tables
    assert tables < before.keys()
    for step in (1, 2):
        one.method.step(one.batches(step), RATES[kind], step)
    after = dict(one.method.weights())
    assert {name for name in before if torch.equal(before[name], after[name])} == tables
    trained = {key.partition("/")[0] for key in one.method.state_dict()}
    assert trained == before.keys() - tables
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained


def test_embeddings_go_at_their_own_rate(ready: Ready) -> None:
    """LOMO's step is the gradient times the rate, so half the rate is half the step."""
    moved = []
    for rate in (1.0, 0.5):
        one = ready({"kind": "lomo", "precision": "fp32", "embedding_rate": rate, "clip": "none"})
        before = {name: weight.clone() for name, weight in one.method.weights()}
        one.method.step(one.batches(1), 0.1, 1)
        moved.append({name: weight - before[name] for name, weight in one.method.weights()})
    whole, half = moved
    for name, change in half.items():
        share = 0.5 if name in ("model.embed_tokens.weight", "lm_head.weight") else 1.0
        assert torch.allclose(change, share * whole[name], rtol=1e-2, atol=1e-8), name
        assert float(change.abs().max()) > 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("clip", "spoils_gradient", "intact"),
    [("none", False, True), ("none", True, False), ("two_pass_norm", True, True)],
)
def test_what_is_no_number_is_told(
    ready: Ready, kind: str, clip: str, spoils_gradient: bool, intact: bool
) -> None:
    one = ready({"kind": kind, "clip": clip}, max_grad_norm=None if clip == "none" else 1.0)
    before = snapshot(one)

    def spoil(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        if spoils_gradient:
            output.register_hook(lambda gradient: gradient * float("nan"))
            return output
        return output * float("nan")

    layer = one.loaded.model.get_submodule("model.layers.0.mlp.down_proj")
    layer.register_forward_hook(spoil)
    with pytest.raises(NonFiniteError) as found:
        one.method.step(one.batches(1), 1e-3, 1)
    what = "the gradient of model.layers.0.mlp.down_proj.weight" if spoils_gradient else "the loss"
    assert str(found.value) == what
    assert found.value.weights_intact == intact
    if intact:
        assert_same_state(before, snapshot(one))
    assert all(parameter.grad is None for parameter in one.loaded.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_state_in_a_fresh_method_goes_on_bitwise(ready: Ready, kind: str, precision: str) -> None:
    method = {"kind": kind, "precision": precision}
    one, other = (ready(method, "mixtral", weight_decay=0.1) for _ in range(2))
    assert one.method.state_dict().keys() == other.method.state_dict().keys()
    rate = RATES[kind]
    for step in (1, 2, 3):
        one.method.step(one.batches(step), rate, step)
    saved = snapshot(one)
    for name, tensor in other.method.state_dict().items():
        assert "norm" in name or not torch.equal(tensor, saved[name]), name
        tensor.copy_(saved[name])
    for step in (4, 5):
        one.method.step(one.batches(step), rate, step)
        other.method.step(other.batches(step), rate, step)
    assert_same_state(snapshot(one), snapshot(other))


@pytest.mark.parametrize(("kind", "rate"), [("lomo", 3e-3), ("adalomo", 5e-4)])
def test_rounding_by_chance_trains_as_float32_and_to_nearest_does_not(
    ready: Ready, tmp_path: Path, kind: str, rate: float
) -> None:
    folder = tiny_model_folder(tmp_path / "model", "llama", hidden_size=128, intermediate_size=256)
    settings = [{"precision": "fp32"}, {"rounding": "stochastic"}, {"rounding": "nearest"}]
    drops = []
    for setting in settings:
        one = ready({"kind": kind, **setting}, folder)
        held = [batch for step in (3, 4, 5, 6) for batch in one.batches(step)]
        before = mean_loss(one.loaded.model, held)
        for step in range(1, 61):
            one.method.step(one.batches(step), rate, step)
        drops.append(before - mean_loss(one.loaded.model, held))
    exact, stochastic, nearest = drops
    assert exact > 0.2
    assert stochastic == pytest.approx(exact, rel=0.01)
    assert nearest < 0.75 * exact


def mean_loss(model: nn.Module, batches: list[Batch]) -> float:
    with torch.no_grad():
        total = sum(float(summed_loss(model, batch)) for batch in batches)
    return total / sum(batch.num_target_tokens for batch in batches)


@pytest.mark.parametrize("kind", KINDS)
def test_precision_is_the_format_and_float32_takes_the_weights_as_they_are(
    ready: Ready, kind: str
) -> None:
    one = ready({"kind": kind, "precision": "fp32"})
    loaded = AutoModelForCausalLM.from_pretrained(one.loaded.folder, dtype=torch.float32)
    expected = dict(loaded.named_parameters())
    for name, weight in one.method.weights():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, expected[name])


VOCABULARY, WIDTH, TOKENS = 128 * 1024, 256, 8


class Tables(nn.Module):
    """An embedding and a head with nothing between; one of them is large."""

    def __init__(self, large_head: bool) -> None:
        super().__init__()
        rows = (16, VOCABULARY) if large_head else (VOCABULARY, 16)
        self.embedding = nn.Embedding(rows[0], WIDTH)
        self.head = nn.Linear(WIDTH, rows[1], bias=False)

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.embedding(input_ids)))

    def get_output_embeddings(self) -> nn.Module:
        return self.head


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_large_table_is_updated_some_rows_at_a_time(kind: str, precision: str) -> None:
    """A head in float32; an embedding in bfloat16, which is never cast as a whole."""
    spec = validate_spec(
        {
            "model": {"source": "starter"},
            "data": {"source": "pirate"},
            "method": {"kind": kind, "precision": precision, "clip": "none"},
        }
    )
    model, method = Tables(large_head=precision == "fp32"), METHODS[spec.method.kind]()
    method.prepare(model, spec, CPU)
    numbers = torch.arange(TOKENS).unsqueeze(0)
    batch = Batch(numbers, torch.ones_like(numbers), numbers)
    method.step([batch], 1e-2, 1)  # what is set up at the first step
    state = method.state_dict()
    with LiveTensorMeter([*state.values(), *model.parameters(), numbers]) as meter:
        held = meter.live_bytes
        method.step([batch], 1e-2, 2)
        transient = meter.peak_bytes - held
    table = VOCABULARY * WIDTH * (4 if precision == "fp32" else 2)
    scores = 4 * TOKENS * VOCABULARY * 4 if precision == "fp32" else 0
    temporaries = 8 * MemoryPlan.chunk_elements("cpu") * 4 + 3 * VOCABULARY * 4
    assert temporaries < 0.3 * table, "or the bound would prove nothing"
    assert table < transient < table + scores + temporaries
