"""A data file is told by what it holds; what holds no records is called by its kind."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import sqlite3
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.contract.model_source import resolve_model
from engine.contract.spec import DataSpec
from engine.data.containers import byte_source
from engine.data.records import open_records
from engine.data.source import dataset_path, read_dataset

ROW = {"question": "Hi", "answer": "Ho"}
LINES = b'{"question": "Hi", "answer": "Ho"}\n' * 2


def rows(path: Path, content: bytes) -> list[Any]:
    path.write_bytes(content)
    return [value for _, value in open_records(path)]


def refusal(path: Path, content: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        rows(path, content)
    assert caught.value.field == "data.source"
    assert caught.value.advice
    return caught.value.message


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "<x/>")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("rows.jsonl")
        member.size = len(LINES)
        archive.addfile(member, io.BytesIO(LINES))
    return buffer.getvalue()


def database(folder: Path) -> bytes:
    connection = sqlite3.connect(folder / "made.db")
    connection.execute("create table rows (question text)")
    connection.close()
    return (folder / "made.db").read_bytes()


def safetensors() -> bytes:
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    return struct.pack("<Q", len(header)) + header + bytes(8)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.zip", zipped("train.jsonl"), "a zip archive"),
        ("a.json", zipped("xl/workbook.xml"), "an Excel workbook"),
        ("a.txt", zipped("word/document.xml"), "a Word document"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an Excel workbook"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive"),
        ("a.rar", b"Rar!\x1a\x07\x01\x00", "a rar archive"),
        ("a.tar", tarred(), "a tar archive"),
        ("a.tar.gz", gzip.compress(tarred(), mtime=0), "a tar archive"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(LINES, mtime=0), mtime=0), "packed twice"),
        ("a.json", b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page"),
        ("a.jsonl", b"<html>", "a web page"),
        ("a.txt", b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        ("a.doc", b"{\\rtf1 Hi}", "an RTF document"),
        ("a.pkl", pickle.dumps({"question": "Hi"}), "a pickle, which can run code when it is"),
        ("a.csv", pickle.dumps(["Hi"], protocol=2), "a pickle, which can run code when it is"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "only a pointer"),
        ("a.bin", safetensors(), "a model file (safetensors)"),
        ("a.gguf", b"GGUF\x03\x00\x00\x00", "a model file"),
        ("a.png", b"\x89PNG\r\n\x1a\n\x00", "a picture"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd\x04", "packed with zstd"),
        ("a.feather", b"FEA1\x00\x00", "an old Feather file"),
        ("a.yaml", b"- question: Hi\n", "a YAML file"),
        ("a.xml", b'<?xml version="1.0"?><rows/>', "an XML file"),
    ],
)
def test_what_holds_no_records_is_called_by_its_kind(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    assert refusal(tmp_path / name, content).startswith(f"{name} is {kind}")


def test_a_database_is_called_by_its_kind(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.jsonl", database(tmp_path)) == "a.jsonl is an SQLite database."


@pytest.mark.parametrize("name", ["a", "a.csv", "a.txt", "a.md", "a.json", "a.jsonl", "a.parquet"])
def test_json_is_read_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    for content in (LINES, b"\xef\xbb\xbf\n " + json.dumps([ROW, ROW]).encode()):
        assert rows(tmp_path / name, content) == [ROW, ROW]
    for empty in (b"", b" \n", b"\xef\xbb\xbf\r\n\t", b"\x00\x00\n"):
        assert refusal(tmp_path / name, empty) == f"{name} is empty."


@pytest.mark.parametrize(
    ("name", "content", "container"),
    [
        ("a.txt", b"[Once] upon a time\n", "plain text"),
        ("a.md", b"[[link]] to {that}\n", "plain text"),
        ("a.md", b"question,answer\nHi,Ho\n", "CSV"),
        ("a", b"It was a dark and stormy night.\nThe rain fell, in torrents.\n", "plain text"),
        ("a", b"question,answer\nHi,Ho\n", "CSV"),
        ("a.jsonl", b"question\tanswer\nHi\tHo\n", "TSV"),
        ("a.txt", "prompt\tcompletion\r\nHi\tHo\r\n".encode("utf-16"), "TSV"),
        ("a.txt", b"id\ttext\n1\tHi, you\n2\tHo\n", "TSV"),
        ("a.txt", b"messages;id\n[];1\n", "CSV with semicolons"),
        ("a.md", b"| prompt | completion |\n|---|---|\n| Hi | Ho |\n", "plain text"),
        ("a.txt", b"Well, he said\nYes, she said\n", "plain text"),
        ("a.txt", b"[1] Smith, A.\n[2] Jones, B.\n", "plain text"),
        ("a", b"[1] Smith, A.\n[2] Jones, B.\n", "plain text"),
        ("a.md", b"[[1]](#one) says {so}\n", "plain text"),
        ("a.txt", b"[12.03.24, 18:00] Ann: hi\n[12.03.24, 18:01] Bob: ho\n", "plain text"),
        ("a.txt", b"[2024-01-01] Dear diary\n", "plain text"),
        ("a.txt", b"[1, 2] and [3, 4] say so\n", "plain text"),
        ("a.txt", b"[42]\n", "plain text"),
        ("a.txt", b'["one", "two"]\n', "a JSON array"),
        ("a.txt", b'["one", ' + b'"words and words", ' * 9000 + b'"two"]', "a JSON array"),
        ("a.txt", b'[{"text": "' + b"words " * 20_000 + b'"}]', "a JSON array"),
        ("a.csv", b"It was late, and cold.\nShe went, alone.\n", "plain text"),
        ("a.csv", b"It was late.\nShe went, at last, home.\nNo one, of them.\n", "plain text"),
        ("a.csv", b"What is a cat?,A pet.\nWhat is an ox?,A bull.\n", "CSV"),
        ("a.csv", b'"It was late, and cold."\n"She went, alone."\n', "CSV with one column"),
        ("a.jsonl", b"hello\n", "JSON Lines"),
        ("a.csv", b"{name},answer\nHi,Ho\n", "CSV"),
    ],
)
def test_a_name_decides_only_what_content_leaves_open(
    tmp_path: Path, name: str, content: bytes, container: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert open_records(path).container == container


def test_running_text_is_told_from_texts_of_their_own(tmp_path: Path) -> None:
    for name, content, is_running in (
        ("a.txt", b"Hi", True),
        ("a.json", b'["Hi", "Ho"]', False),
        ("a.csv", b"text\nHi\n", False),
    ):
        (tmp_path / name).write_bytes(content)
        assert open_records(tmp_path / name).is_running_text == is_running


def test_text_that_was_nearly_a_table_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"Monday\tRain\nTuesday\tSun\n")
    assert open_records(path).notes == [
        "The lines of a.txt are evenly parted by tabs, but the first names no columns known here, "
        "so it was read as plain text; call it .tsv to have it read as a table."
    ]
    path = tmp_path / "a.csv"
    path.write_bytes(b"It was late, and cold.\nShe went, alone.\n")
    assert open_records(path).notes == [
        "a.csv is called .csv, but its lines are no rows of a table, so it was read as plain text."
    ]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_are_read_and_their_damage_is_told(tmp_path: Path, pack: Any) -> None:
    many = b"".join(b'{"question": "%d", "answer": "%d"}\n' % (n * n, n) for n in range(30_000))
    packed = pack(many)
    path = tmp_path / "rows.jsonl.packed"
    assert len(rows(path, packed)) == 30_000
    assert rows(path, pack(LINES) + pack(LINES)) == [ROW] * 4
    assert "is damaged or cut off" in refusal(path, packed[: len(packed) // 2])
    assert "is damaged or cut off" in refusal(path, packed[:9])
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    assert refusal(path, bytes(damaged))


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_source, "SUSPICIOUS_BYTES", 1 << 20)
    text = b"All work and no play makes a dull day.\n"
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        path = tmp_path / "rows.txt.packed"
        assert "unpacks to more than 200 times its size" in refusal(path, pack(text * 300_000))
        assert rows(path, pack(text * 100))
    monkeypatch.setattr(byte_source, "MAX_UNPACKED", 1 << 20)
    content = gzip.compress(os.urandom(1 << 20).hex().encode())
    assert refusal(path, content) == "rows.txt.packed unpacks to more than 4 GiB."


def test_a_packed_table_of_columns_has_to_be_unpacked(tmp_path: Path) -> None:
    message = refusal(tmp_path / "a.parquet.gz", gzip.compress(b"PAR1" + bytes(99) + b"PAR1"))
    assert message == "a.parquet.gz is a Parquet file packed with gzip."


def test_only_files_are_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large.jsonl"
    with large.open("wb") as file:
        file.truncate((20 << 30) + 1)
    closed = tmp_path / "closed.jsonl"
    closed.write_bytes(LINES)
    closed.chmod(0)
    for path, message in (
        (tmp_path, f"{tmp_path.name} is a folder."),
        (pipe, "pipe is a device or a pipe, no file."),
        (Path("/dev/zero"), "zero is a device or a pipe, no file."),
        (tmp_path / "absent", "absent: no such file or directory."),
        (large, "large.jsonl is larger than 20 GiB."),
        *(((closed, "closed.jsonl: permission denied."),) if os.geteuid() else ()),
    ):
        with pytest.raises(RequestError) as caught:
            open_records(path)
        assert caught.value.message == message


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_path_may_stand_in_quotes_as_windows_copies_it(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "my rows.jsonl"
    path.write_bytes(LINES)
    quoted = f"{quote}{path}{quote}"
    assert read_dataset(DataSpec(source=quoted)).usable == 2
    assert dataset_path(quoted) == path.resolve()
    assert resolve_model(f"{quote}{path.parent}{quote}").folder == path.parent.resolve()
    for odd in (quote, quote * 2, f"{quote}{path}"):
        with pytest.raises(RequestError):
            dataset_path(odd)
