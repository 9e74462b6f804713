"""The forecast counts what the engine allocates, to the byte."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.contract.errors import RequestError
from engine.contract.method_settings import METHOD_KINDS, QFT_PRESETS, QftSettings
from engine.contract.spec import RunSpec
from engine.loss import summed_loss
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device, choose_device, this_computer
from engine.memory.estimate import estimate
from engine.memory.layout import Dense, Int4, Int8, Layout, SquareRoot, matrix_shape
from engine.memory.plans import plan_for
from engine.memory.resolve import resolve_for_device
from engine.memory.units import GIB
from engine.methods.qft import QftMethod
from engine.storage.allocate import allocate, quantized
from engine.tensor_meter import LiveTensorMeter
from tests.tiny import ARCHITECTURES, prepared, tiny_spec

Folder = Callable[[str], Path]


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Each storage once, however many tensors look at it."""
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(sizes.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_of_full_tuning_are_forecast_to_the_byte(
    tiny_folder: Folder, chats_file: Path, tmp_path: Path, architecture: str
) -> None:
    """Those of QFT are in test_qft_architectures, preset by preset."""
    one = prepared(tiny_spec(tiny_folder(architecture), chats_file, "full"), tmp_path)
    terms, state = one.forecast.terms, one.method.state_dict()
    of_weights = [t for name, t in state.items() if name.partition("/")[2].startswith("weight")]
    counters = [t for name, t in state.items() if name.endswith("/step")]  # AdamW's, 4 bytes each
    assert terms["weights"] == bytes_of(of_weights)
    assert terms["weights"] + terms["moments"] == bytes_of(state.values()) - bytes_of(counters)
    # Nothing else lives as long as the run: no copy in floating point stays behind.
    buffers = bytes_of(one.loaded.model.buffers())
    assert bytes_of(one.live_tensors()) == bytes_of(state.values()) + buffers
    assert one.forecast.states_bytes == terms["weights"] + terms["moments"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gradients_of_full_tuning_are_forecast_to_the_byte(
    tiny_folder: Folder, chats_file: Path, tmp_path: Path, architecture: str
) -> None:
    one = prepared(tiny_spec(tiny_folder(architecture), chats_file, "full"), tmp_path)
    summed_loss(one.loaded.model, one.batches(1)[0]).backward()
    gradients = [p.grad for p in one.loaded.model.parameters() if p.grad is not None]
    assert one.forecast.terms["gradients"] == bytes_of(gradients)


class Layers(nn.Module):
    """Sixteen equal layers."""

    def __init__(self) -> None:
        super().__init__()
        made = [nn.Linear(256, 256, bias=False, dtype=torch.bfloat16) for _ in range(16)]
        self.layers = nn.ModuleList(made)

    def get_output_embeddings(self) -> None:
        return None


@pytest.mark.parametrize("method", [{}, {"quantize": "all", "gradients": "stack"}], ids=str)
def test_taking_a_model_over_never_holds_two(spec: RunSpec, method: dict[str, Any]) -> None:
    """A weight is freed as soon as it is stored; there is more for one weight at a time."""
    model, one = Layers(), 256 * 256
    spec = RunSpec.model_validate({**spec.as_json(), "method": {"kind": "qft", **method}})
    qft = QftMethod()
    with LiveTensorMeter(model.parameters()) as meter:
        before = meter.live_bytes
        qft.prepare(model, spec, torch.device("cpu"))
        states = bytes_of(qft.state_dict().values())
    assert before == 16 * one * 2
    assert meter.peak_bytes <= max(before, states) + 4 * one * 4
    # What autograd needs to call a layer at all is a scalar each.
    assert meter.live_bytes <= states + 16 * 4


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mixtral", "opt"])
def test_fused_updates_keep_no_gradient_alive(
    tiny_folder: Folder,
    chats_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
) -> None:
    parameters: list[nn.Parameter] = []
    updates: list[str] = []
    original = QftMethod._update

    def counting(self: QftMethod, *args: Any) -> None:
        assert all(parameter.grad is None for parameter in parameters)
        updates.append(args[0].name)
        original(self, *args)

    monkeypatch.setattr(QftMethod, "_update", counting)
    one = prepared(tiny_spec(tiny_folder(architecture), chats_file, "qft"), tmp_path)
    parameters.extend(one.loaded.model.parameters())
    one.method.step(one.batches(1), 1e-3, 1)
    assert sorted(updates) == sorted(name for name, _ in one.method.weights())


def layouts() -> st.SearchStrategy[Layout]:
    groups = st.sampled_from(["row", 32, 64, 128, 256])
    return st.one_of(
        st.builds(Dense, st.sampled_from(["float32", "bfloat16"])),
        st.builds(
            Int8,
            groups,
            st.sampled_from(["float32", "bfloat16"]),
            st.sampled_from([0, 1, 4, 8]),
            st.sampled_from([0.0, 0.1, 1.0, 2.0]),
        ),
        st.builds(Int4, st.sampled_from([32, 64, 128])),
        st.builds(SquareRoot, st.sampled_from([8, 4]), st.sampled_from([32, 64, 128, 256])),
    )


SHAPES = st.one_of(
    st.lists(st.integers(1, 24), min_size=1, max_size=3).map(tuple),
    st.tuples(st.integers(1, 200), st.sampled_from([31, 32, 64, 128, 256, 300, 512])),
    st.tuples(st.integers(1, 3), st.sampled_from([32_768, 65_536, 65_537, 80_000])),
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.sampled_from([33, 128, 256])),
)


@settings(max_examples=150, deadline=None)
@given(layout=layouts(), shape=SHAPES)
def test_a_layout_counts_what_is_allocated(layout: Layout, shape: tuple[int, ...]) -> None:
    """Of a moment or gradient, and of a weight that is quantized into it."""
    made = [allocate(layout, shape, torch.device("cpu"))]
    if isinstance(layout, Int8):
        made.append(quantized(layout, torch.randn(shape), torch.device("cpu")))
    for storage in made:
        tensors = storage.tensors()
        assert layout.nbytes(shape) == bytes_of(tensors.values())
        assert {p.name: p.shape for p in layout.parts(shape)} == {
            name: tuple(tensor.shape) for name, tensor in tensors.items()
        }
        assert [p.nbytes for p in layout.parts(shape)] == [t.nbytes for t in tensors.values()]
        every = slice(0, storage.num_rows)
        assert storage.read(every).shape == matrix_shape(shape)


def published_bytes(*kinds: str, settings: QftSettings) -> float:
    """GiB that LLaMA-2-7B takes by the plan that the engine allocates: weights, gradients, ..."""
    shape, plan = bundled_shape("llama-2-7b"), plan_for(settings)
    assert shape is not None
    total = 0
    for tensor in shape.tensors:
        found = plan.of(tensor.role)
        stored = {"weight": [found.weight], "gradient": [found.gradient], "moments": found.moments}
        layouts = [layout for kind in kinds for layout in stored[kind]]
        total += sum(layout.nbytes(tensor.stored_shape) for layout in layouts) * tensor.repeat
    return total / GIB


def test_the_published_memory_of_llama_2_7b() -> None:
    """7.06 GiB of codes, 7.42 with outliers, 21.54 of states: 21.45 % of AdamW's in float32.

    Derived from "QFT" (Li et al., 2023), section 3: groups of 32, 1 % outliers in 6 bytes each.
    """
    paper = QftSettings(preset="paper", **QFT_PRESETS["paper"])
    without = paper.model_copy(update={"outlier_percent": 0.0})
    codes = published_bytes("weight", settings=without)
    weights = published_bytes("weight", settings=paper)
    states = published_bytes("weight", "gradient", "moments", settings=paper)
    assert (round(codes, 2), codes) == (7.06, pytest.approx(7.06, abs=0.005))
    assert (round(weights, 2), weights) == (7.42, pytest.approx(7.42, abs=0.005))
    assert (round(states, 2), states) == (21.54, pytest.approx(21.54, abs=0.005))
    shape = bundled_shape("llama-2-7b")
    assert shape is not None
    assert shape.num_parameters == 6_738_415_616
    float32 = 4 * shape.num_parameters / GIB
    assert round(float32, 2) == 25.10
    # Of weights, gradients and two moments.
    assert round(100 * states / (4 * float32), 2) == 21.45


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 2.3),
        ({"preset": "lean"}, 1.8),
        ({"preset": "quality"}, 2.8),
        ({"update": "adamw"}, 3.3),
        ({"update": "adamw", "moment_bits": 4}, 2.3),
        ({"preset": "paper"}, 3.44),
    ],
    ids=str,
)
def test_bytes_of_each_weight_of_llama_2_7b(
    spec: RunSpec, settings: dict[str, Any], most: float
) -> None:
    shape = bundled_shape("llama-2-7b")
    assert shape is not None
    method = QftSettings.model_validate({"kind": "qft", **settings})
    found = estimate(spec.model_copy(update={"method": method}), shape, CARD)
    held = published_bytes("weight", "moments", settings=method)
    assert found.states_bytes == round(held * GIB)
    if method.gradients == "stack":  # there all gradients wait at once
        held += published_bytes("gradient", settings=method)
    assert most - 0.3 < held * GIB / shape.num_parameters <= most


