"""The search behind the presets: `python -m benchmarks.preset_sweep --save FILE`.

Every method tunes the starter on bundled samples, and is measured on their held-out rows. First the
learning rate is searched, with the schedule and the clipping of the preset; then, at the best rate,
the schedule; then the clipping, where the method can clip. The order of the data comes from the
seed, and each number is a mean over samples and seeds. What is found here is what
`engine.contract.presets` holds for small models; for large ones it holds the authors' advice.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.contract.launch import engine_environment

if __name__ == "__main__" and os.environ != engine_environment():
    # OpenMP reads its settings once, when torch is loaded.
    os.execve(
        sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], engine_environment()
    )

from engine.contract.durable import read_json, write_json
from engine.contract.events import EventWriter
from engine.contract.model_source import resolve_model
from engine.contract.presets import resolve_presets
from engine.contract.spec import Schedule, TrainSpec
from engine.contract.spec_file import validate_spec
from engine.evaluate import held_out_loss
from engine.methods.protocol import NonFiniteError
from engine.preparation import Prepared, prepare
from engine.request import create_checked_run
from engine.schedule import learning_rate

SCHEDULES: tuple[Schedule, ...] = ("constant", "linear", "cosine")
CLIPS: tuple[float | None, ...] = (None, 0.3, 1.0)


@dataclass(frozen=True)
class Searched:
    """A method with the settings that have a preset of their own, and the rates to try."""

    method: dict[str, Any]
    rates: tuple[float, ...]
    clips: tuple[float | None, ...] = CLIPS


_ADAPTER_RATES = (1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
_ADAMW_RATES = (1e-3, 2e-3, 3e-3, 5e-3)
_LION_RATES = (2e-4, 4e-4, 8e-4, 1.6e-3)
_DESCENT_RATES = (0.1, 0.3, 1.0)
SEARCHED: dict[str, Searched] = {
    "qft": Searched({"kind": "qft"}, _LION_RATES, (None,)),
    "qft adamw": Searched({"kind": "qft", "update": "adamw"}, _ADAMW_RATES, (None,)),
    "qlora": Searched({"kind": "qlora"}, _ADAPTER_RATES),
    "lora": Searched({"kind": "lora"}, _ADAPTER_RATES),
    "lomo": Searched({"kind": "lomo"}, _DESCENT_RATES, (0.3, 1.0, 3.0)),
    "lomo unclipped": Searched({"kind": "lomo", "clip": "none"}, _DESCENT_RATES, (None,)),
    "adalomo": Searched({"kind": "adalomo"}, (3e-3, 1e-2, 2e-2, 5e-2), (None,)),
    "full adamw": Searched({"kind": "full"}, _ADAMW_RATES),
    "full adamw 8-bit": Searched({"kind": "full", "optimizer": "adamw_8bit"}, _ADAMW_RATES),
    "full lion": Searched({"kind": "full", "optimizer": "lion"}, _LION_RATES),
    "full sgd": Searched({"kind": "full", "optimizer": "sgd"}, _DESCENT_RATES),
}


@dataclass(frozen=True)
class Setting:
    """What is tried."""

    learning_rate: float
    schedule: Schedule
    max_grad_norm: float | None


@dataclass(frozen=True)
class Trial:
    """What one setting did.

    Attributes:
        method: Key of `SEARCHED`.
        losses: Nats per held-out token after training, by sample and seed; None where training
            met a number that is not finite.
        mean: Of the losses; None if one is missing.
        is_preset: Whether it is what the preset of the method holds.
    """

    method: str
    learning_rate: float
    schedule: Schedule
    max_grad_norm: float | None
    losses: list[float | None]
    mean: float | None
    is_preset: bool


@dataclass(frozen=True)
class Sweep:
    """How each trial is run."""

    samples: Sequence[str]
    seeds: int
    steps: int

    def search(self, name: str, searched: Searched) -> Iterator[Trial]:
        """Rates, then schedules, then clips; each from the best so far."""
        preset = self._preset(searched.method)
        done: dict[Setting, Trial] = {}
        schedule, clip = preset.schedule or "cosine", preset.max_grad_norm
        for rate in sorted({*searched.rates, preset.learning_rate or 0.0}):
            yield from self._once(name, searched, Setting(rate, schedule, clip), done)
        best = _best(done)
        for other in SCHEDULES:
            setting = Setting(best.learning_rate, other, best.max_grad_norm)
            yield from self._once(name, searched, setting, done)
        best = _best(done)
        for other_clip in searched.clips:
            setting = Setting(best.learning_rate, best.schedule, other_clip)
            yield from self._once(name, searched, setting, done)

    def _once(
        self, name: str, searched: Searched, setting: Setting, done: dict[Setting, Trial]
    ) -> Iterator[Trial]:
        if setting in done:
            return
        losses = [
            self._train(searched.method, setting, sample, seed)
            for sample in self.samples
            for seed in range(self.seeds)
        ]
        finite = [loss for loss in losses if loss is not None]
        mean = round(statistics.mean(finite), 4) if len(finite) == len(losses) else None
        preset = self._preset(searched.method)
        is_preset = setting == Setting(
            preset.learning_rate or 0.0, preset.schedule or "cosine", preset.max_grad_norm
        )
        done[setting] = Trial(
            name, **asdict(setting), losses=losses, mean=mean, is_preset=is_preset
        )
        yield done[setting]

    def _preset(self, method: dict[str, Any]) -> TrainSpec:
        spec = validate_spec(self._document(method, self.samples[0], {}))
        return resolve_presets(spec, resolve_model("starter")).train

    def _document(self, method: dict[str, Any], sample: str, train: dict[str, Any]) -> Any:
        fixed = {"steps": self.steps, "batch_size": 8, "sequence_length": 128, "device": "cpu"}
        return {
            "model": {"source": "starter"},
            "data": {"source": sample},
            "method": method,
            "train": {**fixed, **train},
        }

    def _train(
        self, method: dict[str, Any], setting: Setting, sample: str, seed: int
    ) -> float | None:
        wish = self._document(method, sample, {**asdict(setting), "seed": seed})
        with tempfile.TemporaryDirectory() as runs:
            run = create_checked_run(validate_spec(wish), Path(runs), None)
            with EventWriter(run.events_path, attempt=1) as events:
                prepared = prepare(run, events)
            return held_out(prepared) if train_all(prepared) else None


def train_all(prepared: Prepared) -> bool:
    """Every step of a run; False if it met a number that is not finite."""
    try:
        for step in range(1, prepared.num_steps + 1):
            rate = learning_rate(step, prepared.num_steps, prepared.spec.train)
            prepared.method.step(prepared.batches(step), rate, step)
    except NonFiniteError:
        return False
    return True


def held_out(prepared: Prepared) -> float:
    """Nats per held-out token."""
    found = held_out_loss(prepared.loaded, prepared.evaluation, 32, prepared.device, lambda: False)
    assert found is not None
    return round(found[0] / found[1], 4)


def _best(done: dict[Setting, Trial]) -> Setting:
    finite = [(trial.mean, setting) for setting, trial in done.items() if trial.mean is not None]
    return min(finite, key=lambda pair: pair[0])[1]


def document(trials: Sequence[Trial], sweep: Sweep) -> dict[str, Any]:
    """The result file, with all that is needed to read it again."""
    return {
        "benchmark": "preset_sweep",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "transformers": version("transformers"),
        **asdict(sweep),
        "trials": [asdict(trial) for trial in trials],
    }


def _known(path: Path | None) -> list[Trial]:
    """What a result file holds of an earlier search."""
    found = read_json(path) if path is not None else None
    return [Trial(**trial) for trial in (found or {}).get("trials", [])]


def main() -> None:
    """Search every method; write as results come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=SEARCHED)
    parser.add_argument("--sample", action="append", help="bundled samples; pirate and support")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    sweep = Sweep(options.sample or ["pirate", "support"], options.seeds, options.steps)
    names: list[str] = options.only or list(SEARCHED)
    trials = [one for one in _known(options.save) if one.method not in names]
    started = time.monotonic()
    for name in names:
        for trial in sweep.search(name, SEARCHED[name]):
            trials.append(trial)
            minutes = (time.monotonic() - started) / 60
            print(
                f"{minutes:5.1f} min  {name}: rate {trial.learning_rate:g} {trial.schedule} "
                f"clip {trial.max_grad_norm}: {trial.mean}"
            )
            if options.save:
                in_order = sorted(trials, key=lambda one: list(SEARCHED).index(one.method))
                write_json(options.save, document(in_order, sweep))


if __name__ == "__main__":
    main()
