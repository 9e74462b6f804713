"""Parquet and Arrow: plain values, no padding, no index of pandas; damage is one sentence."""

from __future__ import annotations

import datetime
import decimal
import io
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pyarrow import ipc

from engine.contract.errors import RequestError
from engine.data.containers.record_file import RowError
from engine.data.records import open_records


def as_parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd", row_group_size=2)
    return buffer.getvalue()


def as_file(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    with ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def as_stream(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    with ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


WAYS = [as_parquet, as_file, as_stream]
TABLE = pa.table(
    {
        "question": pa.array(["Hi", "Ho", None], pa.large_string()),
        "answer": pa.array(["a", "b", "a"]).dictionary_encode(),
        "bytes": pa.array([b"caf\xc3\xa9", None, b""]),
        "score": pa.array([1.5, float("nan"), None]),
        "day": pa.array([datetime.date(2020, 1, 2)] * 3),
        "price": pa.array([decimal.Decimal("1.50")] * 3),
        "messages": pa.array(
            [
                [{"role": "user", "content": "Hi", "call": None}],
                [{"role": "assistant", "content": None, "call": {"a": 1, "b": None}}],
                None,
            ]
        ),
        "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    }
)
ROWS = [
    {
        "question": "Hi",
        "answer": "a",
        "bytes": "café",
        "score": 1.5,
        "day": "2020-01-02",
        "price": "1.50",
        "messages": [{"role": "user", "content": "Hi"}],
        "map": {"a": 1},
    },
    {
        "question": "Ho",
        "answer": "b",
        "bytes": None,
        "score": None,
        "day": "2020-01-02",
        "price": "1.50",
        "messages": [{"role": "assistant", "call": {"a": 1}}],
        "map": None,
    },
    {
        "question": None,
        "answer": "a",
        "bytes": "",
        "score": None,
        "day": "2020-01-02",
        "price": "1.50",
        "messages": None,
        "map": {},
    },
]


def read(path: Path, content: bytes) -> list[Any]:
    path.write_bytes(content)
    records = open_records(path)
    found = list(records)
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert records.unit == "row"
    assert records.encoding is None
    return [value for _, value in found]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["rows.parquet", "rows.json", "rows"])
def test_values_are_plain_whatever_their_type(tmp_path: Path, way: Any, name: str) -> None:
    assert read(tmp_path / name, way(TABLE)) == ROWS
    assert open_records(tmp_path / name).container == way.__name__.replace("as_", "").replace(
        "parquet", "Parquet"
    ).replace("file", "Arrow").replace("stream", "Arrow")


@pytest.mark.parametrize("way", WAYS)
def test_a_value_that_cannot_be_learned_from_spoils_its_row(tmp_path: Path, way: Any) -> None:
    table = pa.table({"text": [b"a", b"\xff", b"c", b"d"], "n": [1.0, 2.0, float("inf"), 4.0]})
    found = read(tmp_path / "rows", way(table))
    assert [found[0], found[3]] == [{"text": "a", "n": 1.0}, {"text": "d", "n": 4.0}]
    assert isinstance(found[1], RowError)
    assert str(found[1]) == "it holds bytes that are no UTF-8 text"
    assert str(found[2]) == "it holds a number that is infinite"


def test_an_index_of_pandas_is_no_column(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"question": ["a", "b", "c"], "answer": ["d", "e", "f"]})
    shuffled = frame.sort_values("question", ascending=False)
    named = shuffled.rename_axis("row")
    words = frame.set_index("question")
    for rows, names in (
        (shuffled, {"question", "answer"}),
        (named, {"question", "answer"}),
        (words, {"question", "answer"}),
    ):
        path = tmp_path / "rows.parquet"
        rows.to_parquet(path)
        assert set(next(iter(open_records(path)))[1]) == names


def test_a_name_that_stands_twice_is_told(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    path = tmp_path / "rows.arrow"
    assert read(path, as_file(table)) == [{"text": "a"}]
    assert open_records(path).notes == [
        'The column "text" stands there more than once: the first is used.'
    ]


@pytest.mark.parametrize("way", WAYS)
def test_damage_is_told_or_does_no_harm(tmp_path: Path, way: Any) -> None:
    whole = way(TABLE)
    path = tmp_path / "rows.data"
    for end in (9, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:end])
        # A stream may end after any of its batches.
        told = suppress(RequestError) if way is as_stream else pytest.raises(RequestError)
        with told:
            assert list(open_records(path)) in ([], list(enumerate(ROWS, 1)))
    dice = random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        with suppress(RequestError):
            list(open_records(path))


def test_rows_are_read_some_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    path.write_bytes(as_file(pa.table({"text": [str(number) for number in range(5000)]})))
    assert [value["text"] for _, value in open_records(path)] == [str(n) for n in range(5000)]
