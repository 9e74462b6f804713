"""A spec is accepted as it was meant or refused in plain sentences, and its fields are fixed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.method_settings import METHOD_KINDS
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec

MINIMAL: dict[str, Any] = {
    "model": {"source": "starter"},
    "data": {"source": "pirate"},
    "method": {"kind": "qft"},
}
KINDS = "qft, qlora, lora, lomo, adalomo, full"
KNOWN_GROUPS = "Known here: data, method, model, train."

# The public surface: whoever changes this table changes what people's files may say.
FIELDS = {
    "model": {"source": "required", "revision": None},
    "data": {
        "source": "required",
        "format": "auto",
        "columns": None,
        "encoding": None,
        "config": None,
        "split": None,
        "revision": None,
        "eval_percent": 10.0,
        "max_rows": None,
        "train_on": "replies",
        "sha256": None,
    },
    "method.qft": {
        "kind": "qft",
        "preset": "balanced",
        "update": "lion",
        "rounding": "stochastic",
        "residual_bits": 1,
        "outlier_percent": 0.0,
        "gradients": "fused",
        "scale_group": "row",
        "moment_bits": 8,
        "matmul": "dequantize",
        "quantize": "linear",
    },
    "method.qlora": {
        "kind": "qlora",
        "preset": "balanced",
        "rank": 16,
        "alpha": 32.0,
        "dropout": 0.0,
        "targets": "all-linear",
        "optimizer": "paged_adamw_8bit",
        "quant_type": "nf4",
        "double_quant": True,
    },
    "method.lora": {
        "kind": "lora",
        "rank": 16,
        "alpha": 32.0,
        "dropout": 0.0,
        "targets": "all-linear",
        "optimizer": "paged_adamw_8bit",
    },
    "method.lomo": {
        "kind": "lomo",
        "precision": "auto",
        "rounding": "stochastic",
        "clip": "two_pass_norm",
        "clip_value": 1.0,
        "embedding_rate": 1.0,
    },
    "method.adalomo": {
        "kind": "adalomo",
        "precision": "auto",
        "rounding": "stochastic",
        "clip": "none",
        "clip_value": 1.0,
        "embedding_rate": 1.0,
    },
    "method.full": {"kind": "full", "optimizer": "adamw", "precision": "mixed"},
    "train": {
        "steps": None,
        "epochs": None,
        "batch_size": 8,
        "grad_accumulation": 1,
        "sequence_length": 256,
        "learning_rate": None,
        "batching": "grouped",
        "schedule": None,
        "warmup_steps": None,
        "weight_decay": 0.0,
        "max_grad_norm": None,
        "activation_checkpointing": "auto",
        "checkpoint_every": 50,
        "eval_every": 20,
        "seed": 0,
        "device": "auto",
    },
}
OPTIMIZERS = ["paged_adamw_8bit", "adamw_8bit", "paged_adamw", "adamw"]
CHOICES = {
    # And sharegpt, a name of messages that older files have.
    "data.format": ["auto", "messages", "instruction", "completion", "qa", "preference", "text"],
    "data.train_on": ["replies", "all"],
    "method.qft.preset": ["balanced", "lean", "quality", "paper"],
    "method.qft.update": ["lion", "adamw"],
    "method.qft.rounding": ["stochastic", "nearest"],
    "method.qft.residual_bits": [0, 1, 4, 8],
    "method.qft.gradients": ["fused", "stack"],
    "method.qft.scale_group": ["row", 32, 64, 128],
    "method.qft.moment_bits": [8, 4],
    "method.qft.matmul": ["dequantize", "int8"],
    "method.qft.quantize": ["linear", "all"],
    "method.qlora.preset": ["balanced", "paper"],
    "method.qlora.optimizer": OPTIMIZERS,
    "method.qlora.quant_type": ["nf4", "fp4"],
    "method.lora.optimizer": OPTIMIZERS,
    "method.lomo.precision": ["auto", "bf16", "fp32"],
    "method.lomo.rounding": ["stochastic", "nearest"],
    "method.lomo.clip": ["two_pass_norm", "value", "none"],
    "method.adalomo.precision": ["auto", "bf16", "fp32"],
    "method.adalomo.rounding": ["stochastic", "nearest"],
    "method.adalomo.clip": ["none", "two_pass_norm", "value"],
    "method.full.optimizer": ["adamw", "adamw_8bit", "lion", "sgd"],
    "method.full.precision": ["mixed", "fp32", "bf16"],
    "train.batching": ["grouped", "shuffled", "packed"],
    "train.schedule": ["constant", "linear", "cosine"],
}
# Lowest and highest value that is allowed, and the nearest that are not; None: no bound there.
BOUNDS: list[tuple[str, Any, Any, Any, Any]] = [
    ("lora.rank", 1, 1024, 0, 1025),
    ("lora.alpha", 1e-9, 4096, 0, 4096.1),
    ("lora.dropout", 0, 0.99, -0.1, 1),
    ("lomo.clip_value", 1e-9, None, 0, None),
    ("adalomo.embedding_rate", 0, 100, -0.1, 100.1),
    ("data.eval_percent", 0, 50, -0.1, 50.1),
    ("data.max_rows", 1, None, 0, None),
    ("qft.outlier_percent", 0, 2, -0.1, 2.1),
    ("train.steps", 1, 10_000_000, 0, 10_000_001),
    ("train.epochs", 1e-9, 10_000, 0, 10_000.1),
    ("train.batch_size", 1, 4096, 0, 4097),
    ("train.grad_accumulation", 1, 4096, 0, 4097),
    ("train.sequence_length", 8, 1_048_576, 7, 1_048_577),
    ("train.learning_rate", 1e-12, 1, 0, 1.1),
    ("train.warmup_steps", 0, None, -1, None),
    ("train.weight_decay", 0, 1, -0.1, 1.1),
    ("train.max_grad_norm", 1e-9, None, 0, None),
    ("train.checkpoint_every", 1, None, 0, None),
    ("train.eval_every", 1, None, 0, None),
    ("train.seed", 0, 2**63 - 1, -1, 2**63),
]


def document(place: str = "", value: Any = None, *, kind: str = "full") -> dict[str, Any]:
    """A valid document with one value set, such as `train.steps`."""
    spec = copy.deepcopy(MINIMAL)
    spec["method"]["kind"] = kind
    if place:
        *groups, key = place.split(".", 1)
        target = spec.setdefault(groups[0], {}) if groups else spec
        target[key] = value
    return spec


def refusals(value: Any) -> tuple[RequestError, ...]:
    with pytest.raises((RequestError, RequestErrors)) as caught:
        validate_spec(value)
    return mistakes(caught.value)


def sentences(value: Any) -> list[str]:
    return [str(mistake) for mistake in refusals(value)]


def test_sharegpt_is_still_a_format() -> None:
    assert validate_spec(document("data.format", "sharegpt")).data.format == "sharegpt"


def test_public_surface_of_the_spec() -> None:
    schema = RunSpec.model_json_schema()
    groups = {
        "model": "ModelSpec",
        "data": "DataSpec",
        "method.qft": "QftSettings",
        "method.qlora": "QloraSettings",
        "method.lora": "LoraSettings",
        "method.lomo": "LomoSettings",
        "method.adalomo": "AdaLomoSettings",
        "method.full": "FullSettings",
        "train": "TrainSpec",
    }
    found: dict[str, dict[str, Any]] = {}
    for group, model in groups.items():
        entry = schema["$defs"][model]
        assert entry["additionalProperties"] is False
        found[group] = {
            name: "required" if name in entry.get("required", []) else field["default"]
            for name, field in entry["properties"].items()
        }
    assert found == FIELDS
    assert set(schema["$defs"]) == set(groups.values())
    assert list(schema["properties"]) == ["model", "data", "method", "train"]
    assert schema["required"] == ["model", "data", "method"]
    assert METHOD_KINDS == ("qft", "qlora", "lora", "lomo", "adalomo", "full")
    for place, choices in CHOICES.items():
        group, _, key = place.rpartition(".")
        entry = schema["$defs"][groups[group]]["properties"][key]
        # A choice that may be left open is one of two alternatives.
        assert entry.get("enum", entry.get("anyOf", [{}])[0].get("enum")) == choices


@pytest.mark.parametrize("entry", BOUNDS, ids=lambda entry: entry[0])
def test_bounds_hold_to_the_last_value(entry: tuple[str, Any, Any, Any, Any]) -> None:
    place, lowest, highest, too_low, too_high = entry
    group, key = place.split(".")
    is_method = group in METHOD_KINDS
    kind, group = (group, "method") if is_method else ("full", group)
    for value in (lowest, highest):
        if value is not None:
            spec = validate_spec(document(f"{group}.{key}", value, kind=kind))
            assert getattr(getattr(spec, group), key) == value
    for value in (too_low, too_high):
        if value is not None:
            (mistake,) = refusals(document(f"{group}.{key}", value, kind=kind))
            assert mistake.field == f"{group}.{key}"
            assert mistake.message.startswith("it should be ")
            assert mistake.message.endswith(f", but is {json.dumps(value)}.")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ["spec: no settings found. Give the groups model, data, method and train."]),
        ([MINIMAL], ["spec: no settings found. Give the groups model, data, method and train."]),
        ({}, [f"{group}: it is missing. Add it." for group in ("model", "data", "method")]),
        (document("trian", {}), ["trian: there is no such setting. Did you mean train?"]),
        (document("zzz", 1), [f"zzz: there is no such setting. {KNOWN_GROUPS}"]),
        (document("train.step", 5), ["train.step: there is no such setting. Did you mean steps?"]),
        (
            document("model.a.b", 5),
            ["model.a.b: there is no such setting. Known here: revision, source."],
        ),
        (
            document("method.round", 5, kind="qft"),
            ["method.round: there is no such setting. Did you mean rounding?"],
        ),
        (
            document("method.preset", "paper", kind="lora"),
            [
                "method.preset: there is no such setting. Known here: alpha, dropout, kind, "
                "optimizer, rank, targets."
            ],
        ),
        (
            document("method.learning_rate", 0.1, kind="lomo"),
            ["method.learning_rate: there is no such setting. Write it under train."],
        ),
        (
            document("method.preset", "papers", kind="qft"),
            [
                "method.preset: it should be 'balanced', 'lean', 'quality' or 'paper', but is "
                '"papers".'
            ],
        ),
        (
            document("method.preset", ["paper"], kind="qft"),
            [
                "method.preset: it should be 'balanced', 'lean', 'quality' or 'paper', but is "
                "a list."
            ],
        ),
        (
            document("method.residual_bits", 2, kind="qft"),
            ["method.residual_bits: it should be 0, 1, 4 or 8, but is 2."],
        ),
        (
            document("method.scale_group", "32", kind="qft"),
            ["method.scale_group: it should be 'row', 32, 64 or 128, but is \"32\"."],
        ),
        (
            document("method.kind", "qlara"),
            [f"method.kind: unknown method. Choose one of {KINDS}."],
        ),
        (document("method", {}), [f"method.kind: unknown method. Choose one of {KINDS}."]),
        (document("method", "qft"), ['method: it should be a group of settings, but is "qft".']),
        (document("train", None), ["train: it should be a group of settings, but is null."]),
        (document("train", [1]), ["train: it should be a group of settings, but is a list."]),
        ({**MINIMAL, 7: 1}, ["7: the name of a setting should be text, but is 7."]),
        (
            document("data.source", ""),
            ['data.source: it should have at least 1 character, but is "".'],
        ),
        (
            document("data.source", "x" * 5000),
            [f'data.source: it should have at most 4096 characters, but is "{"x" * 56}....'],
        ),
        (
            document("model.source", "\ud800"),
            ['model.source: it should be text without half characters, but is "\ud800".'],
        ),
        (
            document("train.steps", {1: 2}),
            ["train.steps: it should be a valid integer, but is a group."],
        ),
        (
            document("train.steps", True),
            ["train.steps: it should be a valid integer, but is true."],
        ),
        (document("train.steps", 1.5), ["train.steps: it should be a valid integer, but is 1.5."]),
        (document("train.steps", "5"), ['train.steps: it should be a valid integer, but is "5".']),
        (
            document("train.learning_rate", "x"),
            ['train.learning_rate: it should be a valid number, but is "x".'],
        ),
        (
            document("train.weight_decay", float("nan")),
            ["train.weight_decay: it should be a finite number, but is NaN."],
        ),
        (
            document("train.max_grad_norm", float("inf")),
            ["train.max_grad_norm: it should be a finite number, but is Infinity."],
        ),
        (
            document("train.device", "tpu"),
            ['train.device: it should be auto, cpu, cuda, cuda:N or mps, but is "tpu".'],
        ),
        (
            document("train.activation_checkpointing", 5),
            ["train.activation_checkpointing: it should be 'auto' or a valid boolean, but is 5."],
        ),
        (
            document("train.schedule", "cosin"),
            ["train.schedule: it should be 'constant', 'linear' or 'cosine', but is \"cosin\"."],
        ),
        (
            document("train", {"steps": 0, "seed": -1}),
            [
                "train.steps: it should be greater than or equal to 1, but is 0.",
                "train.seed: it should be greater than or equal to 0, but is -1.",
            ],
        ),
        (
            document("train", {"steps": 5, "epochs": 1}),
            ["train.epochs: steps and epochs were both given. Keep one of them."],
        ),
    ],
)
def test_each_mistake_is_one_sentence(value: Any, expected: list[str]) -> None:
    # The way out of a wrong value is derived from the field: tests/test_spec_advice.py.
    for mistake, sentence in zip(refusals(value), expected, strict=True):
        assert sentence in (str(mistake), f"{mistake.field}: {mistake.message}")


def test_a_spec_cannot_be_changed() -> None:
    spec = validate_spec(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        spec.train.steps = 5  # pyright: ignore[reportAttributeAccessIssue]


def test_round_trip_through_json_changes_nothing() -> None:
    spec = validate_spec(
        document("train", {"learning_rate": 1e-4, "activation_checkpointing": False, "steps": 7})
    )
    assert validate_spec(json.loads(json.dumps(spec.as_json()))) == spec
    assert validate_spec(validate_spec(MINIMAL).as_json()) == validate_spec(MINIMAL)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NEAR_SPECS = st.fixed_dictionaries(
    {},
    optional={
        group: JSON_VALUES
        | st.dictionaries(
            st.sampled_from([name for table in FIELDS.values() for name in table]) | st.text(),
            JSON_VALUES | st.sampled_from(["auto", "qft", "full", "paper", "starter", 10**400]),
            max_size=5,
        )
        for group in ("model", "data", "method", "train", "model.source")
    },
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.one_of(NEAR_SPECS, JSON_VALUES))
def test_any_value_is_a_spec_or_a_list_of_sentences(value: Any) -> None:
    try:
        assert validate_spec(validate_spec(value).as_json())
    except (RequestError, RequestErrors) as error:
        for mistake in mistakes(error):
            assert mistake.field
            assert mistake.message.endswith(".")


def test_an_encoding_is_one_that_text_can_be_in() -> None:
    for encoding in ("utf-8", "CP1250", "shift_jis", "latin1", "utf_16_le", None):
        spec = validate_spec({**MINIMAL, "data": {"source": "pirate", "encoding": encoding}})
        assert spec.data.encoding == encoding
    for encoding in ("", "klingon", "base64", "rot13", "idna", "undefined", "a\x00b"):
        with pytest.raises(RequestErrors) as caught:
            validate_spec({**MINIMAL, "data": {"source": "pirate", "encoding": encoding}})
        (mistake,) = mistakes(caught.value)
        assert mistake.field == "data.encoding"
        assert mistake.message.endswith("is no encoding of text known here.")
