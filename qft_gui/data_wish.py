"""What is asked about a dataset: the data, how it is to be read, and by which model."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.contract.bundled import sample_datasets, sample_path
from engine.contract.paths import is_file, typed_path

EXAMPLES_A_PAGE = 25
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DataKind = Literal["sample", "file", "hub", "missing"]


def data_kind(source: str) -> DataKind:
    """What a source is: bundled, a file on this computer, an id of the hub, or nothing of these."""
    if source in sample_datasets():
        return "sample"
    if is_file(typed_path(source)):
        return "file"
    return "hub" if _HUB_ID.fullmatch(source) else "missing"


@dataclass(frozen=True)
class Reading:
    """How a person wants a dataset to be read. What is not said, the engine finds out.

    Attributes:
        source: The dataset that this was said of; for any other it says nothing.
        columns: Column by role, in the order in which they were named.
        config: Which part of a hub dataset.
        split: Which split of a hub dataset.
        encoding: Of a text file, as Python names it.
    """

    source: str = ""
    format: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    encoding: str = ""
    config: str = ""
    split: str = ""

    def of(self, source: str) -> Reading:
        """What was said of a dataset."""
        return self if self.source == source else Reading(source)

    def with_column(self, role: str, column: str) -> Reading:
        """The same with another column in a role; an empty name leaves it to the engine."""
        columns = {**dict(self.columns), role: column}
        return replace(self, columns=tuple(item for item in columns.items() if item[1]))

    def document(self) -> dict[str, Any]:
        """What the spec holds of it."""
        given = {
            "format": self.format,
            "columns": dict(self.columns),
            "encoding": self.encoding,
            "config": self.config,
            "split": self.split,
        }
        return {name: value for name, value in given.items() if value}


AS_FOUND = Reading()


@dataclass(frozen=True)
class DataWish:
    """One question to `python -m engine check`.

    Attributes:
        options: By the spec's own names; what is left out is the engine's own.
        columns: Column by role, where a person said so.
        may_download: Dataset or tokenizer may come from the hub.
    """

    source: str
    model: str
    options: tuple[tuple[str, str], ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    may_download: bool = False

    @classmethod
    def of(cls, document: dict[str, Any], *, may_download: bool = False) -> DataWish:
        """The question behind a spec as the form holds it; numbers that cannot be are left out."""
        data, train = document["data"], document["train"]
        length, percent = train.get("sequence_length"), data.get("eval_percent")
        names = ("format", "encoding", "config", "split", "train_on")
        options = {name: data.get(name) for name in names}
        if isinstance(length, int) and 8 <= length <= 1 << 20:
            options["sequence_length"] = str(length)
        if isinstance(percent, int | float) and 0 <= percent <= 50:
            options["eval_percent"] = f"{percent:g}"
        return cls(
            source=data["source"],
            model=document["model"]["source"],
            options=tuple((name, value) for name, value in options.items() if value),
            columns=tuple((data.get("columns") or {}).items()),
            may_download=may_download,
        )

    @property
    def limit(self) -> int | None:
        """The longest example, in tokens; None leaves it to the engine."""
        length = dict(self.options).get("sequence_length")
        return int(length) if length else None

    def arguments(self, first_example: int) -> list[str]:
        """The command's arguments, without `--json`."""
        path = typed_path(self.source)
        source = str(path.absolute()) if data_kind(self.source) == "file" else self.source
        words = [source, f"--model={self.model}"]
        words += [f"--{name.replace('_', '-')}={value}" for name, value in self.options]
        words += [f"--first-example={first_example}", f"--num-examples={EXAMPLES_A_PAGE}"]
        if self.columns:
            words += ["--columns", *(f"{role}={column}" for role, column in self.columns)]
        return words

    def state(self) -> str:
        """Changes whenever the answer might."""
        asked = [self.model, self.options, self.columns, self.may_download]
        return json.dumps([*self._marks(), *asked])

    def subject(self) -> str:
        """The same for all questions about the same file, however it is read."""
        return json.dumps(self._marks())

    def size_bytes(self) -> int | None:
        """Of the file; None where there is none."""
        try:
            return self._path().stat().st_size
        except OSError:
            return None

    def _path(self) -> Path:
        is_sample = data_kind(self.source) == "sample"
        return sample_path(self.source) if is_sample else typed_path(self.source)

    def _marks(self) -> list[Any]:
        try:
            state = self._path().stat()
        except OSError:
            return [self.source]
        return [self.source, state.st_size, state.st_mtime_ns]


def page_of(number: int) -> int:
    """The first example of the page that holds an example.

    >>> page_of(1), page_of(25), page_of(26)
    (1, 1, 26)
    """
    return (number - 1) // EXAMPLES_A_PAGE * EXAMPLES_A_PAGE + 1
