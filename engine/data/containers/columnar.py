"""Records in files of columns, Parquet and Arrow: from the disk, some rows at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as parquet
from pyarrow import ipc

from engine.contract.errors import RequestError
from engine.data.containers.arrow_values import plain_column
from engine.data.containers.kinds import Columnar
from engine.data.containers.record_file import SNIPPET, RowError, mistake

_ROWS_AT_ONCE = 1000
# Of a schema and its names; real ones have some thousand bytes.
_LARGEST_NAMES = 16 << 20
_UNNAMED = re.compile(r"__index_level_\d+__|Unnamed: \d+")


class ColumnarRecords:
    """The rows of a Parquet or Arrow file: a `RecordFile`.

    Raises:
        RequestError: It is damaged.
    """

    def __init__(self, path: Path, kind: Columnar) -> None:
        self._path = path
        self._kind: Columnar = kind
        self._notes: list[str] = []
        with self._told():
            for _ in self._batches(only_schema=True):
                break

    @property
    def container(self) -> str:
        """What the file is, for people."""
        return "Parquet" if self._kind == "Parquet" else "Arrow"

    @property
    def encoding(self) -> str | None:
        """None: the format itself says how text is kept."""
        return None

    @property
    def unit(self) -> Literal["line", "row"]:
        """Rows, from 1."""
        return "row"

    @property
    def is_running_text(self) -> bool:
        """Whether one text was cut into these: never, each is a record of its own."""
        return False

    @property
    def notes(self) -> list[str]:
        """What a person should know."""
        return list(self._notes)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Number and row.

        Raises:
            RequestError: The file turns out to be damaged.
        """
        with self._told():
            number = 1
            for batch in self._batches():
                for row in batch_rows(batch):
                    yield number, row
                    number += 1

    def _batches(self, *, only_schema: bool = False) -> Iterator[pa.RecordBatch]:
        if self._kind == "Parquet":
            with parquet.ParquetFile(
                self._path,
                memory_map=True,
                pre_buffer=False,
                thrift_string_size_limit=_LARGEST_NAMES,
                thrift_container_size_limit=_LARGEST_NAMES // 16,
            ) as file:
                columns = self._columns(file.schema_arrow)
                if not only_schema:
                    yield from file.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False)
            return
        with pa.memory_map(str(self._path)) as source:
            if self._kind == "Arrow":
                with ipc.open_file(source) as file:
                    columns = self._columns(file.schema)
                    numbers = () if only_schema else range(file.num_record_batches)
                    for number in numbers:
                        yield from _slices(file.get_batch(number), columns)
            else:
                with ipc.open_stream(source) as stream:
                    columns = self._columns(stream.schema)
                    for batch in () if only_schema else stream:
                        yield from _slices(batch, columns)

    def _columns(self, schema: pa.Schema) -> list[str]:
        """The columns that are rows' own: each name once, no index of pandas."""
        index = pandas_index(schema)
        names = dict.fromkeys(name for name in schema.names if name not in index)
        self._notes = [
            f'The column "{name[:40]}" stands there more than once: the first is used.'
            for name in names
            if schema.names.count(name) > 1
        ]
        return list(names)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Damage that the library finds becomes a sentence."""
        try:
            yield
        except RequestError:
            raise
        except (pa.ArrowException, OSError, MemoryError, ValueError, LookupError) as error:
            name, kind = self._path.name, self.container
            if not self._path.exists():
                raise mistake(f"{name} is not there any more.", "Check the file.") from error
            raise mistake(
                f"{name} is a damaged {kind} file, or was cut off.", "Get it anew."
            ) from error


def pandas_index(schema: pa.Schema) -> frozenset[str]:
    """Names of the columns that pandas keeps its row numbers in, which are no data."""
    found = {name for name in schema.names if _UNNAMED.fullmatch(name)}
    try:
        told = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    except (ValueError, RecursionError):
        return frozenset(found)
    named = told.get("index_columns") if isinstance(told, dict) else None
    for name in named if isinstance(named, list) else []:
        if isinstance(name, str) and name in schema.names:
            kind = schema.field(schema.names.index(name)).type
            # An index that someone filled with words may well be the question.
            found.update({name} if pa.types.is_integer(kind) else ())
    return frozenset(found)


def batch_rows(batch: pa.RecordBatch) -> Iterator[Any]:
    """Each row as a dict, or a `RowError` if one of its values cannot be learned from."""
    names = batch.schema.names
    columns = [plain_column(column) for column in batch.columns]
    has_faults = any(isinstance(value, RowError) for column in columns for value in column)
    for values in zip(*columns, strict=True):
        if has_faults:
            fault = next((value for value in values if isinstance(value, RowError)), None)
            if fault is not None:
                yield RowError(str(fault), _shown(names, values))
                continue
        yield dict(zip(names, values, strict=True))


def _shown(names: list[str], values: tuple[Any, ...]) -> str:
    """The cells of a row that are plain text or numbers, each with its beginning."""
    cells = zip(names, values, strict=True)
    plain = [(name, value) for name, value in cells if isinstance(value, str | int | float)]
    return ", ".join(f"{name[:40]}: {str(value)[:SNIPPET]}" for name, value in plain[:10])


def _slices(batch: pa.RecordBatch, columns: list[str]) -> Iterator[pa.RecordBatch]:
    # Nothing else looks whether lengths and places in a file are right before they are used.
    chosen = batch.select([batch.schema.names.index(name) for name in columns])
    chosen.validate(full=True)
    for start in range(0, chosen.num_rows, _ROWS_AT_ONCE):
        yield chosen.slice(start, _ROWS_AT_ONCE)
