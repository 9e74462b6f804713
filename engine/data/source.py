"""Reading a dataset file: JSON or JSON Lines, told apart by content. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from engine.contract.bundled import sample_datasets, sample_path
from engine.contract.errors import RequestError
from engine.contract.paths import is_file, is_folder, typed_path
from engine.contract.spec import DataSpec
from engine.data.formats import Chat, Format, RowError, detect_format, to_chat

FIELD = "data.source"
MAX_BYTES = 2 << 30
_SHOWN_REASONS = 3
# What people have besides JSON: told by the first bytes, or by the name.
_MAGIC = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
}
_SUFFIXES = {
    ".parquet": "a Parquet file",
    ".arrow": "an Arrow file",
    ".xlsx": "an Excel workbook",
    ".csv": "a CSV table",
    ".tsv": "a TSV table",
    ".txt": "plain text",
    ".md": "Markdown text",
}
_JSON_START = re.compile(rb"(\xef\xbb\xbf)?\s*(\{|\[\s*[\[{\]]|$)")


@dataclass(frozen=True)
class Dataset:
    """A dataset that was read.

    Attributes:
        chats: Usable rows in the order of the file.
        format: How the rows held their turns.
        refused: Row number (line for JSON Lines), from 1, and reason.
        sha256: Of the file, pinned in the run.
    """

    chats: tuple[Chat, ...]
    format: Format
    refused: tuple[tuple[int, str], ...]
    sha256: str


def dataset_path(source: str) -> Path:
    """The file that `data.source` means.

    Raises:
        RequestError: It is neither a bundled sample nor a file.
    """
    if source in sample_datasets():
        return sample_path(source)
    path = typed_path(source)
    if is_folder(path):
        raise RequestError(FIELD, f"{source} is a folder.", "Name a .json or .jsonl file in it.")
    if not is_file(path):
        known = ", ".join(sample_datasets())
        raise RequestError(
            FIELD,
            f"there is no file {source}.",
            f"Give the path of a .json or .jsonl file, or one of the samples {known}.",
        )
    return path.resolve()


def read_dataset(spec: DataSpec) -> Dataset:
    """Read every usable row.

    Raises:
        RequestError: The file cannot be read, or no row can be learned from; with the reason of
            the commonest refusal.
    """
    path = dataset_path(spec.source)
    data = _read_bytes(path)
    _refuse_other_kinds(data, path)
    rows = _rows(data)
    seen, format = _format_of(spec, rows, path)
    chats: list[Chat] = []
    refused: list[tuple[int, str]] = []
    for number, row in chain(seen, rows):
        if spec.max_rows is not None and len(chats) == spec.max_rows:
            break
        try:
            chats.append(_chat(row, format))
        except RowError as error:
            refused.append((number, str(error)))
    if not chats:
        raise RequestError(
            FIELD,
            f"{path.name} has no row to learn from: {describe_refusals(refused)}.",
            "Each row needs a question and a reply.",
        )
    return Dataset(tuple(chats), format, tuple(refused), hashlib.sha256(data).hexdigest())


def describe_refusals(refused: list[tuple[int, str]] | tuple[tuple[int, str], ...]) -> str:
    """The commonest reasons, with how often and where first."""
    first_row = {reason: number for number, reason in reversed(refused)}
    counts = Counter(reason for _, reason in refused)
    return "; ".join(
        f"{reason} ({count} rows, the first is row {first_row[reason]})"
        for reason, count in counts.most_common(_SHOWN_REASONS)
    )


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RequestError(FIELD, f"{path.name} is larger than 2 GiB.", "Split it.")
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise RequestError(FIELD, f"{path.name}: {reason}.", "Check the file.") from error


def _refuse_other_kinds(data: bytes, path: Path) -> None:
    """A file that is not read yet is called by its kind, whatever else is wrong with it."""
    kinds = [kind for magic, kind in _MAGIC.items() if data.startswith(magic)]
    named = _SUFFIXES.get(path.suffix.lower())
    if kinds or (named and not _JSON_START.match(data)):
        raise RequestError(
            FIELD,
            f"{path.name} is {named or kinds[0]}, which is not read yet.",
            "Save the conversations as .jsonl, one JSON object per line.",
        )


def _rows(data: bytes) -> Iterator[tuple[int, Any]]:
    """Row number and parsed value, or why it has none: of one JSON document, or of each line."""
    text = _decode(data)
    if text.lstrip()[:1] == "[":
        document = _whole_document(text)
        if isinstance(document, list):
            yield from enumerate(document, start=1)
            return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _line(line)


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(
            FIELD, f"line {line} is not UTF-8 text.", "Save the file as UTF-8."
        ) from error


def _whole_document(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError(
            FIELD, f"line {error.lineno} is no valid JSON: {error.msg}.", "Mend that line."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RequestError(
            FIELD, "the JSON holds a number too long or is nested too deep.", "Mend the file."
        ) from error


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return RowError(f"it is no valid JSON: {error.msg}")
    except (ValueError, RecursionError):
        return RowError("it is no valid JSON: a number too long, or nested too deep")


def _chat(row: Any, format: Format) -> Chat:
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, dict):
        raise RowError("it is no JSON object")
    return to_chat(row, format)


def _format_of(
    spec: DataSpec, rows: Iterator[tuple[int, Any]], path: Path
) -> tuple[list[tuple[int, Any]], Format]:
    """The rows that had to be looked at, and the format: of the first row that shows one."""
    seen: list[tuple[int, Any]] = []
    for number, row in rows:
        seen.append((number, row))
        found = detect_format(row) if isinstance(row, dict) else None
        if spec.format != "auto":
            return seen, spec.format
        if found is not None:
            return seen, found
    if not seen:
        raise RequestError(FIELD, f"{path.name} is empty.", "Choose another file.")
    raise RequestError(
        FIELD,
        f"the rows of {path.name} are in no format known here ({_about(*seen[0])}).",
        "Use messages with role and content, conversations with from and value, or "
        "instruction and output.",
    )


def _about(number: int, row: Any) -> str:
    if isinstance(row, dict):
        return f"row {number} holds: {', '.join(map(str, row))[:200]}"
    return f"row {number}: {row if isinstance(row, RowError) else 'it is no JSON object'}"
