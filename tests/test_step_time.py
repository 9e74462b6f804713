"""What is forecast of time: properties of the model, and rates that are kept. Timings are none."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from engine.contract.launch import PROJECT
from engine.contract.presets import METHOD_CHOICES
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device, this_computer
from engine.memory.machine_rates import (
    MachineRates,
    device_key,
    rates_of,
    rates_path,
    save_rates,
)
from engine.memory.model_shape import ModelShape
from engine.memory.step_time import (
    FROM_STEPS,
    LEAST_SHARE,
    StepTime,
    step_time,
    total_time,
    tried_step_time,
)

CPU = Device("cpu", "cpu", "8 CPU cores", 64 << 30, 32 << 30)
GPU = Device("cuda:0", "cuda", "a GPU", 24 << 30, 24 << 30)
RATES = MachineRates("test", {"float32": 1e11}, 2e10, 5e-6)
GPU_RATES = MachineRates("test", {"float32": 4e13, "bfloat16": 2e14}, 1e12, 5e-6)


def shape_of(name: str) -> ModelShape:
    shape = bundled_shape(name)
    assert shape is not None
    return shape


def spec_of(method: str | dict[str, Any] = "qft", **train: Any) -> RunSpec:
    settings = {"kind": method} if isinstance(method, str) else method
    if settings["kind"] in ("lomo", "adalomo"):
        settings = {"precision": "fp32", **settings}
    defaults = {"steps": 10, "learning_rate": 1e-4, "activation_checkpointing": False}
    return validate_spec(
        {
            "model": {"source": "qwen3-0.6b"},
            "data": {"source": "pirate"},
            "method": settings,
            "train": {**defaults, **train},
        }
    )


def seconds(spec: RunSpec, name: str = "qwen3-0.6b", tokens: int = 256, **more: Any) -> float:
    device = more.get("device", CPU)
    rates = RATES if device is CPU else GPU_RATES
    step = step_time(spec, shape_of(name), device, rates, tokens, typical_tokens=tokens)
    assert step is not None
    assert 0 < step.low < step.seconds < step.high
    return step.seconds


@pytest.mark.parametrize("choice", METHOD_CHOICES, ids=lambda choice: choice.key)
@pytest.mark.parametrize("device", [CPU, GPU], ids=lambda device: device.kind)
def test_more_tokens_take_longer_with_every_method(choice: Any, device: Device) -> None:
    method = {"kind": choice.kind, **({"preset": choice.preset} if choice.preset else {})}
    times = [
        seconds(
            spec_of(method, batch_size=batch, sequence_length=4096), tokens=tokens, device=device
        )
        for batch, tokens in ((1, 64), (2, 64), (2, 128), (8, 128), (8, 2048))
    ]
    assert times == sorted(times)
    assert times[-1] > 2 * times[0]


def test_larger_models_take_longer() -> None:
    times = [seconds(spec_of(), name) for name in ("smollm2-135m", "qwen3-0.6b", "qwen3-4b")]
    assert times == sorted(times)


@pytest.mark.parametrize("kind", ["qft", "full", "lomo"])
def test_recomputing_costs_about_a_third_more(kind: str) -> None:
    kept = seconds(spec_of(kind, batch_size=8))
    again = seconds(spec_of(kind, batch_size=8, activation_checkpointing=True))
    assert 1.15 < again / kept < 1.45


def test_an_adapter_is_cheaper_than_full_tuning() -> None:
    full = seconds(spec_of("full", batch_size=8))
    assert seconds(spec_of("lora", batch_size=8)) < 0.9 * full


def test_exact_clipping_in_a_fused_method_goes_back_twice() -> None:
    once = seconds(spec_of({"kind": "lomo", "clip": "none"}, batch_size=8))
    twice = seconds(spec_of("lomo", batch_size=8, max_grad_norm=1.0))
    assert 1.4 < twice / once < 1.9


def test_accumulation_repeats_the_passes_and_not_the_update() -> None:
    one = seconds(spec_of("full", batch_size=2))
    four = seconds(spec_of("full", batch_size=2, grad_accumulation=4))
    assert 2.5 * one < four < 4 * one


def test_a_faster_machine_is_faster() -> None:
    spec, shape = spec_of("full"), shape_of("qwen3-0.6b")
    fast = MachineRates("fast", {"float32": 1e12}, 2e11, 5e-7)
    found = [step_time(spec, shape, CPU, rates, 256) for rates in (RATES, fast)]
    assert found[0]
    assert found[1]
    assert found[0].seconds == pytest.approx(10 * found[1].seconds)


def test_without_rates_nothing_is_said() -> None:
    assert step_time(spec_of(), shape_of("qwen3-0.6b"), CPU, None) is None


def test_where_only_the_longest_row_is_known_the_band_is_wider() -> None:
    spec, shape = spec_of(sequence_length=512), shape_of("qwen3-0.6b")
    longest = step_time(spec, shape, CPU, RATES, 300)
    known = step_time(spec, shape, CPU, RATES, 300, typical_tokens=200)
    widest = step_time(spec, shape, CPU, RATES, 300, typical_tokens=300)
    least = step_time(spec, shape, CPU, RATES, 300, typical_tokens=round(LEAST_SHARE * 300))
    assert longest
    assert known
    assert widest
    assert least
    assert longest.high / longest.low > known.high / known.low
    assert (longest.low, longest.high) == (least.low, widest.high)
    packed = step_time(spec_of(sequence_length=512, batching="packed"), shape, CPU, RATES, 300)
    assert packed
    assert packed.high / packed.low == pytest.approx(known.high / known.low)


def test_the_whole_run_is_its_steps_and_what_lies_between() -> None:
    shape, step = shape_of("qwen3-0.6b"), StepTime(2.0, 1.5, 3.0, "")
    spec = spec_of(steps=100)
    total = total_time(spec, shape, CPU, step, RATES, num_rows=400)
    assert total
    assert total.steps == 100
    assert 200 < total.seconds < 600
    assert total.low < total.seconds < total.high
    often = total_time(spec_of(steps=100, eval_every=1), shape, CPU, step, RATES, num_rows=400)
    assert often
    assert often.seconds > total.seconds
    epochs = spec_of(steps=None, epochs=2, batch_size=4)
    assert total_time(epochs, shape, CPU, step, RATES) is None
    counted = total_time(epochs, shape, CPU, step, RATES, num_rows=400)
    assert counted
    assert counted.steps == 2 * 360 // 4


def test_tried_steps_are_a_narrower_band_unless_they_differ() -> None:
    alike, unlike = tried_step_time(1.0, 1.01), tried_step_time(1.0, 2.0)
    assert alike.high / alike.low < unlike.high / unlike.low
    assert alike.source == FROM_STEPS


def test_rates_are_kept_for_each_device_and_a_broken_file_is_none() -> None:
    device = replace(CPU, name="a computer of this test")
    assert rates_of(device) is None
    rates = replace(RATES, device=device_key(device))
    path = save_rates(rates)
    assert path == rates_path(device_key(device))
    assert rates_of(device) == rates
    assert rates_of(GPU) is None
    whole = json.loads(path.read_text(encoding="utf-8"))
    for broken in (
        b"",
        b"{",
        b"[]",
        b'{"device": 1}',
        json.dumps({**whole, "bytes_per_s": 0}).encode(),
        json.dumps({**whole, "bytes_per_s": True}).encode(),
        json.dumps({**whole, "seconds_per_operation": None}).encode(),
        json.dumps({**whole, "flops_per_s": {"float32": "fast"}}).encode(),
        json.dumps({**whole, "flops_per_s": {}}).encode(),
        json.dumps({**whole, "schema_version": 0}).encode(),
    ):
        path.write_bytes(broken)
        assert rates_of(device) is None


def test_a_format_that_was_not_measured_has_the_slowest_rate() -> None:
    assert (GPU_RATES.flops(4), GPU_RATES.flops(2)) == (4e13, 2e14)
    assert RATES.flops(2) == 1e11
    assert replace(RATES, flops_per_s={"bfloat16": 7.0, "float16": 9.0}).flops(4) == 7.0


def test_the_measured_rates_are_those_of_a_real_machine() -> None:
    from engine.measure_rates import measure_rates

    rates = measure_rates(this_computer())
    assert rates.device == device_key(this_computer())
    assert set(rates.flops_per_s) == {"float32"}
    assert 1e8 < rates.flops(4) < 1e14
    assert 1e8 < rates.bytes_per_s < 1e13
    assert 1e-8 < rates.seconds_per_operation < 1e-2


def test_a_forecast_of_time_needs_no_torch() -> None:
    script = (
        "import sys; import engine.memory.step_time, engine.memory.machine_rates\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
