"""The forecast against the meter: the modelled half of the terms, not only the exact one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.contract.spec_file import validate_spec
from engine.data.batching import Batch
from engine.inspect_model import shape_of
from engine.memory.devices import this_computer
from engine.memory.estimate import Forecast, estimate
from engine.meter import LiveTensorMeter
from engine.methods import METHODS
from engine.model import load_model

CPU = torch.device("cpu")


def _forecast_and_peak(folder: Path, kind: str, batch: int, length: int) -> tuple[Forecast, int]:
    loaded = load_model(folder, torch.float32 if kind == "full" else torch.bfloat16)
    train = {"batch_size": batch, "sequence_length": length, "steps": 2, "learning_rate": 1e-4}
    spec = validate_spec(
        {
            "model": {"source": "-"},
            "data": {"source": "-"},
            "method": {"kind": kind},
            "train": {**train, "activation_checkpointing": False},
        }
    )
    forecast = estimate(spec, shape_of(loaded.model, "tiny"), this_computer())
    method = METHODS[spec.method.kind]()
    method.prepare(loaded.model, spec, CPU)
    loaded.model.train()
    tokens = torch.randint(5, 200, (batch, length))
    peak = 0
    for step in (1, 2):
        alive = [*loaded.model.parameters(), *loaded.model.buffers(), *method.state_dict().values()]
        with LiveTensorMeter(alive) as meter:
            method.step([Batch(tokens, torch.ones_like(tokens), tokens.clone())], 1e-4, step)
        peak = max(peak, meter.peak_bytes)
    return forecast, peak


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("kind", ["qft", "full"])
@pytest.mark.parametrize(("batch", "length"), [(2, 64), (8, 128)])
def test_the_measured_peak_is_within_the_band(
    tiny_folder: Callable[[str], Path], architecture: str, kind: str, batch: int, length: int
) -> None:
    forecast, peak = _forecast_and_peak(tiny_folder(architecture), kind, batch, length)
    assert forecast.tensor_bytes == pytest.approx(peak, rel=0.08)
