"""What takes a while and belongs to a run: judging it, exporting it, looking into its data.

Each is a command of the engine in a process of its own that ends with the window.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.paths import typed_path
from qft_gui.data_wish import DataWish
from qft_gui.trials import TetheredEngine

Kind = Literal["eval", "export", "check"]
FORMS = {"hf": "hf", "adapter": "adapter", "q8_0": "gguf", "f16": "gguf"}
MOST_CHARACTERS = 4096
MOST_EXAMPLES = 2000
_AT_WORK: dict[Kind, str] = {
    "eval": "is being judged",
    "export": "is being exported",
    "check": "has its data looked into",
}


@dataclass
class Errand:
    """One command, on its way or over. Of a cancelled one nothing is kept."""

    run: str
    arguments: tuple[str, ...]
    answer: dict[str, Any] | None = None
    error: RequestError | None = None
    is_cancelled: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.is_cancelled or self.answer is not None or self.error is not None

    @property
    def seconds(self) -> int:
        """Since it was begun."""
        return int(time.monotonic() - self.started)


class Errands:
    """One command of each kind at a time; what came of the last one for each run is remembered.

    Args:
        runs: Folder of all runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._engines: dict[Kind, TetheredEngine] = {
            kind: TetheredEngine() for kind in get_args(Kind)
        }
        self._errands: dict[tuple[Kind, str], Errand] = {}
        self._lock = threading.Lock()

    def of(self, kind: Kind, run: str) -> Errand | None:
        """What was begun for a run."""
        found = self._errands.get((kind, run))
        return None if found is None or found.is_cancelled else found

    def judge(self, run: str, data: str) -> None:
        """Measure a run on data, or on what it held out where none is named.

        Raises:
            RequestError: Something is being measured.
        """
        chosen = data.strip()[:MOST_CHARACTERS]
        if chosen.startswith("-"):
            raise RequestError("data", f"{chosen[:80]} is no dataset.", "Name a file or a sample.")
        self._begin("eval", run, [run, *([chosen] if chosen else [])])

    def export(self, run: str, form: str, folder: str) -> None:
        """Write a run's result into a new folder.

        Raises:
            RequestError: There is no such form, or something is being exported.
        """
        if form not in FORMS:
            raise RequestError("form", "There is no such form.", "Choose one of the list.")
        out = typed_path(folder.strip()[:MOST_CHARACTERS]) if folder.strip() else None
        if out is None:
            out = self.free_folder(run, form)
            out.parent.mkdir(parents=True, exist_ok=True)
        kind = ["--type", form] if FORMS[form] == "gguf" else []
        # With `=` no folder's name is taken for an option.
        self._begin("export", run, [run, "--to", FORMS[form], *kind, f"--out={out.absolute()}"])

    def look_into_data(self, run: str, document: dict[str, Any]) -> None:
        """Find out what the data's held-out part asks.

        Args:
            run: Whose data.
            document: The run's spec.

        Raises:
            RequestError: Data is being looked into.
        """
        wish = DataWish.of(document)
        # Of an option that is given twice the last one counts.
        self._begin("check", run, [*wish.arguments(1), f"--num-examples={MOST_EXAMPLES}"])

    def free_folder(self, run: str, form: str) -> Path:
        """Where an export goes if nobody says otherwise: beside the runs, over nothing."""
        name = f"{run}-{FORMS.get(form, form)}" + (f"-{form}" if FORMS.get(form) == "gguf" else "")
        folder = self._runs.parent / "exports"
        path, number = folder / name, 2
        while path.exists():
            path, number = folder / f"{name}-{number}", number + 1
        return path

    def cancel(self, kind: Kind, run: str) -> None:
        """End a command; nothing is kept of it."""
        found = self.of(kind, run)
        if found is not None and not found.is_over:
            found.is_cancelled = True
            self._engines[kind].end()

    def _begin(self, kind: Kind, run: str, arguments: list[str]) -> None:
        with self._lock:
            at_work = next(
                (one for (k, _), one in self._errands.items() if k == kind and not one.is_over),
                None,
            )
            if at_work is not None:
                raise RequestError(
                    kind, f"{at_work.run} {_AT_WORK[kind]}.", "Wait for that, or cancel it."
                )
            where = [] if kind == "check" else ["--runs", str(self._runs)]
            errand = Errand(run, (kind, *arguments, *where))
            self._errands[kind, run] = errand
        threading.Thread(target=self._work, args=(kind, errand), name=kind, daemon=True).start()

    def _work(self, kind: Kind, errand: Errand) -> None:
        try:
            found = self._engines[kind].ask(*errand.arguments, unless=lambda: errand.is_cancelled)
            if not errand.is_cancelled:
                errand.answer = found
        except RequestErrors as error:
            errand.error = mistakes(error)[0]
        except OSError as error:
            reason = error.strerror or type(error).__name__
            errand.error = RequestError("engine", f"The engine could not be started: {reason}.")


def held_out_questions(errand: Errand | None) -> list[str]:
    """What users say first in the held-out part of a run's data, each once."""
    examples = errand.answer.get("examples", []) if errand and errand.answer else []
    asked = [one.get("question") for one in examples if one.get("held_out")]
    # A list holds one prompt on each line.
    return list(dict.fromkeys(" ".join(text.split()) for text in asked if text and text.strip()))
