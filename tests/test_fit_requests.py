"""What was made to fit stays under its limit: the result on file, and a slice of it now."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks.fit_requests import Request, outcome_of, random_requests
from docs.tables import result

pytestmark = pytest.mark.slow


def test_the_result_on_file_keeps_the_promise() -> None:
    found = result("fit_requests_cpu")
    outcomes = found["outcomes"]
    under = [one for one in outcomes if one["peak_bytes"] <= one["limit_bytes"]]
    assert len(outcomes) == found["accepted"] >= 100
    assert len(under) == found["under_the_limit"] >= 0.99 * len(outcomes)
    # Limits that need no change would prove nothing.
    assert sum(bool(one["changes"]) for one in outcomes) >= len(outcomes) / 2
    requests = {json.dumps(one["request"], sort_keys=True) for one in outcomes}
    assert len(requests) == len(outcomes)


def slice_of(seed: int) -> list[Request]:
    """One request of each of three methods, chosen by chance but always the same."""
    every = list(random_requests(1, seed))
    return random.Random(seed).sample(every, 3)


@pytest.mark.parametrize("request_", slice_of(0), ids=lambda one: one.case.method)
def test_what_fit_accepts_stays_under_its_limit(request_: Request) -> None:
    outcome = outcome_of(request_)
    assert outcome is not None
    assert outcome.is_under
    # A limit that is far away would hold anything.
    assert outcome.peak_bytes > 0.5 * outcome.limit_bytes
