"""What each method can be told: its presets, and what it refuses with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.contract.method_settings import QFT_PRESETS, QLORA_PRESETS, QftSettings, QloraSettings
from engine.contract.model_source import resolve_model
from engine.contract.presets import METHOD_CHOICES, preset_of, resolve_presets
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import this_computer
from engine.memory.resolve import resolve_for_device
from tests.test_spec import FIELDS, MINIMAL, document, refusals, sentences

# What each preset sets beside the defaults; whoever changes this changes what people's files mean.
PRESETS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "lean": {"residual_bits": 0, "moment_bits": 4},
    "quality": {"residual_bits": 4},
    "paper": {
        "rounding": "nearest",
        "residual_bits": 0,
        "outlier_percent": 1.0,
        "gradients": "stack",
        "scale_group": 32,
        "quantize": "all",
    },
}
# One value of each setting that no preset has.
UNUSUAL = {
    "update": "adamw",
    "rounding": "stochastic",
    "residual_bits": 8,
    "outlier_percent": 0.5,
    "gradients": "fused",
    "scale_group": 128,
    "moment_bits": 4,
    "matmul": "dequantize",
    "quantize": "linear",
}


def qft(**settings: Any) -> QftSettings:
    method = validate_spec({**MINIMAL, "method": {"kind": "qft", **settings}}).method
    assert isinstance(method, QftSettings)
    return method


@pytest.mark.parametrize("preset", QFT_PRESETS)
def test_a_preset_fills_what_is_left_out_and_what_is_given_wins(preset: str) -> None:
    own = qft(preset=preset)
    filled = {**FIELDS["method.qft"], "preset": preset, **PRESETS[preset]}
    assert own.model_dump() == filled
    for name, value in UNUSUAL.items():
        changed = qft(preset=preset, **{name: value})
        assert changed.model_dump() == {**filled, name: value}


def test_the_presets_are_four_and_the_first_is_the_default() -> None:
    assert set(PRESETS) == set(QFT_PRESETS)
    assert qft() == qft(preset="balanced")
    # A spec.json holds every setting, and means the same when it is read again.
    spec = validate_spec(document("method.preset", "paper", kind="qft"))
    assert validate_spec(json.loads(json.dumps(spec.as_json()))).method == qft(preset="paper")


def test_fused_updates_refuse_what_they_cannot_do_and_say_what_to_do_instead() -> None:
    train = {"grad_accumulation": 2, "max_grad_norm": 1.0}
    assert sentences(document("train", train, kind="qft")) == [
        "train.grad_accumulation: fused updates move each weight during the backward pass, so "
        "there is no gradient to add up. Use grad_accumulation 1, or gradients stack.",
        "train.max_grad_norm: fused updates move each weight before the whole gradient's length "
        "is known. Leave max_grad_norm out, or use gradients stack.",
    ]
    for field, value in train.items():
        (sentence,) = sentences(document("train", {field: value}, kind="qft"))
        assert sentence.startswith(f"train.{field}: ")
    assert validate_spec(document("train", train)).train.grad_accumulation == 2


@pytest.mark.parametrize("method", [{"gradients": "stack"}, {"preset": "paper"}])
def test_stacked_gradients_can_be_added_up_and_clipped(method: dict[str, Any]) -> None:
    train = {"grad_accumulation": 2, "max_grad_norm": 1.0}
    wish = {**document("train", train), "method": {"kind": "qft", **method}}
    assert validate_spec(wish).train.max_grad_norm == 1.0
    fused = {**wish, "method": {**wish["method"], "gradients": "fused"}}
    assert [mistake.field for mistake in refusals(fused)] == [f"train.{name}" for name in train]


@pytest.mark.parametrize(
    ("settings", "is_refused"),
    [
        ({}, False),
        ({"residual_bits": 4}, False),
        ({"scale_group": 64}, True),
        ({"outlier_percent": 0.1}, True),
        ({"preset": "paper"}, True),
        ({"preset": "paper", "scale_group": "row"}, True),
        ({"preset": "paper", "scale_group": "row", "outlier_percent": 0}, False),
    ],
)
def test_int8_products_need_one_scale_per_row_and_no_outliers(
    settings: dict[str, Any], is_refused: bool
) -> None:
    wish = {"matmul": "int8", **settings}
    if not is_refused:
        assert qft(**wish).matmul == "int8"
        return
    assert sentences({**MINIMAL, "method": {"kind": "qft", **wish}}) == [
        "method.matmul: int8 products need one scale per row and no weights in float32 among "
        "them. Use dequantize, or scale_group row and outlier_percent 0."
    ]


def test_the_published_qlora_is_a_preset() -> None:
    wish = {**MINIMAL, "method": {"kind": "qlora", "preset": "paper"}}
    spec = resolve_presets(validate_spec(wish), resolve_model("llama-2-7b"))
    method, train = spec.method, spec.train
    assert isinstance(method, QloraSettings)
    assert (method.rank, method.alpha, method.dropout) == (64, 16.0, 0.1)
    assert method.optimizer == "paged_adamw"
    assert (train.learning_rate, train.max_grad_norm, train.schedule) == (2e-4, 0.3, "constant")
    own = QloraSettings.model_validate({"preset": "paper", "rank": 8})
    assert (own.rank, own.alpha) == (8, 16.0)
    assert set(QLORA_PRESETS) == {"balanced", "paper"}


@pytest.mark.parametrize("kind", ["lomo", "adalomo"])
def test_what_an_update_inside_the_backward_pass_cannot_do_is_refused(kind: str) -> None:
    train = {"grad_accumulation": 2, "max_grad_norm": 1.0}
    wish = {**document("train", train), "method": {"kind": kind, "clip": "value"}}
    assert sentences(wish) == [
        f"train.grad_accumulation: {kind} moves each weight during the backward pass, so there is "
        "no gradient to add up. Use grad_accumulation 1 and more steps.",
        "train.max_grad_norm: the gradient's length is only known after a backward pass of its "
        "own. Leave max_grad_norm out, or use clip two_pass_norm.",
    ]
    wish["method"] = {"kind": kind, "clip": "two_pass_norm"}
    assert [mistake.field for mistake in refusals(wish)] == ["train.grad_accumulation"]


@pytest.mark.parametrize("choice", METHOD_CHOICES, ids=lambda choice: choice.key)
def test_presets_fill_the_training_and_null_is_an_answer(choice: Any) -> None:
    method = {key: value for key, value in choice._asdict().items() if value is not None}
    reference = resolve_model("llama-2-7b")
    wish = {**MINIMAL, "method": method}
    filled = resolve_presets(validate_spec(wish), reference)
    preset = preset_of(filled.method)
    assert filled.train.max_grad_norm == preset.max_grad_norm
    assert filled.train.schedule == preset.schedule
    train = {"max_grad_norm": None, "schedule": "linear", "learning_rate": 0.5}
    said = resolve_presets(validate_spec({**wish, "train": train}), reference).train
    assert (said.max_grad_norm, said.schedule, said.learning_rate) == (None, "linear", 0.5)
    assert resolve_presets(filled, reference) == filled


def test_descent_without_clipping_gets_a_rate_that_it_bears() -> None:
    def rate(method: dict[str, Any], **train: Any) -> float | None:
        wish = {**MINIMAL, "method": method, "train": train}
        return resolve_presets(validate_spec(wish), resolve_model("starter")).train.learning_rate

    clipped, bare = rate({"kind": "lomo"}), rate({"kind": "lomo", "clip": "none"})
    assert clipped is not None
    assert bare is not None
    assert bare < clipped
    assert rate({"kind": "lomo"}, max_grad_norm=None) == bare
    sgd = {"kind": "full", "optimizer": "sgd"}
    assert (rate(sgd), rate(sgd, max_grad_norm=None)) == (clipped, bare)


@pytest.mark.parametrize("targets", ["foo", "q_proj v_proj", "q_proj, foo"])
def test_targets_that_no_layer_has_are_refused_before_the_forecast(targets: str) -> None:
    wish = validate_spec({**MINIMAL, "method": {"kind": "lora", "targets": targets}})
    with pytest.raises(RequestError, match="no linear layer called") as found:
        resolve_for_device(wish, bundled_shape("starter"), this_computer())
    assert found.value.field == "method.targets"


def test_gpt2_has_no_layer_that_4_bits_can_hold() -> None:
    wish = validate_spec({**MINIMAL, "method": {"kind": "qlora"}})
    with pytest.raises(RequestError, match="kept in 4 bits") as found:
        resolve_for_device(wish, bundled_shape("gpt2"), this_computer())
    assert "lora" in found.value.advice
