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
from torch import Tensor, nn

from engine.contract.errors import RequestError
from engine.contract.spec import METHOD_KINDS, RunSpec
from engine.loss import summed_loss
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device, choose_device, this_computer
from engine.memory.estimate import estimate
from engine.memory.layout import Dense, Int8, Layout
from engine.memory.units import GIB
from engine.methods.qft import QftMethod
from engine.quant.storage import allocate
from tests.tiny import ARCHITECTURES, prepared, tiny_spec

Folder = Callable[[str], Path]


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Each storage once, however many tensors look at it."""
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(sizes.values())


@pytest.mark.parametrize("method", METHOD_KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_are_forecast_to_the_byte(
    tiny_folder: Folder, chats_file: Path, tmp_path: Path, architecture: str, method: str
) -> None:
    one = prepared(tiny_spec(tiny_folder(architecture), chats_file, method), tmp_path)
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


@pytest.mark.parametrize(
    "layout",
    [Dense("bfloat16"), Int8("row", "bfloat16"), Int8(32, "float32"), Int8(256, "float32")],
)
@pytest.mark.parametrize("shape", [(8, 64), (5, 33), (7, 1), (300,), (3, 4, 512)], ids=str)
def test_a_layout_counts_what_is_allocated(layout: Layout, shape: tuple[int, ...]) -> None:
    parts = allocate(layout, shape, torch.device("cpu")).tensors()
    assert layout.nbytes(shape) == bytes_of(parts.values())
    assert [part.shape for part in layout.parts(shape)] == [tuple(t.shape) for t in parts.values()]


def test_the_published_arithmetic_of_llama_2_7b() -> None:
    shape = bundled_shape("llama-2-7b")
    assert shape is not None

    def gib(layout: Layout) -> float:
        return sum(layout.nbytes(t.shape) * t.repeat for t in shape.tensors) / GIB

    assert gib(Dense("float32")) == pytest.approx(25.10, abs=0.005)
    assert gib(Int8(32, "float32")) == pytest.approx(7.06, abs=0.005)
    outliers = 0.01 * shape.linear_parameters * 6 / GIB
    assert gib(Int8(32, "float32")) + outliers == pytest.approx(7.42, abs=0.005)
    states = 3 * gib(Int8(32, "float32")) + outliers
    assert states == pytest.approx(21.54, abs=0.005)
    assert 100 * states / (4 * gib(Dense("float32"))) == pytest.approx(21.45, abs=0.005)


@pytest.fixture
def spec(tiny_folder: Folder, chats_file: Path) -> RunSpec:
    return tiny_spec(tiny_folder("llama"), chats_file, "qft")


CARD = Device("cuda:0", "cuda", "A card", 16 * GIB, 16 * GIB)


@pytest.mark.parametrize("kind", METHOD_KINDS)
@pytest.mark.parametrize("device", [CARD, this_computer()], ids=["cuda", "cpu"])
def test_terms_add_up_and_grow_with_the_batch(spec: RunSpec, kind: str, device: Device) -> None:
    shape = bundled_shape("llama-3.2-1b")
    assert shape is not None
    spec = RunSpec.model_validate({**spec.as_json(), "method": {"kind": kind}})
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
        assert bool(one.advice) == (one.verdict in ("tight", "too_large"))
    assert list(verdicts.values()) == ["fits", "tight", "too_large", "unknown"]


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
