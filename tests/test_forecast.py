"""A slice of the matrix of `benchmarks/forecast.py`: the forecast against the meter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.forecast import measure
from benchmarks.forecast_cases import ARCHITECTURES, SETTINGS, Case
from engine.memory.estimate import MEASURED

METHODS = [*SETTINGS]
# Too low is what breaks a run. How far too high single cases may lie is nowhere promised; this is
# the furthest of the whole matrix, rounded up.
LOWEST, HIGHEST = -5, 12


def case_of(number: int) -> Case:
    """One small case: every method once, the architectures in turn."""
    return Case(
        method=METHODS[number],
        architecture=ARCHITECTURES[number % len(ARCHITECTURES)],
        hidden_size=256,
        intermediate_size=512,
        num_layers=2,
        num_heads=4,
        num_key_value_heads=2,
        vocab_size=(1024, 8192)[number % 2],
        tied=number % 3 == 0,
        batch_size=2,
        sequence_length=128,
        checkpointing=number % 4 < 2,
    )


def test_every_architecture_that_counts_as_measured_is_in_the_matrix() -> None:
    assert set(ARCHITECTURES) == MEASURED


@pytest.mark.parametrize("number", range(len(METHODS)), ids=METHODS)
def test_the_measured_peak_is_near_the_forecast(number: int) -> None:
    found = measure(case_of(number))
    assert LOWEST <= found.error_percent <= HIGHEST, found


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("method", ["qft balanced", "full"])
@pytest.mark.parametrize(("batch", "length"), [(2, 64), (8, 128)])
def test_kept_activations_are_forecast_closely(
    architecture: str, method: str, batch: int, length: int
) -> None:
    case = replace(
        case_of(0),
        method=method,
        architecture=architecture,
        hidden_size=32,
        intermediate_size=64,
        vocab_size=320,
        tied=False,
        batch_size=batch,
        sequence_length=length,
        checkpointing=False,
    )
    assert abs(measure(case).error_percent) <= 8
