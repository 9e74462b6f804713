"""Runs that end with a result, quickly: a few steps, then the export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.contract.events import EventWriter
from engine.contract.run_dir import RunDir, create_run
from engine.export import export_model
from engine.preparation import Prepared, prepare
from engine.train import Trainer
from tests.tiny import tiny_spec


def exported_run(
    runs: Path,
    name: str,
    model: Path,
    data: Path,
    method: str | Mapping[str, Any],
    steps: int = 2,
    learning_rate: float = 1e-2,
) -> tuple[RunDir, Prepared]:
    """A run folder with a result, and the model that was trained as it is in memory."""
    run = create_run(runs, tiny_spec(model, data, method, steps=steps), name)
    with EventWriter(run.events_path, attempt=1) as events:
        one = prepare(run, events)
    for step in range(1, steps + 1):
        one.method.step(one.batches(step)[:1], learning_rate, step)
    export_model(run, one.loaded, one.method)
    return run, one


def trained_run(runs: Path, name: str, model: Path, data: Path) -> tuple[RunDir, Trainer]:
    """A run by the loop itself, with losses and measured memory in its events."""
    run = create_run(runs, tiny_spec(model, data, "full", steps=3, eval_every=2), name)
    with EventWriter(run.events_path, attempt=1) as events:
        trainer = Trainer(run, prepare(run, events), events, 1, lambda: False)
        trainer.train()
        trainer.export()
    return run, trainer
