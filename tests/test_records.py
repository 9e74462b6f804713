"""Records in JSON and text: every way to write them reads the same, and damage has its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract.errors import RequestError
from engine.data.containers import byte_source
from engine.data.containers.json_records import JsonRecords
from engine.data.containers.json_stream import JsonStream, array_values
from engine.data.containers.json_values import Incomplete
from engine.data.containers.record_file import RecordFile, RowError
from engine.data.containers.text_source import TextSource
from engine.data.records import open_records

ROWS = [{"question": f"Nº {number}?", "answer": "Ja — «ok»"} for number in (1, 2, 3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ANY = settings(deadline=None, derandomize=True, max_examples=150)


def opened(path: Path, content: bytes | str) -> RecordFile:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_records(path)


def read(path: Path, content: bytes | str) -> list[Any]:
    records = opened(path, content)
    found = list(records)
    told = records.notes
    assert list(map(str, found)) == list(map(str, records)), "a second reading gives the same"
    assert records.notes == told
    return found


def values(path: Path, content: bytes | str) -> list[Any]:
    return [value for _, value in read(path, content)]


def refusal(path: Path, content: bytes | str) -> str:
    with pytest.raises(RequestError) as caught:
        read(path, content)
    assert caught.value.field == "data.source"
    assert "\n" not in str(caught.value)
    return caught.value.message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.json"


@pytest.mark.parametrize(
    ("content", "container", "numbers"),
    [
        (LINES, "JSON Lines", [1, 2, 3]),
        (LINES.replace("\n", ",\n"), "JSON Lines", [1, 2, 3]),
        ("\n\n" + LINES.replace("\n", "\n \n"), "JSON Lines", [3, 5, 7]),
        (json.dumps(ROWS), "a JSON array", [1, 2, 3]),
        (json.dumps(ROWS, indent=2), "a JSON array", [1, 2, 3]),
        ("[\n" + LINES.replace("\n", ",\n").rstrip(",\n") + "\n]\n", "a JSON array", [1, 2, 3]),
        ("".join(json.dumps(row, indent=1) for row in ROWS), "JSON objects", [1, 4, 7]),
        ("\n".join(json.dumps(row, indent=1) for row in ROWS), "JSON objects", [1, 5, 9]),
        ("".join(json.dumps(row) for row in ROWS), "JSON objects", [1, 1, 1]),
        (json.dumps({"data": ROWS}), 'JSON with the records under "data"', [1, 2, 3]),
        (
            json.dumps({"version": 1, "about": {"a": [{}]}, "mine": ROWS}, indent=2),
            'JSON with the records under "mine"',
            [1, 2, 3],
        ),
        (
            json.dumps({key: {n: row[key] for n, row in enumerate(ROWS)} for key in ROWS[0]}),
            "JSON of columns (pandas)",
            [1, 2, 3],
        ),
        (
            json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}),
            "JSON of columns (pandas)",
            [1, 2, 3],
        ),
        (json.dumps({n: row for n, row in enumerate(ROWS)}), "JSON of records by key", [1, 2, 3]),
        (
            json.dumps({"columns": list(ROWS[0]), "data": [list(row.values()) for row in ROWS]}),
            "JSON of columns and data (pandas)",
            [1, 2, 3],
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_way_to_write_the_same_rows_reads_the_same(
    path: Path, content: str, container: str, numbers: list[int], encoding: str
) -> None:
    for line_end in ("\n", "\r\n", "\r"):
        data = content.replace("\n", line_end).encode(encoding)
        assert read(path, data) == list(zip(numbers, ROWS, strict=True))
        records = open_records(path)
        assert records.container == container
        assert records.encoding == ("UTF-8" if "8" in encoding else "UTF-16")
        assert records.notes == []


def test_a_single_object_is_a_row_whatever_lists_it_holds(path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    task = {"instruction": "Add", "instances": [{"input": "1 1", "output": "2"}]}
    for row in (ROWS[0], chat, task, {"tags": ["a"], "question": "Hi"}, {}):
        assert read(path, json.dumps(row, indent=1)) == [(1, row)]


def test_the_list_to_learn_from_is_chosen_and_told(path: Path) -> None:
    records = opened(path, json.dumps({"test": ROWS[:1], "train": ROWS[1:], "dev": ROWS}))
    assert [value for _, value in records] == ROWS[1:]
    assert records.notes == ['Only the records under "train" are used, not those under test, dev.']
    message = refusal(path, json.dumps({"mine": ROWS, "yours": ROWS}))
    assert message == "rows.json holds several lists of records: mine, yours."


def test_a_large_outer_object_is_read_without_holding_it(path: Path) -> None:
    def found(content: str) -> JsonRecords:
        path.write_text(content, "utf-8")
        source = TextSource(byte_source.ByteSource(path))
        return JsonRecords(source, content[:50], max_record=200)

    outer = {"note": "short", "test": ROWS, "train": ROWS * 5, "more": [1, 2]}
    records = found(json.dumps(outer))
    assert list(records) == list(enumerate(ROWS * 5, 1))
    assert records.notes == ['Only the records under "train" are used, not those under test.']
    with pytest.raises(RequestError, match="without a list of records"):
        found(json.dumps({"question": ["Hi"] * 99, "answer": ["Ho"] * 99}))
    with pytest.raises(RequestError, match="a comma is missing"):
        found(json.dumps(outer)[:-1])


def test_a_bad_line_spoils_itself_alone(path: Path) -> None:
    good = '{"a": 1}\n'
    bad = {
        '{"a": \n': "a value is missing",
        "{'a': 1}\n": "a name in double quotes is missing",
        '{"a" 1}\n': "a colon is missing",
        '{"a": "b}\n': "a text has no closing quotation mark",
        '{"a": "b\tc"}\n': "a text holds a tab or line end",
        '{"a": "\\x"}\n': "a backslash in a text is not written twice",
        '{"a": 1} {"b": 2}\n': "something follows its end",
        '{"a": Infinity}\n': "it holds Infinity",
        '{"a": [-Infinity]}\n': "it holds -Infinity",
        '{"a": 1e999}\n': "it holds a number that is too large",
        '{"a": ' + "9" * 5000 + "}\n": "it holds a number that is too long",
        '{"a": ' + "[" * 9999 + "\n": "it is nested too deep",
    }
    found = read(path, good * 20 + "".join(bad) + good)
    assert [value for _, value in found if isinstance(value, dict)] == [{"a": 1}] * 21
    faults = [(number, value) for number, value in found if isinstance(value, RowError)]
    assert [number for number, _ in faults] == list(range(21, 21 + len(bad)))
    for (_, fault), reason in zip(faults, bad.values(), strict=True):
        assert reason in str(fault)
    for (_, fault), line in zip(faults, bad, strict=True):
        assert fault.snippet == line[:200].rstrip("\n")


def test_every_row_that_is_left_out_shows_how_it_begins(path: Path) -> None:
    for content, snippet in (
        ('[{"a": Infinity}]', '{"a": Infinity}'),
        ('{\n"a": 1\n}\n{\n"a" 2\n}\n{\n"a": 3\n}', '{\n"a" 2\n}\n{\n"a": 3\n}'),
        (
            b'{"a": "\xd0\xbf"}\n' * 3 + b'{"\xef\xf0\xf1\xf2": 1}\n',
            '{"\udcef\udcf0\udcf1\udcf2": 1}',
        ),
    ):
        (fault,) = [value for value in values(path, content) if isinstance(value, RowError)]
        assert fault.snippet == snippet


def test_a_comma_may_stand_before_the_end_of_an_array(path: Path) -> None:
    for content in ('[{"a": 1}, {"a": 2},]', '[\n{"a": 1},\n{"a": 2},\n]\n', "[1,]"):
        assert values(path, content) == values(
            path, content.replace(",]", "]").replace(",\n]", "]")
        )
    assert "a value is missing" in refusal(path, '[{"a": 1},, {"a": 2}]')
    assert "a value is missing" in refusal(path, "[,]")


def test_numbers_that_are_none_and_names_that_stand_twice(path: Path) -> None:
    assert values(path, '{"a": NaN, "b": [NaN]}\n{"a": 1, "a": 2}\n') == [
        {"a": None, "b": [None]},
        {"a": 2},
    ]
    found = values(path, '[{"a": 1}, {"a": Infinity}, {"a": 3}]')
    assert [str(value) for value in found if isinstance(value, RowError)] == [
        "it holds Infinity, which is no number to learn"
    ]
    assert found[2] == {"a": 3}


def test_a_broken_array_is_refused_with_its_place(path: Path) -> None:
    text = json.dumps(ROWS, indent=1)
    cut = refusal(path, text[:-20])
    assert cut.startswith("line 12 of rows.json, after 2 records: it is no valid JSON: a text has")
    assert cut.endswith("(is the file cut off?).")
    assert refusal(path, text.replace("},\n {", "}\n {", 1)).startswith(
        "line 6 of rows.json, after 1 records: it is no valid JSON: a comma is missing"
    )
    assert refusal(path, "[\n{},\n{]").startswith("line 3 of rows.json, after 1 records: ")
    assert "something follows its end" in refusal(path, text + "\n{}")
    assert "the file is cut off" in refusal(path, "[{}")
    assert "nested too deep" in refusal(path, "[" * 99_999)


def test_objects_that_follow_a_broken_one_are_read(path: Path) -> None:
    first, second, third = (json.dumps(row, indent=1) for row in ROWS)
    found = read(path, f"{first}\n{second.replace(',', '')}\n{third}")
    assert [number for number, _ in found] == [1, 5, 9]
    assert [value for _, value in found][::2] == [ROWS[0], ROWS[2]]
    assert str(found[1][1]).endswith("(line 7)")
    assert refusal(path, first.replace(",", "")).startswith("line 3 of rows.json: ")


def test_only_line_feeds_end_a_line(path: Path) -> None:
    text = "a\u2028b\u2029c\x85d"
    line = json.dumps({"a": text}, ensure_ascii=False)
    assert read(path, f"{line}\n{line}") == [(1, {"a": text}), (2, {"a": text})]


def test_a_record_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    large = '{"a": "' + "x" * (17 << 20) + '"}\n'
    found = read(tmp_path / "rows.jsonl", large + '{"a": 1}\n')
    assert [str(found[0][1]), found[1]] == ["it is larger than 16 MB", (2, {"a": 1})]
    found = read(tmp_path / "rows.json", f'[{large}, {{"a": 1}}]')
    assert [str(found[0][1]), found[1]] == ["it is larger than 16 MB", (2, {"a": 1})]
    larger = large.replace("xx", "xxxxxx")
    for line in (large, larger):
        found = read(tmp_path / "rows.jsonl", line + '{"a": 1}\n')
        assert [str(found[0][1]), found[1]] == ["it is larger than 16 MB", (2, {"a": 1})]
        assert found[0][1].snippet == line[:200]
        ((_, alone),) = read(tmp_path / "rows.jsonl", larger)
        assert str(alone) == "it is larger than 16 MB"
    assert "it is larger than 16 MB" in refusal(tmp_path / "rows.json", f"[{larger}]")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


class Pieces:
    """A text that comes in pieces of a chosen length, as a source gives it."""

    has_unreadable = False

    def __init__(self, text: str, length: int) -> None:
        self.text = text
        self.length = length

    def pieces(self) -> Iterator[str]:
        for start in range(0, len(self.text), self.length):
            yield self.text[start : start + self.length]


@ANY
@given(st.lists(JSON, max_size=6), st.integers(1, 70), st.sampled_from([None, 1]))
def test_an_array_reads_the_same_wherever_its_pieces_end(
    rows: list[Any], length: int, indent: int | None
) -> None:
    text = json.dumps(rows, ensure_ascii=False, indent=indent)
    stream = JsonStream(Pieces(text, length))  # pyright: ignore[reportArgumentType]
    stream.peek()
    assert list(array_values(stream)) == json.loads(text)
    assert stream.peek() == ""
    assert stream.line == 1 + text.count("\n")


@ANY
@given(st.lists(JSON, min_size=1, max_size=4), st.integers(1, 9), st.data())
def test_an_array_that_is_cut_off_is_never_passed_off_as_whole(
    rows: list[Any], length: int, data: Any
) -> None:
    text = json.dumps(rows)
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    stream = JsonStream(Pieces(cut, length))  # pyright: ignore[reportArgumentType]
    stream.peek()
    with pytest.raises(Incomplete):
        list(array_values(stream))
