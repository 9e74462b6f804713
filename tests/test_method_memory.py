"""What the forecast counts exactly is what every method allocates, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.four_bit import is_four_bit
from engine.memory.estimate import Term
from engine.preparation import Prepared
from tests.tiny import ARCHITECTURES, prepared, tiny_spec

METHODS: dict[str, dict[str, Any]] = {
    "full": {"kind": "full"},
    "full_bf16": {"kind": "full", "precision": "bf16"},
    "full_bf16_8bit": {"kind": "full", "precision": "bf16", "optimizer": "adamw_8bit"},
    "full_8bit": {"kind": "full", "optimizer": "adamw_8bit"},
    "full_lion": {"kind": "full", "optimizer": "lion"},
    "full_sgd": {"kind": "full", "optimizer": "sgd"},
    "lomo": {"kind": "lomo", "precision": "bf16"},
    "lomo_fp32": {"kind": "lomo", "precision": "fp32"},
    "adalomo": {"kind": "adalomo", "precision": "bf16"},
    "adalomo_frozen": {"kind": "adalomo", "embedding_rate": 0.0},
    "lora": {"kind": "lora"},
    "lora_32bit": {"kind": "lora", "optimizer": "adamw", "rank": 4},
    "qlora": {"kind": "qlora"},
    "qlora_plain": {"kind": "qlora", "double_quant": False, "preset": "paper"},
}
# bitsandbytes has no such layer in 4 bits.
WITHOUT_FOUR_BITS = {"gpt2"}


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Each storage once, however many tensors look at it."""
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(sizes.values())


# Every architecture with the methods that lay a model out differently; the rest on two.
CASES = [
    (architecture, method)
    for architecture in ARCHITECTURES
    for method in METHODS
    if method in ("full", "lomo", "adalomo", "lora", "qlora")
    or architecture in ("llama", "gpt_neox")
]


@pytest.mark.parametrize(("architecture", "method"), CASES)
def test_the_states_are_the_forecast_bytes(
    tiny_folder: Callable[[str], Path],
    chats_file: Path,
    tmp_path: Path,
    architecture: str,
    method: str,
) -> None:
    if method.startswith("qlora") and architecture in WITHOUT_FOUR_BITS:
        pytest.skip("no linear layer that 4 bits can hold")
    spec = tiny_spec(tiny_folder(architecture), chats_file, METHODS[method], batch_size=2)
    one = prepared(spec, tmp_path)
    terms = one.forecast.terms
    found = sizes(one)
    # bitsandbytes keeps the biases of its layers in the format that they compute in.
    wider = four_bit_biases(one) if method.startswith("qlora") else 0
    found["weights"] -= wider
    assert {term: terms.get(term, 0) for term in found} == found
    assert one.forecast.states_bytes == sum(found.values())
    # Nothing else lives as long as the run.
    buffers = bytes_of(one.loaded.model.buffers())
    assert bytes_of(one.live_tensors()) == one.forecast.states_bytes + buffers + wider
    assert gradients_of(one) == terms["gradients"]


def four_bit_biases(one: Prepared) -> int:
    """Bytes beyond bfloat16 of the biases of layers in 4 bits."""
    layers: list[Any] = [one for one in one.loaded.model.modules() if is_four_bit(one)]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    assert all(bias.dtype == torch.float32 for bias in biases)
    return sum(2 * bias.numel() for bias in biases)


def sizes(one: Prepared) -> dict[Term, int]:
    """Bytes by term, from the tensors themselves."""
    state = one.method.state_dict()
    weights = [tensor for name, tensor in state.items() if name.endswith("/weight")]
    moments = [tensor for name, tensor in state.items() if not name.endswith("/weight")]
    is_adapter = one.spec.method.kind in ("lora", "qlora")
    everything = bytes_of([*one.live_tensors()]) - bytes_of(one.loaded.model.buffers())
    return {
        "weights": everything - bytes_of(moments) - (bytes_of(weights) if is_adapter else 0),
        "adapters": bytes_of(weights) if is_adapter else 0,
        "moments": bytes_of(moments),
    }


def gradients_of(one: Prepared) -> int:
    """The most bytes of gradients that are alive at once, as autograd hands each over."""
    trained = [p for p in one.loaded.model.parameters() if p.requires_grad]
    most = 0

    def record(gradient: Tensor, parameter: Tensor) -> None:
        nonlocal most
        held = sum(p.grad.nbytes for p in trained if p.grad is not None and p is not parameter)
        most = max(most, held + gradient.nbytes)

    for parameter in trained:
        parameter.register_hook(lambda gradient, p=parameter: record(gradient, p))
    one.method.step(one.batches(1), 1e-3, 1)
    return most
