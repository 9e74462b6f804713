"""Measured memory is exact where it can be counted by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.meter import MEASURED_STEPS, MemorySampler, StepPeak, process_bytes
from engine.tensor_meter import LiveTensorMeter
from tests.tiny import prepared, tiny_spec

CPU = torch.device("cpu")


def test_the_peak_of_a_sequence_counted_by_hand() -> None:
    before = torch.zeros(1000)
    with LiveTensorMeter([before, before[:7]]) as meter:
        assert meter.live_bytes == 4000
        one = before + 1
        assert meter.live_bytes == 8000
        two = one.to(torch.float64)
        assert (meter.live_bytes, meter.peak_bytes) == (16_000, 16_000)
        del two
        assert meter.live_bytes == 8000
        three = torch.cat([one, one])
        assert (meter.live_bytes, meter.peak_bytes) == (16_000, 16_000)
        four = three.to(torch.int8)
        assert (meter.live_bytes, meter.peak_bytes) == (18_000, 18_000)
        del three, four
        assert (meter.live_bytes, meter.peak_bytes) == (8000, 18_000)
    assert float(one.sum()) == 1000


def test_views_and_changes_in_place_cost_nothing() -> None:
    with LiveTensorMeter([]) as meter:
        whole = torch.zeros(30, 40)
        views = [whole[3:], whole.T, whole.flatten(), whole.unflatten(0, (3, 10)), whole.detach()]
        whole.add_(1).mul_(2)
        assert meter.peak_bytes == 4800
        del whole
        assert meter.live_bytes == 4800, "the views keep it alive"
        del views
        assert meter.live_bytes == 0


def test_what_autograd_keeps_is_counted() -> None:
    weight = torch.ones(1000, requires_grad=True)
    with LiveTensorMeter([weight]) as meter:
        kept = weight.exp()  # its own backward pass needs it
        total = kept.sum()
        del kept
        assert meter.live_bytes == 4000 + 4000 + 4
        total.backward()
        del total
        assert weight.grad is not None
        assert meter.live_bytes == 4000 + 4000


def test_a_storage_that_takes_the_place_of_a_freed_one_is_counted() -> None:
    with LiveTensorMeter([]) as meter:
        for _ in range(100):
            block = torch.empty(2500)
            assert meter.live_bytes == 10_000
            del block
        assert (meter.live_bytes, meter.peak_bytes) == (0, 10_000)


def test_the_first_steps_are_measured_and_told_once() -> None:
    kept, told = torch.zeros(1000), []
    peak = StepPeak(CPU, lambda: [kept], told.append)
    assert MEASURED_STEPS == 2
    for size in (500, 3000, 9000):
        with peak.around_step():
            torch.zeros(size)
    assert told == [4000 + 12_000]
    assert (peak.peak_bytes, peak.resting_bytes, peak.reserved_bytes) == (16_000, 4000, None)
    assert peak.is_done


def test_what_stays_from_the_first_step_on_is_no_part_of_the_second() -> None:
    kept = [torch.zeros(1000)]
    peak = StepPeak(CPU, lambda: kept, lambda _: None)
    with peak.around_step():
        kept.append(torch.zeros(500))
        torch.zeros(2000)
    with peak.around_step():
        torch.zeros(2000)
    assert (peak.peak_bytes, peak.resting_bytes) == (14_000, 6000)


def test_an_attempt_that_goes_on_keeps_the_earlier_peak() -> None:
    kept = [torch.zeros(10)]
    peak = StepPeak(CPU, lambda: kept, lambda _: None, 1, peak_bytes=9000)
    with peak.around_step():
        torch.zeros(100)
    assert (peak.peak_bytes, peak.is_done) == (9000, True)
    assert peak.resting_bytes == 40


def test_the_peak_of_a_real_step_repeats(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path
) -> None:
    """No noise: the same step has the same peak, and it is above the states alone."""
    peaks = []
    for _ in range(2):
        one = prepared(tiny_spec(tiny_folder("llama"), chats_file, "qft"), tmp_path)
        with LiveTensorMeter(one.live_tensors()) as meter:
            states = meter.live_bytes
            one.method.step(one.batches(1), 1e-3, 1)
        peaks.append(meter.peak_bytes - states)
        assert meter.live_bytes == states
    assert peaks[0] == peaks[1] > 10_000


def test_the_sampler_tells_until_it_is_closed() -> None:
    told: list[dict[str, int | None]] = []
    sampler = MemorySampler(CPU, told.append, period_s=0.01)
    sampler.start()
    deadline = time.monotonic() + 60
    while len(told) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    sampler.close()
    count = len(told)
    assert count >= 4, "closing takes a last sample"
    time.sleep(0.05)
    assert len(told) == count
    assert not sampler.is_alive()
    for sample in told:
        assert sample["allocated_bytes"] is None
        assert (sample["host_rss_bytes"] or 0) > 10**7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_allocator_counts() -> None:
    told: list[int] = []
    peak = StepPeak(torch.device("cuda"), lambda: [], told.append)
    for _ in range(MEASURED_STEPS):
        with peak.around_step():
            torch.zeros(1 << 20, device="cuda")
    assert told[0] >= 4 << 20
    assert peak.resting_bytes is not None
    assert told[0] - peak.resting_bytes == 4 << 20
    assert (peak.reserved_bytes or 0) >= told[0]
    share = process_bytes(torch.device("cuda"))
    assert share is None or share >= told[0], "the context is more than the tensors"
