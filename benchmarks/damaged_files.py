"""Data files of every kind that is read, and ways to damage them: for the fuzzer and its test."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

Damage = Literal["cut", "remove", "repeat", "replace", "insert", "swap", "flip"]
DAMAGES: tuple[Damage, ...] = ("cut", "remove", "repeat", "replace", "insert", "swap", "flip")
# Pieces that mean something to one reader or another.
TELLING = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b'"', b"'", b"{", b"}", b"[", b"]", b",",
    b";", b"\t", b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b'"role": "system"',
    b'"from": null', b"\\ud83d", b"\\u0000", b"\xe2\x80\xa8", b"\x80", b"PAR1", b"ARROW1\x00\x00",
    b"\x1f\x8b", b"PK\x03\x04", b"[" * 3000, b'{"a":' * 3000, b'""', b"\\", b'{"messages": ',
    b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"<html>", b"\\ufeff", b"tool_calls",
)  # fmt: skip
_ROW_COUNT = 12


@dataclass(frozen=True)
class Edit:
    """One change of a file.

    Attributes:
        damage: What is done.
        place: Where, as a share of the length, from 0 to 1.
        size: Bytes that it concerns.
        piece: What is put in, if anything is.
    """

    damage: Damage
    place: float
    size: int
    piece: bytes


def damaged(content: bytes, edits: Sequence[Edit]) -> bytes:
    """The content after all changes, one after the other."""
    for edit in edits:
        start = min(len(content), int(edit.place * len(content)))
        end = min(len(content), start + edit.size)
        before, middle, after = content[:start], content[start:end], content[end:]
        content = {
            "cut": before,
            "remove": before + after,
            "repeat": before + middle * 3 + after,
            "replace": before + edit.piece + after,
            "insert": before + edit.piece + middle + after,
            "swap": after + middle + before,
            "flip": before + bytes(byte ^ 0x55 for byte in middle) + after,
        }[edit.damage]
    return content


@cache
def whole_files() -> dict[str, bytes]:
    """A valid file of every kind that is read, by name."""
    lines = _lines(_chats() + _pairs())
    table = pa.Table.from_pylist(_pairs())
    nested = pa.Table.from_pylist([{"messages": row["messages"]} for row in _chats()])
    text = "\n\n".join(row["output"] for row in _pairs())
    return {
        "chats.jsonl": lines,
        "pairs.json": json.dumps(_pairs(), indent=1).encode(),
        "objects.json": b"\n".join(json.dumps(row, indent=2).encode() for row in _pairs()),
        "wrapped.json": json.dumps({"version": 2, "data": _chats()}).encode(),
        "columns.json": json.dumps(_by_column()).encode(),
        "tree.json": json.dumps([_tree()] * 3).encode(),
        "preference.jsonl": _lines(_preferences()),
        "wide.jsonl": lines.decode().encode("utf-16"),
        "western.csv": _table_text(table, ";").replace("é", "\xe9").encode("cp1252", "replace"),
        "table.csv": _table_text(table, ",").encode(),
        "table.tsv": _table_text(table, "\t").encode(),
        "passages.txt": text.encode(),
        "mac.txt": text.replace("\n", "\r").encode(),
        "table.parquet": _written(lambda sink: parquet.write_table(table, sink)),
        "nested.parquet": _written(
            lambda sink: parquet.write_table(nested, sink, compression="zstd")
        ),
        "table.arrow": _arrow(table, pa.ipc.new_file),
        "stream.arrow": _arrow(nested, pa.ipc.new_stream),
        "chats.jsonl.gz": gzip.compress(lines, mtime=0),
        "chats.jsonl.bz2": bz2.compress(lines),
        "pairs.json.xz": lzma.compress(json.dumps(_pairs()).encode()),
    }


def _pairs() -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"Say in one line what stands on shelf {number}.",
            "input": f'A "blue" jar, {number} cups; é' if number % 3 else "",
            "output": f"On shelf {number}\nstands a jar, and {number} cups.",
        }
        for number in range(_ROW_COUNT)
    ]


def _chats() -> list[dict[str, Any]]:
    call = {"type": "function", "function": {"name": "count", "arguments": '{"of": "cups"}'}}
    return [
        {
            "messages": [
                {"role": "system", "content": "You keep the shelves."},
                {"role": "user", "content": f"How many cups on shelf {number}?"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": str(number)},
                {"role": "assistant", "content": f"There are {number} cups. ☕"},
            ]
        }
        for number in range(_ROW_COUNT)
    ]


def _preferences() -> list[dict[str, Any]]:
    return [
        {"prompt": row["instruction"], "chosen": row["output"], "rejected": "No."}
        for row in _pairs()
    ]


def _tree() -> dict[str, Any]:
    node: dict[str, Any] = {"role": "assistant", "text": "Six.", "rank": 0, "replies": []}
    for depth in range(7):
        role = "assistant" if depth % 2 else "prompter"
        node = {"role": role, "text": f"Cup {depth}?", "rank": depth, "replies": [node, node]}
    return node


def _by_column() -> dict[str, dict[str, Any]]:
    return {
        name: {str(number): row[name] for number, row in enumerate(_pairs())}
        for name in ("instruction", "output")
    }


def _lines(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _table_text(table: pa.Table, delimiter: str) -> str:
    options = arrow_csv.WriteOptions(delimiter=delimiter)
    return _written(lambda sink: arrow_csv.write_csv(table, sink, options)).decode()


def _arrow(table: pa.Table, new: Callable[..., Any]) -> bytes:
    def write(sink: io.BytesIO) -> None:
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)

    return _written(write)


def _written(write: Callable[[io.BytesIO], Any]) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()
