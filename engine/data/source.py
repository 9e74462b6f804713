"""A dataset as items, one row after another: which file it is, and what became of its rows."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from engine.contract.bundled import sample_datasets, sample_path
from engine.contract.errors import RequestError
from engine.contract.paths import is_file, is_folder, typed_path
from engine.contract.spec import DataSpec
from engine.data.dataset import Dataset, Refusals, describe_refusals, kinds_sentence
from engine.data.formats import NoFormat, RowReader
from engine.data.items import Item, Passage
from engine.data.mendable import MendableRow
from engine.data.preference import PreferenceRow
from engine.data.records import RecordFile, RowError, open_records
from engine.data.row_notes import sentences

FIELD = "data.source"
NUM_PROMPTS = 3
PASSAGE_CHARACTERS = 2000
_KINDS = "a .jsonl, .json, .csv, .parquet or .txt file"
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
# What a file is called; a dataset on the hub is not.
_FILE_NAME = re.compile(
    r"\.(jsonl?|ndjson|csv|tsv|txt|md|parquet|arrow|feather|gz|bz2|xz|zip|xlsx?)$", re.IGNORECASE
)


class DatasetReader:
    """The usable rows of a dataset, streamed; what became of the others is counted.

    Each iteration reads from the beginning and yields row number and item. `summary` tells of the
    last one, once that is exhausted.

    Args:
        spec: Which data, and what its columns are.
        passage_characters: How much of a plain text is one row.

    Raises:
        RequestError: There is no such data, or it is of a kind that cannot be read.
    """

    def __init__(self, spec: DataSpec, passage_characters: int = PASSAGE_CHARACTERS) -> None:
        self._spec = spec
        self._name, self._records = _open(spec, passage_characters)
        self._begin()

    def __iter__(self) -> Iterator[tuple[int, Item]]:
        """Row number and item of each usable row.

        Raises:
            RequestError: The file turns out to be damaged.
        """
        self._begin()
        rows, refusals, most = self._rows, self._refusals, self._spec.max_rows
        for number, value in self._records:
            self._num_rows += 1
            try:
                if isinstance(value, RowError):
                    raise value
                item = rows.read(value)
            except RowError as error:
                refusals.add(number, str(error), value)
                self._num_unread += error is value
                self._kinds[type(error)] += 1
                if isinstance(error, MendableRow):
                    self._advice[error.advice] += 1
                continue
            self._usable += 1
            if len(self._prompts) < NUM_PROMPTS:
                self._note_prompt(item)
            yield number, item
            if self._usable == most:
                return

    def summary(self) -> Dataset:
        """What the last iteration found.

        Raises:
            RequestError: No row can be used, or a column that was set by hand is not there.
        """
        rows = self._rows
        if rows.absent:
            raise _absent_column(sorted(rows.absent), rows, self._name)
        if not self._usable:
            raise self._nothing()
        return self.found()

    def found(self) -> Dataset:
        """What the last iteration found, whether or not anything of it can be used."""
        rows, refusals = self._rows, self._refusals
        formats = rows.formats
        return Dataset(
            container=self._records.container,
            encoding=self._records.encoding,
            unit=self._records.unit,
            format=next(iter(formats)) if formats else "auto",
            formats=formats,
            columns=rows.columns,
            available_columns=tuple(rows.names),
            rows=self._num_rows,
            usable=self._usable,
            refused=tuple(refusals.first),
            refused_count=refusals.count,
            reasons=refusals.reasons,
            notes=(*self._records.notes, *kinds_sentence(formats), *sentences(rows.notes)),
            sha256=dataset_sha256(self._spec),
            prompts=tuple(self._prompts),
        )

    def _begin(self) -> None:
        self._rows = RowReader(
            self._spec.format,
            self._spec.columns,
            is_running_text=self._records.is_running_text,
        )
        self._refusals = Refusals()
        self._kinds: Counter[type[RowError]] = Counter()
        self._advice: Counter[str] = Counter()
        self._prompts: dict[str, None] = {}
        self._num_rows = self._num_unread = self._usable = 0

    def _note_prompt(self, item: Item) -> None:
        if not isinstance(item, Passage):
            question = next(turn.content for turn in item if turn.role == "user")
            self._prompts.setdefault(question)

    def _nothing(self) -> RequestError:
        """Why no row can be used."""
        name, refusals = self._name, self._refusals
        if not refusals.count:
            return RequestError(FIELD, f"{name} is empty.", "Choose another file.")
        if self._kinds[PreferenceRow]:
            return RequestError(
                "data.format",
                f"the rows of {name} are preference pairs, with a chosen and a rejected reply.",
                "Set data.format to preference, which learns the chosen replies only.",
            )
        reasons = describe_refusals(refusals.reasons, self._records.unit)
        if 2 * self._kinds[NoFormat] > refusals.count:
            held = f" They hold: {_listed(self._rows)}." if self._rows.names else ""
            return RequestError(
                FIELD,
                f"the rows of {name} are in no format known here: {reasons}.{held}",
                "Say which column is what in data.columns, such as prompt: Question and reply: "
                "Answer, or set data.format to text to learn every word.",
            )
        return RequestError(FIELD, f"{name} has no row to learn from: {reasons}.", self._way_out())

    def _way_out(self) -> str:
        """What to do about the commonest of the reasons."""
        if 2 * self._num_unread > self._refusals.count:
            return "Check how the file was saved, or save it anew."
        for advice, count in self._advice.most_common(1):
            if 2 * count >= self._refusals.count:
                return advice
        return "Each row needs a question and a reply."


def read_dataset(spec: DataSpec) -> Dataset:
    """Read every row once and tell what was found.

    Raises:
        RequestError: The file cannot be read, or no row can be learned from; with the reason of
            the commonest refusal.
    """
    reader = DatasetReader(spec)
    for _ in reader:
        pass
    return reader.summary()


def read_items(spec: DataSpec) -> tuple[Item, ...]:
    """All items at once: for small data.

    Raises:
        RequestError: The file cannot be read.
    """
    return tuple(item for _, item in DatasetReader(spec))


def dataset_path(source: str) -> Path:
    """The file that `data.source` means.

    Raises:
        RequestError: It is neither a bundled sample nor a file.
    """
    if source in sample_datasets():
        return sample_path(source)
    path = typed_path(source)
    if is_folder(path):
        raise RequestError(FIELD, f"{source} is a folder.", f"Name {_KINDS} in it.")
    if not is_file(path):
        if _exists(path):
            raise RequestError(FIELD, f"{source} is no ordinary file.", f"Name {_KINDS}.")
        known = ", ".join(sample_datasets())
        raise RequestError(
            FIELD,
            f"there is no file {source}.",
            f"Give the path of {_KINDS}, the id of a hub dataset as owner/name, or one of the "
            f"samples {known}.",
        )
    return path.resolve()


def is_hub_dataset(source: str) -> bool:
    """Whether `data.source` means a dataset on the hub: `owner/name`, and nothing here."""
    path = typed_path(source)
    return (
        bool(_HUB_ID.fullmatch(source))
        and not _FILE_NAME.search(source)
        and source not in sample_datasets()
        and not (_exists(path) or is_folder(path.parent))
    )


def dataset_sha256(spec: DataSpec) -> str | None:
    """Of the file, read in pieces; None for a hub dataset, which its revision pins.

    Raises:
        RequestError: There is no such file, or it cannot be read.
    """
    if is_hub_dataset(spec.source):
        return None
    path = dataset_path(spec.source)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise RequestError(FIELD, f"{path.name}: {reason}.", "Check the file.") from error
    return digest.hexdigest()


def refuse_other_data(spec: DataSpec) -> str | None:
    """The hash of the file, which must be the one that the spec was completed with.

    Raises:
        RequestError: The file cannot be read, or is another by now.
    """
    sha256 = dataset_sha256(spec)
    if spec.sha256 not in (None, sha256):
        raise RequestError(
            FIELD,
            f"{spec.source} has changed since this run was made.",
            "Bring the old file back, or start a new run.",
        )
    return sha256


def _open(spec: DataSpec, passage_characters: int) -> tuple[str, RecordFile]:
    if is_hub_dataset(spec.source):
        from engine.data.hub_dataset import open_hub_records

        if spec.encoding is not None:
            raise RequestError(
                "data.encoding", f"{spec.source} is a dataset of the hub, no file.", "Leave it out."
            )
        return spec.source, open_hub_records(spec.source, spec.config, spec.split, spec.revision)
    path = dataset_path(spec.source)
    return path.name, open_records(path, passage_characters, spec.encoding)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _absent_column(absent: list[str], rows: RowReader, name: str) -> RequestError:
    missing = ", ".join(absent)
    return RequestError(
        "data.columns",
        f"{name} has no column {missing[:200]}; its columns are {_listed(rows) or 'none'}.",
        "Name one of these, as it is written there.",
    )


def _listed(rows: RowReader) -> str:
    return ", ".join(map(str, rows.names))[:300]