@pytest.fixture
def spec(tiny_folder: Folder, chats_file: Path) -> RunSpec:
    return tiny_spec(tiny_folder("llama"), chats_file, "qft")


CARD = Device("cuda:0", "cuda", "A card", 16 * GIB, 16 * GIB)


@pytest.mark.parametrize("kind", METHOD_KINDS)
@pytest.mark.parametrize("device", [CARD, this_computer()], ids=["cuda", "cpu"])
def test_terms_add_up_and_grow_with_the_batch(spec: RunSpec, kind: str, device: Device) -> None:
    shape = bundled_shape("llama-3.2-1b")
    assert shape is not None
    asked = RunSpec.model_validate({**spec.as_json(), "method": {"kind": kind}})
    spec = resolve_for_device(asked, shape, device)
    before = 0
    for size, length in ((1, 128), (2, 128), (2, 512), (8, 512), (8, 2048)):
        train = spec.train.model_copy(update={"batch_size": size, "sequence_length": length})
        found = estimate(spec.model_copy(update={"train": train}), shape, device)
        assert all(size >= 0 for size in found.terms.values())
        assert found.total_bytes == sum(found.terms.values())
        assert found.low_bytes < found.total_bytes < found.high_bytes
        assert found.tensor_bytes == found.total_bytes - found.terms["runtime"]
        assert found.total_bytes >= before
        before = found.total_bytes


