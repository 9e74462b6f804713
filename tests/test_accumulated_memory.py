"""Gradients that wait for the micro-batches after them are in the forecast."""

from __future__ import annotations

import pytest
import torch

from benchmarks.fit_requests import metered_peak
from benchmarks.forecast_cases import Case
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.inspect_model import shape_of
from engine.memory.devices import this_computer
from engine.memory.estimate import estimate
from engine.trace_activations import trace_activations

pytestmark = pytest.mark.slow


def case_of(method: str, *, tied: bool, checkpointing: bool) -> Case:
    return Case(
        method=method,
        architecture="llama",
        hidden_size=128,
        intermediate_size=384,
        num_layers=4,
        num_heads=4,
        num_key_value_heads=4,
        vocab_size=4096,
        tied=tied,
        batch_size=2,
        sequence_length=64,
        checkpointing=checkpointing,
    )


def accumulating(case: Case, times: int) -> RunSpec:
    document = case.spec().as_json()
    document["train"]["grad_accumulation"] = times
    return validate_spec(document)


@pytest.mark.parametrize("method", ["qft paper", "full", "full bf16 8-bit", "lora"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_forecast_of_an_accumulating_step_is_its_peak(
    method: str, tied: bool, checkpointing: bool
) -> None:
    torch.manual_seed(0)
    case = case_of(method, tied=tied, checkpointing=checkpointing)
    model = case.model()
    traces = trace_activations(case.config(), ("float32",), (method == "lora",))
    shape = shape_of(model, "tiny").model_copy(update={"traces": traces})
    spec = accumulating(case, 3)
    forecast = estimate(spec, shape, this_computer(), case.sequence_length)
    peak = metered_peak(model, spec, case)
    assert 0.97 * peak <= forecast.tensor_bytes <= 1.1 * peak
    once = estimate(accumulating(case, 1), shape, this_computer(), case.sequence_length)
    assert once.total_bytes <= forecast.total_bytes
