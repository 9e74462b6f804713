"""The numbers that the forecast promises, held against the result files that ship."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from benchmarks.forecast import summary
from benchmarks.forecast_cases import ARCHITECTURES, SETTINGS
from docs.tables import result


@pytest.fixture(scope="module")
def matrix() -> dict[str, Any]:
    return result("forecast_cpu")


def errors(matrix: dict[str, Any]) -> list[float]:
    return [100 * (case["forecast"] / case["peak"] - 1) for case in matrix["cases"]]


def test_the_matrix_is_whole(matrix: dict[str, Any]) -> None:
    cases = matrix["cases"]
    assert len(cases) >= 60
    assert {case["method"] for case in cases} == set(SETTINGS)
    assert {case["architecture"] for case in cases} == set(ARCHITECTURES)
    for name in ("batch_size", "sequence_length", "checkpointing", "vocab_size", "tied"):
        assert len({case[name] for case in cases}) > 1
    assert matrix["hardware"]


def test_the_forecast_is_as_near_as_promised(matrix: dict[str, Any]) -> None:
    found = errors(matrix)
    sizes = sorted(abs(error) for error in found)
    assert statistics.median(sizes) <= 3
    assert sizes[int(0.95 * len(sizes))] <= 8
    assert min(found) >= -5


def test_the_summary_is_that_of_the_cases(matrix: dict[str, Any]) -> None:
    told = matrix["all"]
    assert told == pytest.approx(summary(errors(matrix)), abs=0.01)
    assert sum(one["cases"] for one in matrix["architectures"].values()) == told["cases"]
