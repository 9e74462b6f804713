"""Whoever wrote a wrong value is told what may stand there, from the field's own definition."""

from __future__ import annotations

from typing import Any

import pytest

from engine.contract.errors import RequestErrors
from engine.contract.spec_file import validate_spec
from tests.test_spec import FIELDS

WAYS_OUT = {
    "model": "Write it as model: {source: ...}.",
    "model.source": "Use starter, a catalogue name, a folder on this computer, or a hub id.",
    "model.revision": "Leave it out.",
    "data.source": "Use a bundled sample, a file on this computer, or a hub id.",
    "data.format": "Choose auto, messages, instruction, completion, qa, preference, text or "
    "sharegpt.",
    "data.eval_percent": "Use a number from 0 to 50.",
    "data.max_rows": "Use a whole number of 1 or more.",
    "data.train_on": "Choose replies or all.",
    "method": "Write it as method: {kind: ...}.",
    "method.preset": "Choose balanced, lean, quality or paper.",
    "method.update": "Choose lion or adamw.",
    "method.rounding": "Choose stochastic or nearest.",
    "method.residual_bits": "Choose 0, 1, 4 or 8.",
    "method.outlier_percent": "Use a number from 0 to 2.",
    "method.gradients": "Choose fused or stack.",
    "method.scale_group": "Choose row, 32, 64 or 128.",
    "method.moment_bits": "Choose 8 or 4.",
    "method.matmul": "Choose dequantize or int8.",
    "method.quantize": "Choose linear or all.",
    "train": "Write it as train: {steps: ...}.",
    "train.steps": "Use a whole number from 1 to 10000000.",
    "train.epochs": "Use a number above 0, at most 10000.",
    "train.batch_size": "Use a whole number from 1 to 4096.",
    "train.learning_rate": "Use a number above 0, at most 1.",
    "train.schedule": "Choose constant, linear or cosine.",
    "train.warmup_steps": "Use a whole number of 0 or more.",
    "train.max_grad_norm": "Use a number above 0.",
    "train.activation_checkpointing": "Choose auto, true or false.",
    "train.device": "Use auto.",
}


def advice(place: str, value: Any, kind: str = "qft") -> str:
    document: dict[str, Any] = {
        "model": {"source": "starter"},
        "data": {"source": "pirate"},
        "method": {"kind": kind},
        "train": {},
    }
    group, _, key = place.partition(".")
    if key:
        document[group][key] = value
    else:
        document[group] = value
    with pytest.raises(RequestErrors) as caught:
        validate_spec(document)
    (mistake,) = caught.value.errors
    assert mistake.field == place
    return mistake.advice


@pytest.mark.parametrize("place", WAYS_OUT)
def test_the_way_out_is_what_the_field_takes(place: str) -> None:
    for wrong in (-1.5, [1]):
        assert advice(place, wrong) == WAYS_OUT[place]


def test_every_setting_of_the_spec_has_a_way_out() -> None:
    for place, fields in FIELDS.items():
        for key in set(fields) - {"kind"}:
            group, _, kind = place.partition(".")
            assert advice(f"{group}.{key}", [1], kind or "qft").endswith(".")
