"""`activation_checkpointing: auto` is decided by the forecast, once, when the run is made."""

from __future__ import annotations

from typing import Any

import pytest

from engine.contract.model_source import resolve_model
from engine.contract.presets import resolve_presets
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.checkpointing import resolve_checkpointing
from engine.memory.devices import Device
from engine.memory.estimate import estimate

SHAPE = bundled_shape("llama-3.2-1b")


def spec(**train: Any) -> RunSpec:
    wish = validate_spec(
        {
            "model": {"source": "llama-3.2-1b"},
            "data": {"source": "pirate"},
            "method": {"kind": "qft"},
            "train": train,
        }
    )
    return resolve_presets(wish, resolve_model("llama-3.2-1b"))


def gpu(free_bytes: int) -> Device:
    return Device("cuda:0", "cuda", "a GPU", 24 << 30, free_bytes)


def need(*, recompute: bool) -> int:
    assert SHAPE is not None
    return estimate(spec(activation_checkpointing=recompute), SHAPE, gpu(1 << 40)).high_bytes


@pytest.mark.parametrize(("short_by", "recompute"), [(0, False), (1, True)])
def test_activations_are_recomputed_only_where_they_do_not_fit(
    short_by: int, recompute: bool
) -> None:
    assert need(recompute=True) < need(recompute=False)
    device = gpu(need(recompute=False) - short_by)
    decided = resolve_checkpointing(spec(), SHAPE, device).train.activation_checkpointing
    assert decided is recompute


def test_what_cannot_be_forecast_is_recomputed_and_what_was_said_stays() -> None:
    decided = resolve_checkpointing(spec(), None, gpu(1 << 40)).train.activation_checkpointing
    assert decided is True
    said = spec(activation_checkpointing=False)
    assert resolve_checkpointing(said, None, gpu(0)) == said


def test_the_longest_chat_counts_where_it_is_known() -> None:
    device = gpu(need(recompute=False) - 1)
    decided = resolve_checkpointing(spec(), SHAPE, device, longest_tokens=64)
    assert decided.train.activation_checkpointing is False
