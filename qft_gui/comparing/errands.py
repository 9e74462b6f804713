"""What takes a while and belongs to a run: judging it, exporting it, looking into its data.

Each is a command of the engine in a process of its own that ends with the window.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from engine.contract.drafts import remove_leftovers
from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.paths import is_folder, typed_path
from engine.contract.run_dir import RunDir
from qft_gui.data_wish import DataWish
from qft_gui.trials import TetheredEngine

Kind = Literal["eval", "export", "check"]
FORMS = {"hf": "hf", "adapter": "adapter", "q8_0": "gguf", "f16": "gguf"}
ADAPTER_KINDS = ("lora", "qlora")
MOST_CHARACTERS = 4096
MOST_EXAMPLES = 2000
_AT_WORK: dict[Kind, str] = {
    "eval": "is being judged",
    "export": "is being exported",
    "check": "has its data looked into",
}


@dataclass
class Errand:
    """One command, on its way or over. Of a cancelled one nothing is kept.

    Attributes:
        subject: A run, or `RUN@STEP` for one of its checkpoints.
        out: The folder that an export becomes.
    """

    subject: str
    arguments: tuple[str, ...]
    answer: dict[str, Any] | None = None
    out: Path | None = None
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
        is_for_others: Whether other computers can reach the page: then nothing is written to a
            folder that was typed.
    """

    def __init__(self, runs: Path, *, is_for_others: bool = False) -> None:
        self._runs = runs
        self._is_for_others = is_for_others
        self._engines: dict[Kind, TetheredEngine] = {
            kind: TetheredEngine() for kind in get_args(Kind)
        }
        self._errands: dict[tuple[Kind, str], Errand] = {}
        self._lock = threading.Lock()

    @property
    def exports(self) -> Path:
        """Where exports go if nobody says otherwise: beside the runs."""
        return self._runs.parent / "exports"

    @property
    def may_type(self) -> bool:
        """Whether a folder may be typed."""
        return not self._is_for_others

    def of(self, kind: Kind, subject: str) -> Errand | None:
        """What was begun for a run or a checkpoint."""
        found = self._errands.get((kind, subject))
        return None if found is None or found.is_cancelled else found

    def judge(self, subject: str, data: str) -> None:
        """Measure a run or a checkpoint on data, or on what it held out where none is named.

        Raises:
            RequestError: Something is being measured.
        """
        chosen = data.strip()[:MOST_CHARACTERS]
        if chosen.startswith("-"):
            raise RequestError("data", f"{chosen[:80]} is no dataset.", "Name a file or a sample.")
        self._begin("eval", subject, [subject, *([chosen] if chosen else [])])

    def export(self, subject: str, form: str, folder: str) -> None:
        """Write the result of a run, or one of its checkpoints, into a new folder.

        Raises:
            RequestError: There is no such form, the folder may not be chosen, or something is being
                exported.
        """
        if form not in self.forms_of(subject):
            raise RequestError("form", "There is no such form of it.", "Choose one of the list.")
        kind = ["--type", form] if FORMS[form] == "gguf" else []
        out = self._chosen_folder(subject, form, folder.strip())
        # With `=` no folder's name is taken for an option.
        arguments = [subject, "--to", FORMS[form], *kind, f"--out={out}"]
        self._begin("export", subject, arguments, out)

    def _chosen_folder(self, subject: str, form: str, typed: str) -> Path:
        if typed and self._is_for_others:
            raise RequestError(
                "folder",
                "Other computers can reach this page, so it writes to no folder that is typed.",
                f"Leave it empty: the export goes into {self.exports}.",
            )
        path = typed_path(typed[:MOST_CHARACTERS])
        if typed and path.is_absolute():
            return path
        try:
            self.exports.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RequestError(
                "folder",
                f"{self.exports} could not be made: {reason}.",
                "Make that folder by hand, so that it can be written to.",
            ) from error
        # A name alone is one beside the other exports, wherever the app was started.
        out = self.exports / path if typed else self.free_folder(subject, form)
        return out.absolute()

    def forms_of(self, subject: str) -> tuple[str, ...]:
        """What a run, or one of its checkpoints, can be exported as.

        Of a run that cannot be read the engine says what is wrong.
        """
        run = self._runs / subject
        folder = run if is_folder(run) else self._runs / subject.rpartition("@")[0]
        try:
            has_adapter = RunDir(folder).spec().method.kind in ADAPTER_KINDS
        except (RequestError, RequestErrors):
            has_adapter = True
        return tuple(form for form in FORMS if has_adapter or form != "adapter")

    def usual(self, subject: str) -> dict[str, str]:
        """Where each form that there is goes if nobody says otherwise; nothing of no run."""
        if not subject:
            return {}
        return {form: str(self.free_folder(subject, form)) for form in self.forms_of(subject)}

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

    def free_folder(self, subject: str, form: str) -> Path:
        """Where an export goes if nobody says otherwise: over nothing that is there."""
        kind = FORMS.get(form, form)
        name = f"{subject.replace('@', '-step-')}-{kind}" + (f"-{form}" if kind == "gguf" else "")
        path, number = self.exports / name, 2
        while path.exists():
            path, number = self.exports / f"{name}-{number}", number + 1
        return path

    def cancel(self, kind: Kind, subject: str) -> None:
        """End a command; nothing is kept of it."""
        found = self.of(kind, subject)
        if found is not None and not found.is_over:
            found.is_cancelled = True
            self._engines[kind].end()

    def _begin(
        self, kind: Kind, subject: str, arguments: list[str], out: Path | None = None
    ) -> None:
        with self._lock:
            at_work = next(
                (one for (k, _), one in self._errands.items() if k == kind and not one.is_over),
                None,
            )
            if at_work is not None:
                raise RequestError(
                    kind, f"{at_work.subject} {_AT_WORK[kind]}.", "Wait for that, or cancel it."
                )
            where = [] if kind == "check" else ["--runs", str(self._runs)]
            errand = Errand(subject, (kind, *arguments, *where), out=out)
            self._errands[kind, subject] = errand
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
        finally:
            if errand.out is not None:
                remove_leftovers(errand.out.parent)


def held_out_questions(errand: Errand | None) -> list[str]:
    """What users say first in the held-out part of a run's data, each once."""
    examples = errand.answer.get("examples", []) if errand and errand.answer else []
    asked = [one.get("question") for one in examples if one.get("held_out")]
    # A list holds one prompt on each line.
    return list(dict.fromkeys(" ".join(text.split()) for text in asked if text and text.strip()))
