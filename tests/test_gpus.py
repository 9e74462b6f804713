"""The list of GPUs, and which of them would hold a request."""

from __future__ import annotations

from typing import Any

import pytest

from engine.contract.method_settings import METHOD_KINDS
from engine.contract.model_source import resolve_model
from engine.contract.presets import resolve_presets
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.estimate import estimate
from engine.memory.gpus import known_gpus, smallest_gpu, would_fit
from engine.memory.model_shape import ModelShape
from engine.memory.resolve import resolve_for_device
from engine.memory.units import GIB


def asked(model: str, kind: str, **train: Any) -> tuple[RunSpec, ModelShape]:
    document = {"model": {"source": model}, "data": {"source": "pirate"}, "method": {"kind": kind}}
    spec = resolve_presets(validate_spec({**document, "train": train}), resolve_model(model))
    shape = bundled_shape(model)
    assert shape is not None
    return spec, shape


def test_the_list_is_in_order_and_each_card_is_there_once() -> None:
    cards = known_gpus()
    assert len({card.name for card in cards}) == len(cards)
    assert [card.memory_gib for card in cards] == sorted(card.memory_gib for card in cards)
    assert {card.kind for card in cards} == {"desktop", "laptop", "workstation", "server"}
    for card in cards:
        # A driver reports what is sold, less what error correction and the firmware keep.
        assert 0.93 <= card.driver_mib / 1024 / card.memory_gib <= 1.02, card
        device = card.empty()
        assert device.free_bytes <= device.total_bytes - round(0.4 * GIB)


@pytest.mark.parametrize(
    ("name", "memory_gib", "bfloat16"),
    [
        ("GTX 1660 Ti", 6, False),
        ("T4", 16, False),
        ("RTX 2080 Ti", 11, False),
        ("RTX 3060 12 GB", 12, True),
        ("RTX 4090", 24, True),
        ("RTX 4090 Laptop", 16, True),
        ("RTX 5090", 32, True),
        ("A100 40 GB", 40, True),
        ("H200", 141, True),
    ],
)
def test_cards_that_people_have(name: str, memory_gib: int, bfloat16: bool) -> None:
    card = next(card for card in known_gpus() if card.name == name)
    assert (card.memory_gib, card.bfloat16) == (memory_gib, bfloat16)


@pytest.mark.parametrize("kind", METHOD_KINDS)
@pytest.mark.parametrize("model", ["qwen2.5-0.5b", "llama-3.1-8b"])
def test_every_card_is_told_rightly(model: str, kind: str) -> None:
    spec, shape = asked(model, kind, batch_size=4, sequence_length=1024)
    found = {one.gpu.name: one.forecast for one in would_fit(spec, shape)}
    for card in known_gpus():
        device = card.empty()
        complete = resolve_for_device(spec, shape, device)
        forecast = estimate(complete, shape, device)
        holds = card.bfloat16 and forecast.high_bytes <= device.free_bytes
        assert holds == (card.name in found)
        if holds:
            assert found[card.name].terms == forecast.terms
    smallest = smallest_gpu(spec, shape)
    assert [one.gpu.name for one in would_fit(spec, shape)][:1] == (
        [smallest.gpu.name] if smallest else []
    )


def test_what_is_left_to_the_device_is_decided_on_the_card() -> None:
    spec, shape = asked("llama-3.2-1b", "lomo")
    found = smallest_gpu(spec, shape)
    assert found is not None
    # 16 bits for each weight, as on a GPU; a CPU would keep 32.
    assert found.forecast.terms["weights"] == pytest.approx(2 * shape.num_parameters, rel=0.01)
    assert found.sentence == (
        f"Needs a GPU with {found.gpu.memory_gib} GiB or more, such as the {found.gpu.name}."
    )


def test_what_no_card_holds_has_none() -> None:
    spec, shape = asked("llama-2-13b", "full", batch_size=64, sequence_length=4096)
    assert would_fit(spec, shape) == ()
    assert smallest_gpu(spec, shape) is None
