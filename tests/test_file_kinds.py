"""A data file is told by what it holds; what is not read yet is called by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.contract.errors import RequestError
from engine.contract.model_source import resolve_model
from engine.contract.spec import DataSpec
from engine.data.source import dataset_path, read_dataset
from tests.test_formats import CHAT, GOOD, NOT_YET, jsonl, read, sentence


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", b"question,answer\nHi,Ho\n", "a CSV table"),
        ("a.CSV", "é;Ho\n".encode("latin-1"), "a CSV table"),
        ("a.tsv", b"question\tanswer\n", "a TSV table"),
        ("a.txt", b"[Once] upon a time\n", "plain text"),
        ("a.md", b"# Notes\n", "Markdown text"),
        ("a.xlsx", b"PK\x03\x04\xff", "an Excel workbook"),
        ("a.parquet", b"\xff damaged", "a Parquet file"),
        ("a.arrow", b"\xff\xff\xff\xff\x00", "an Arrow file"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_kind(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    assert sentence(tmp_path / name, content) == f"{name} is {kind}, {NOT_YET}"


def test_json_is_read_whatever_the_file_is_called(tmp_path: Path) -> None:
    for name in ("a.csv", "a.txt", "a.md"):
        for content in (jsonl(GOOD), b"\xef\xbb\xbf\n " + json.dumps([GOOD]).encode()):
            assert read(tmp_path / name, content).chats == (CHAT,)
        assert sentence(tmp_path / name, b" \n") == f"{name} is empty. Choose another file."


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_path_may_stand_in_quotes_as_windows_copies_it(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "my rows.jsonl"
    path.write_bytes(jsonl(GOOD))
    quoted = f"{quote}{path}{quote}"
    assert read_dataset(DataSpec(source=quoted)).chats == (CHAT,)
    assert dataset_path(quoted) == path.resolve()
    assert resolve_model(f"{quote}{path.parent}{quote}").folder == path.parent.resolve()
    for odd in (quote, quote * 2, f"{quote}{path}"):
        with pytest.raises(RequestError):
            dataset_path(odd)
