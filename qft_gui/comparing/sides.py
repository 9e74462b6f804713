"""Who may stand on a side of a comparison, and what such a choice means to the engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.contract.bundled import catalogue
from engine.contract.errors import RequestError
from engine.contract.model_source import resolve_model
from engine.contract.paths import typed_path
from engine.contract.run_dir import RunDir
from engine.contract.spec import RunSpec
from qft_gui.answers import Side
from qft_gui.chat_room import Models
from qft_gui.comparing.made_of import MadeOf, made_of_model, made_of_run
from qft_gui.comparing.pair import BASE, Pair
from qft_gui.service import Service
from qft_gui.snapshots import Snapshot

STARTER = "starter"
MOST_CHARACTERS = 4096
_STEP = re.compile(r"step-(\d{6,})")
_AT_STEP = re.compile(r"(.+)@(\d{1,9})")


@dataclass(frozen=True)
class Choice:
    """One entry of the list that a side is chosen from."""

    value: str
    label: str
    group: str


class Sides:
    """What a person may choose, from the run folders as they are now.

    Args:
        service: The runs.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def choices(self, shown: str | None) -> list[Choice]:
        """All that can answer, the shown run first.

        Args:
            shown: The run that the page is about.
        """
        found: list[Choice] = []
        snapshots = self._service.snapshots()
        snapshots.sort(key=lambda one: one.name != shown)
        for one in snapshots:
            found += self._of_run(one, "This run" if one.name == shown else one.name)
        found.append(Choice(STARTER, "Starter, the bundled model", "Models"))
        found += [Choice(name, entry.title, "Models") for name, entry in catalogue().items()]
        return found

    def _of_run(self, one: Snapshot, group: str) -> Iterator[Choice]:
        if one.spec is None:
            return
        if one.has_export:
            yield Choice(one.name, f"Result of {one.name}", group)
        yield Choice(f"{BASE}{one.name}", f"Original of {one.name}: {_base_name(one.spec)}", group)
        for step in sorted(_steps(self._service.runs / one.name), reverse=True):
            yield Choice(f"{one.name}@{step}", f"Step {step:,} of {one.name}", group)

    def usual(self, run: str | None) -> Pair:
        """A run's original beside its result; without a result nobody."""
        try:
            snapshot = self._service.snapshot(run)
        except (RequestError, FileNotFoundError):
            return Pair()
        return Pair(f"{BASE}{run}", str(run)) if snapshot.has_export else Pair()

    def targets(self, pair: Pair) -> Models:
        """Both as the chat worker takes them.

        `a` is None for the model that `b` was made from, `b` is None where `a` is asked alone.

        Raises:
            RequestError: There is no such run, or nobody was chosen.
        """
        if not pair.right:
            raise RequestError("b", "Nobody was chosen to answer.", "Choose a model on the right.")
        right = self._target(pair.right)
        if not pair.left:
            return right, None
        if pair.left.startswith(BASE) and self.run_of(pair.right) == pair.left[len(BASE) :]:
            return None, right
        return self._target(pair.left), right

    def _target(self, value: str) -> str:
        if value.startswith(BASE):
            run = value[len(BASE) :]
            self._spec(run)
            return f"{run}@base"
        return value[:MOST_CHARACTERS]

    def names(self, pair: Pair) -> dict[Side, str]:
        """What people call those who answer, by side."""
        return {side: self.name(value) for side, value in pair.values.items()}

    def name(self, value: str) -> str:
        """What people call it; the worker and the votes call it so too."""
        try:
            if value.startswith(BASE):
                return _base_name(self._spec(value[len(BASE) :]))
            if self.run_of(value) is not None:
                return value
            return resolve_model(value).name
        except RequestError:
            return value[:80] or "Nobody"

    def run_of(self, value: str) -> str | None:
        """The run whose result or checkpoint this is."""
        if value.startswith(BASE) or not value:
            return None
        named = _AT_STEP.fullmatch(value)
        for name in (value, named.group(1) if named else ""):
            if name in self._service.names():
                return name
        return None

    def ballot_run(self, pair: Pair) -> RunDir | None:
        """The run whose votes these are: that on the right, else that on the left."""
        for value in (pair.right, pair.left):
            name = value[len(BASE) :] if value.startswith(BASE) else self.run_of(value)
            if name in self._service.names():
                return RunDir(self._service.runs / name)
        return None

    def subject(self, pair: Pair) -> str | None:
        """Whom numbers and exports are about: a run's result or checkpoint, the right one first."""
        return next((one for one in (pair.right, pair.left) if self.run_of(one) is not None), None)

    def made_of(self, value: str) -> MadeOf:
        """What answers there, by the files on this computer.

        Raises:
            RequestError: There is nothing of that name.
        """
        if value.startswith(BASE):
            model = self._spec(value[len(BASE) :]).model
            return made_of_model(model.source, model.revision)
        run = self.run_of(value)
        if run is None:
            return made_of_model(value)
        step = int(value.rpartition("@")[2]) if value != run else None
        kept = sorted(_steps(self._service.runs / run))
        if step is not None and step not in kept:
            raise RequestError(
                "model",
                f"{run} has no checkpoint of step {step}: "
                + (f"it has {', '.join(map(str, kept))}." if kept else "it has none."),
            )
        return made_of_run(RunDir(self._service.runs / run), self._spec(run), step)

    def _spec(self, run: str) -> RunSpec:
        spec = self._service.snapshot(run).spec
        if spec is None:
            raise RequestError("run", f"{run} cannot be read.", "Choose another one.")
        return spec


def as_choice(value: object) -> str:
    """A value of the page's, which may be a folder that was typed with quotes or `~`."""
    text = value.strip()[:MOST_CHARACTERS] if isinstance(value, str) else ""
    if text.startswith(("~", '"', "'")):
        return str(typed_path(text.strip("\"'")))
    return text


def _base_name(spec: RunSpec) -> str:
    try:
        return resolve_model(spec.model.source).name
    except RequestError:
        return spec.model.source


def _steps(run: Path) -> list[int]:
    folder = run / "checkpoints"
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return [int(found.group(1)) for found in map(_STEP.fullmatch, names) if found]
