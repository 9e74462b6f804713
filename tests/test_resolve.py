"""What is `auto` is decided by the device and the forecast, once, when the run is made."""

from __future__ import annotations

from typing import Any

import pytest

from engine.contract.method_settings import AdaLomoSettings, LomoSettings
from engine.contract.model_source import resolve_model
from engine.contract.presets import resolve_presets
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device, this_computer
from engine.memory.estimate import estimate
from engine.memory.resolve import resolve_for_device

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
    decided = resolve_for_device(spec(), SHAPE, device).train.activation_checkpointing
    assert decided is recompute


def test_what_cannot_be_forecast_is_recomputed_and_what_was_said_stays() -> None:
    decided = resolve_for_device(spec(), None, gpu(1 << 40)).train.activation_checkpointing
    assert decided is True
    said = spec(activation_checkpointing=False)
    assert resolve_for_device(said, None, gpu(0)) == said


def test_the_longest_chat_counts_where_it_is_known() -> None:
    device = gpu(need(recompute=False) - 1)
    decided = resolve_for_device(spec(), SHAPE, device, longest_tokens=64)
    assert decided.train.activation_checkpointing is False


@pytest.mark.parametrize("kind", ["lomo", "adalomo"])
def test_weights_are_kept_in_what_the_device_computes_in(kind: str) -> None:
    def precision(device: Device, **settings: Any) -> str:
        method = {"kind": kind, **settings}
        wish = validate_spec(
            {"model": {"source": "starter"}, "data": {"source": "pirate"}, "method": method}
        )
        resolved = resolve_for_device(wish, SHAPE, device).method
        assert isinstance(resolved, LomoSettings | AdaLomoSettings)
        return resolved.precision

    assert precision(gpu(1 << 40)) == "bf16"
    assert precision(this_computer()) == "fp32"
    assert precision(this_computer(), precision="bf16") == "bf16"
    assert precision(gpu(1 << 40), precision="fp32") == "fp32"
