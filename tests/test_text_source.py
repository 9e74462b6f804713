"""Text in any encoding and with any line ends reads the same; plain text is cut into passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from engine.contract.errors import RequestError
from engine.data.containers import byte_source
from engine.data.containers.plain_text import passages
from engine.data.records import open_records
from tests.test_records import ANY, LINES, Pieces, opened, refusal, values


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.json"


def test_windows_1252_is_read_and_told(path: Path) -> None:
    text = '{"a": "plain"}\n{"a": "café – “ok” €"}\n{"a": "über"}\n'
    records = opened(path, text.encode("cp1252"))
    assert [value["a"] for _, value in records] == ["plain", "café – “ok” €", "über"]
    assert records.encoding == "Windows-1252"
    (note,) = records.notes
    assert note == (
        'rows.json is not UTF-8 and was read as Windows-1252, such as "café" in line 2; if that is '
        "wrong, set data.encoding."
    )


def test_a_wrong_code_page_shows_itself_in_a_word(path: Path) -> None:
    records = opened(path, '{"a": "plain"}\n{"a": "am Zażółć gęślą jaźń"}\n'.encode("cp1250"))
    assert [value["a"] for _, value in records] == ["plain", "am Za¿ó³æ gêœl¹ jaŸñ"]
    assert 'such as "Za¿ó³æ" in line 2' in records.notes[0]


@pytest.mark.parametrize(
    ("encoding", "text", "name"),
    [
        ("cp1250", "Zażółć gęślą jaźń", "Windows-1250"),
        ("cp1251", "привет", "Windows-1251"),
        ("KOI8-R", "привет", "koi8-r"),
        ("shift_jis", "ありがとう", "shift_jis"),
        ("gbk", "你好世界", "gbk"),
        ("utf-16-le", "日本語", "UTF-16"),
        ("UTF8", "日本語", "UTF-8"),
    ],
)
def test_an_encoding_that_a_person_names_is_used(
    path: Path, encoding: str, text: str, name: str
) -> None:
    for line_end in ("\n", "\r\n"):
        path.write_bytes(f'{{"a": "{text}"}}{line_end}'.encode(encoding) * 3)
        for piece in (1, 5, 1 << 18):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(byte_source, "PIECE", piece)
                records = open_records(path, encoding=encoding)
                assert list(records) == [(number, {"a": text}) for number in (1, 2, 3)]
        assert records.encoding == name
        assert records.notes == []


def test_a_wrong_encoding_is_refused_at_its_field_or_row(path: Path) -> None:
    path.write_bytes('{"a": "привет"}\n'.encode("cp1251") * 2)
    with pytest.raises(RequestError) as caught:
        open_records(path, encoding="utf-8")
    assert caught.value.field == "data.encoding"
    assert caught.value.message == "line 1 of rows.json is no UTF-8 text."
    path.write_bytes('{"a": "ありがとう"}\n'.encode("shift_jis") * 3 + b'{"a": "\x81"}\n')
    fault = list(open_records(path, encoding="shift_jis"))[-1][1]
    assert str(fault) == "its text is no shift_jis"
    assert fault.snippet.startswith('{"a": "')
    path.write_bytes(LINES.encode("utf-16-be") + b"x")
    with pytest.raises(RequestError, match="is no UTF-16 text"):
        list(open_records(path, encoding="utf-16-be"))


def test_a_byte_order_mark_is_believed_more_than_a_person(path: Path) -> None:
    path.write_bytes(LINES.encode("utf-8-sig"))
    records = open_records(path, encoding="cp1250")
    assert [value for _, value in records] == [value for _, value in opened(path, LINES)]
    path.write_bytes(LINES.encode("utf-8-sig"))
    assert open_records(path, encoding="cp1250").notes == [
        "rows.json begins with the mark of UTF-8 and was read as that, not as Windows-1250."
    ]


def test_only_files_of_text_have_an_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"text": ["Hi"]}), path)
    with pytest.raises(RequestError, match="no file of text") as caught:
        open_records(path, encoding="cp1250")
    assert caught.value.field == "data.encoding"


def test_single_lines_that_are_not_utf_8_are_told_apart(path: Path) -> None:
    good = '{"a": "日本語 naïve"}\n'
    content = good.encode() * 3 + b'{"a": "caf\xe9"}\n' + good.encode()
    records = opened(path, content)
    assert [value["a"] for _, value in records] == [*["日本語 naïve"] * 3, "café", "日本語 naïve"]
    assert records.encoding == "UTF-8"
    assert records.notes == ['Line 4 is not UTF-8 and read as Windows-1252, such as "café".']
    for damaged in (
        '{"a": "日本語"}'.encode()[:-3] + b'"}\n',
        '{"a": "привет"}\n'.encode("koi8-r"),
    ):
        found = values(path, content + damaged)
        assert str(found[-1]) == "its text is neither UTF-8 nor Windows-1252"
        assert found[:-1] == [value for _, value in opened(path, content)]


@pytest.mark.parametrize("encoding", ["gbk", "cp1251", "koi8-r", "euc-kr", "shift_jis"])
def test_other_encodings_are_refused_and_never_garbled(path: Path, encoding: str) -> None:
    texts = {"gbk": "你好世界", "euc-kr": "안녕하세요", "shift_jis": "ありがとう"}
    line = json.dumps({"question": texts.get(encoding, "привет")}, ensure_ascii=False) + "\n"
    message = refusal(path, b'{"question": "ok"}\n' + line.encode(encoding) * 2)
    assert message == "line 2 of rows.json is neither UTF-8 nor Windows-1252 text."


def test_what_is_no_text_is_refused(path: Path) -> None:
    assert refusal(path, bytes(range(256)) * 4) == "rows.json holds no text."
    assert "UTF-16 text is not whole" in refusal(path, LINES.encode("utf-16") + b"x")


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=60)


@ANY
@given(
    st.lists(TEXT.map(lambda text: {"a": text}), min_size=2, max_size=5),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 40),
)
def test_encoding_line_ends_and_pieces_change_nothing(
    tmp_path_factory: Any, rows: list[Any], encoding: str, line_end: str, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    text = line_end.join(json.dumps(row, ensure_ascii=False) for row in rows)
    # Without a mark, UTF-16 shows only where most of the text is ASCII.
    is_plain = encoding[-3:] not in ("-le", "-be") or len(text.encode()) < 1.2 * len(text)
    path.write_bytes(text.encode(encoding if is_plain else "utf-16"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_source, "PIECE", length)
        assert list(open_records(path)) == list(enumerate(rows, 1))


@ANY
@given(st.text(max_size=400), st.integers(1, 50), st.integers(1, 30))
def test_passages_are_the_text(text: str, length: int, piece: int) -> None:
    found = list(passages(Pieces(text, piece).pieces(), length))
    assert "".join(found) == text
    assert all(0 < len(passage) <= length for passage in found)
    assert found == list(passages(Pieces(text, 1000).pieces(), length))


def test_passages_end_where_a_reader_would_pause(tmp_path: Path) -> None:
    paragraph = "One sentence here. Another one, longer than it was. "
    path = tmp_path / "story.txt"
    path.write_text(f"# Title\n\n{paragraph * 2}\n{paragraph}\n\n{paragraph}\n" + "x" * 130)
    records = open_records(path, passage_characters=120)
    found = list(records)
    assert "".join(text for _, text in found) == path.read_text()
    assert [text[-2:] for _, text in found[:2]] == [" \n", "\n\n"]
    assert [number for number, _ in found] == [1, 4, 6, 7, 7]
    assert records.unit == "line"
    assert records.container == "plain text"


def test_old_line_ends_in_plain_text_are_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_bytes(b"Once.\rUpon.\r\nA time.\n" * 300)
    found = list(open_records(path, passage_characters=200))
    assert "".join(text for _, text in found) == "Once.\nUpon.\nA time.\n" * 300
    assert found[1][0] == 1 + found[0][1].count("\n")
