"""What a run's folder tells of it, for whoever gets its result."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.contract.bundled import sample_datasets
from engine.contract.events import EventReader
from engine.contract.history import RunHistory
from engine.contract.model_source import resolve_model
from engine.contract.paths import is_file
from engine.contract.run_dir import RunDir
from engine.contract.spec import RunSpec

CARD = "README.md"
_LICENCE = re.compile(r"^license:\s*([\w.+-]{1,60})\s*$", re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True)
class RunFacts:
    """Of one run. None is what its folder does not tell.

    Attributes:
        name: The run folder's, with the step of a checkpoint.
        steps: Updates that were done.
        num_rows: Rows of data that were used, held-out ones among them.
        loss_before: Nats per token on held-out rows before the first step.
        loss_after: The same after step `eval_step`.
        train_loss: Nats per token of the last step.
        peak_bytes: The most that the first steps needed.
        hardware: What it was trained on.
        base: The model that it began with, by its name and never by a path.
        licence: Of the base, as its model card names it.
        versions: Of the libraries.
    """

    name: str
    spec: RunSpec
    steps: int
    num_rows: int | None
    loss_before: float | None
    loss_after: float | None
    eval_step: int | None
    train_loss: float | None
    peak_bytes: int | None
    hardware: str | None
    base: str
    licence: str | None
    versions: dict[str, str]

    @property
    def data(self) -> str:
        """The data's name: of a file without its folder."""
        source = self.spec.data.source
        looks_like_hub = source.count("/") == 1 and not source.startswith((".", "/", "~"))
        is_local = is_file(Path(source)) or "\\" in source
        return source if looks_like_hub and not is_local else re.split(r"[/\\]", source)[-1]


def facts_of(run: RunDir, base_folder: Path | None = None, step: int | None = None) -> RunFacts:
    """Read what a run's folder tells; it may be training still.

    Args:
        run: With a spec.
        base_folder: Of the model that it began with, where that is known.
        step: Of a checkpoint that the facts are about; None for the last step.

    Raises:
        RequestError: The spec cannot be read.
    """
    spec = run.spec()
    history, events = RunHistory(), EventReader(run.events_path).read()
    history.add(events)
    rows = [event["rows"] for event in events if event.get("rows") is not None]
    steps = history.last_step if step is None else step
    evals = {at: event for at, event in history.evals.items() if at <= steps}
    last_eval = max(evals, default=0)
    reference = resolve_model(spec.model.source)
    return RunFacts(
        name=run.name if step is None else f"{run.name}-step-{step}",
        spec=spec,
        steps=steps,
        num_rows=rows[-1] if rows else _known_rows(spec),
        loss_before=_loss(evals.get(0)),
        loss_after=_loss(evals.get(last_eval)) if last_eval else None,
        eval_step=last_eval or None,
        train_loss=_loss(history.steps.get(steps)),
        peak_bytes=history.measured["peak_bytes"] if history.measured else None,
        hardware=(history.forecast or {}).get("device"),
        base=reference.hub_id or reference.name,
        licence=_licence(base_folder or reference.folder) or _licence(run.export),
        versions=dict((run.owner or {}).get("versions", {})),
    )


def _known_rows(spec: RunSpec) -> int | None:
    sample = sample_datasets().get(spec.data.source)
    return min(sample.rows, spec.data.max_rows or sample.rows) if sample else None


def _loss(event: dict[str, Any] | None) -> float | None:
    value = (event or {}).get("loss_nats")
    return float(value) if isinstance(value, int | float) else None


def _licence(folder: Path | None) -> str | None:
    """What the card in a folder says."""
    if folder is None or not is_file(folder / CARD):
        return None
    text = (folder / CARD).read_text(encoding="utf-8", errors="replace")[:20_000]
    front = _FRONT_MATTER.match(text.replace("\r\n", "\n"))
    found = _LICENCE.search(front.group(1)) if front else None
    return found.group(1) if found else None
