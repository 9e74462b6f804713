"""On which examples a model is judged: what a run held out, a sample's held-out part, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.contract.bundled import sample_datasets
from engine.contract.errors import RequestError
from engine.contract.run_dir import RunDir
from engine.contract.spec import DataSpec, RunSpec
from engine.data.source import dataset_path, dataset_sha256, is_hub_dataset
from engine.data.token_store import StoredExamples
from engine.data.tokenized import tokenize_data
from engine.model import LoadedModel

FIELD = "DATA"
SEQUENCE_LENGTH = 1024


@dataclass(frozen=True)
class DataToJudge:
    """Which rows of which data.

    Attributes:
        spec: The data.
        held_out: Whether only its held-out part counts; else every row does.
        sample: Name of the bundled dataset that it is; None for any other.
        length: Longest example, in tokens, if the model reads so many.
        most_rows: Of more the first count; None for all.
    """

    spec: DataSpec
    held_out: bool
    sample: str | None
    length: int
    most_rows: int | None

    def examples(self, loaded: LoadedModel) -> StoredExamples:
        """The examples in the tokens of a model, cut to what it reads.

        Raises:
            RequestError: The data cannot be read, or nothing of it was held out.
        """
        data = tokenize_data(self.spec, loaded.tokenizer, self.length_for(loaded))
        numbers = data.evaluation.numbers if self.held_out else np.arange(len(data.store))
        if not len(numbers):
            raise RequestError(
                FIELD, f"no row of {self.spec.source} was held out.", "Name a file of other rows."
            )
        if self.most_rows is not None:
            rows = data.store.numbers[numbers]
            first = np.unique(rows)[: self.most_rows]
            numbers = numbers[rows <= first[-1]]
        return StoredExamples(data.store, numbers)

    def length_for(self, loaded: LoadedModel) -> int:
        """Longest example for a model, in tokens."""
        return min(self.length, loaded.max_position or self.length)

    def as_json(self) -> dict[str, Any]:
        """What `eval` says of its data."""
        return {"source": self.spec.source, "part": "held out" if self.held_out else "all"}


def choose_data(
    source: str | None, run: RunDir | None, length: int | None, most_rows: int | None
) -> DataToJudge:
    """Find out what a person means by DATA. Reads no rows.

    A run's own data, however it is named, means the part that this run held out: the rest was
    learned. Of a bundled sample the same part counts for every model. Of any other file every row
    does.

    Args:
        source: A sample, a file or a hub id; None for the run's own.
        run: The run that the model comes from.
        length: Longest example in tokens; as in the run's training by default.
        most_rows: Of more the first count.

    Raises:
        RequestError: There is no such data, or none is named where it has to be.
    """
    spec = run.spec() if run else None
    if length is None:
        length = spec.train.sequence_length if spec else SEQUENCE_LENGTH
    if spec is not None and (source is None or _is_own(source, spec)):
        data, held_out = spec.data, True
    elif source is None:
        raise RequestError(FIELD, "it is missing.", "Name a sample, a file or a hub dataset.")
    else:
        data, held_out = _named(source), source in sample_datasets()
    sample = data.source if data.source in sample_datasets() else None
    return DataToJudge(data, held_out, sample, length, most_rows)


def _is_own(source: str, spec: RunSpec) -> bool:
    """Whether a run learned from this data: the same bytes, or the same name on the hub."""
    if source == spec.data.source:
        return True
    if is_hub_dataset(source):
        return False
    return dataset_sha256(DataSpec(source=source)) == spec.data.sha256


def _named(source: str) -> DataSpec:
    if is_hub_dataset(source):
        from engine.data.hub_dataset import pin_dataset_revision

        return DataSpec(source=source, revision=pin_dataset_revision(source, None))
    path = dataset_path(source)
    return DataSpec(source=source if source in sample_datasets() else str(path))