def test_the_verdict_compares_with_what_is_free(spec: RunSpec) -> None:
    shape = bundled_shape("llama-3.2-1b")
    assert shape is not None
    found = estimate(spec, shape, CARD)
    verdicts = {}
    for free in (found.high_bytes, found.high_bytes - 1, found.total_bytes - 1, None):
        card = replace(CARD, free_bytes=free)
        one = estimate(spec, shape, card)
        verdicts[free] = one.verdict
        assert one.as_json()["fits"] == {"fits": True, "tight": True, "too_large": False}.get(
            one.verdict
        )
        assert not one.advice
    assert list(verdicts.values()) == ["fits", "tight", "too_large", "unknown"]
    for free, is_said in ((found.states_bytes, False), (found.states_bytes - 1, True)):
        advice = estimate(spec, shape, replace(CARD, free_bytes=free)).advice
        assert any("weights and their states alone" in one for one in advice) is is_said


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu").kind == "cpu"
    assert 0 < choose_device("cpu").free_bytes <= choose_device("cpu").total_bytes
    with pytest.raises(RequestError, match="there is no cuda:97 here") as found:
        choose_device("cuda:97")
    assert found.value.field == "train.device"


def test_contract_and_memory_need_no_torch() -> None:
    """In a process of its own, since this one has imported torch."""
    program = """
import importlib, pkgutil, sys
for package in ("engine.contract", "engine.memory"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("engine.")]))
print(sorted({"torch", "transformers", "numpy"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    count, heavy = done.stdout.split("\n")[:2]
    assert int(count) > 15
    assert heavy == "[]"
