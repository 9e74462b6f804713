"""Rows become chats or are refused with a reason; files are read or refused in a sentence."""

from __future__ import annotations

import gzip
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract.errors import RequestError
from engine.contract.spec import DataSpec
from engine.data.formats import Chat, RowError, Turn, detect_format, to_chat
from engine.data.source import Dataset, describe_refusals, read_dataset

CHAT = (Turn("user", "Hi"), Turn("assistant", "Ho"))
GOOD: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
}
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
INSTRUCTION = {"instruction": "Hi", "output": "Ho"}
ADVICE = (
    "Use messages with role and content, conversations with from and value, or "
    "instruction and output."
)


NOT_YET = "which is not read yet. Save the conversations as .jsonl, one JSON object per line."


def messages(*turns: tuple[Any, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(path: Path, content: bytes, **settings: Any) -> Dataset:
    path.write_bytes(content)
    return read_dataset(DataSpec(source=str(path), **settings))


def sentence(path: Path, content: bytes, **settings: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(path, content, **settings)
    assert caught.value.field == "data.source"
    return str(caught.value).removeprefix("data.source: ")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    ("row", "format"),
    [
        (GOOD, "messages"),
        ({"conversation": GOOD["messages"], "id": 7, "more": [1]}, "messages"),
        (SHAREGPT, "sharegpt"),
        ({"messages": SHAREGPT["conversations"]}, "sharegpt"),
        (INSTRUCTION, "instruction"),
        ({**INSTRUCTION, "input": ""}, "instruction"),
        ({"messages": []}, None),
        ({"messages": "Hi"}, None),
        ({"messages": ["Hi"]}, None),
        ({"prompt": "Hi", "completion": "Ho"}, None),
        ({"instruction": "Hi"}, None),
        ({}, None),
    ],
)
def test_a_format_is_told_by_the_rows_own_shape(row: dict[str, Any], format: str | None) -> None:
    assert detect_format(row) == format
    if format:
        assert to_chat(row, format) == CHAT  # pyright: ignore[reportArgumentType]


def test_turns_keep_their_order_and_content() -> None:
    turns = [
        ("system", "S "),
        ("user", " Hi\n"),
        ("assistant", "Ho"),
        ("user", "?"),
        ("model", "!"),
    ]
    chat = to_chat(messages(*turns), "messages")
    assert [turn.content for turn in chat] == ["S ", " Hi\n", "Ho", "?", "!"]
    assert [turn.role for turn in chat] == ["system", "user", "assistant", "user", "assistant"]
    for name in ("human", "Prompter", " USER "):
        assert to_chat(messages((name, "Hi"), ("ChatGPT", "Ho")), "messages") == CHAT


def test_an_instruction_takes_its_input_and_system_along() -> None:
    row = {"instruction": " Add ", "input": " 1 2\n", "output": "3", "system": "Count."}
    assert to_chat(row, "instruction") == (
        Turn("system", "Count."),
        Turn("user", "Add\n\n1 2"),
        Turn("assistant", "3"),
    )
    for empty in (None, "", " \n", 7):
        row = {**INSTRUCTION, "input": empty, "system": empty}
        assert to_chat(row, "instruction") == CHAT
    assert to_chat({"instruction": "", "input": "Hi", "output": "Ho"}, "instruction") == CHAT


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "it has no list of messages"),
        ({"messages": "Hi"}, "it has no list of messages"),
        ({"messages": []}, "it has no messages"),
        ({"messages": ["Hi"]}, "a message is no object"),
        (messages((None, "Hi")), "a message has no role"),
        (messages((["user"], "Hi")), "a message has no role"),
        (messages(("tool", "Hi")), "a message has the unknown role 'tool'"),
        (messages(("x" * 99, "Hi")), f"a message has the unknown role '{'x' * 40}'"),
        (messages(("user", None)), "content is missing"),
        (messages(("user", 7)), "content is no text"),
        (messages(("user", [{"type": "text"}])), "content is no text"),
        (messages(("user", "\ud83d")), "content holds half of a character"),
        (messages(("user", "Hi")), "it has no reply to learn from"),
        (messages(("assistant", "Ho")), "it does not begin with the user"),
        (messages(("system", "S")), "it has no messages"),
        (messages(("user", "Hi"), ("assistant", " \n")), "a reply is empty"),
        (messages(("user", "a"), ("user", "b")), "two user messages follow each other"),
        (
            messages(("user", "a"), ("assistant", "b"), ("assistant", "c")),
            "two assistant messages follow each other",
        ),
        (
            messages(("user", "a"), ("system", "S"), ("assistant", "b")),
            "a system message stands after the first place",
        ),
    ],
)
def test_each_refusal_has_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        to_chat(row, "messages")
    assert str(caught.value) == reason


def test_instructions_that_cannot_be_learned_from_are_refused() -> None:
    for row, reason in (
        ({"instruction": "Hi"}, "output is missing"),
        ({"output": "Ho"}, "instruction is missing"),
        ({"instruction": ["Hi"], "output": "Ho"}, "instruction is no text"),
        ({"instruction": "Hi", "output": "Ho", "system": "\udc00"}, "system holds half of a"),
        ({"instruction": "Hi", "output": "Ho", "input": "\udc00"}, "input holds half of a"),
        ({"instruction": "Hi", "output": " "}, "a reply is empty"),
    ):
        with pytest.raises(RowError, match=reason):
            to_chat(row, "instruction")


@pytest.mark.parametrize(
    "content",
    [
        jsonl(GOOD, GOOD),
        jsonl(GOOD, GOOD).rstrip(),
        b"\xef\xbb\xbf" + jsonl(GOOD, GOOD),
        jsonl(GOOD, GOOD).replace(b"\n", b"\r\n"),
        b"\n \n" + jsonl(GOOD) + b"\n\t\n" + jsonl(GOOD),
        json.dumps([GOOD, GOOD]).encode(),
        b"\xef\xbb\xbf\n [" + json.dumps(GOOD, indent=4).encode() + b",\n" + jsonl(GOOD) + b"]",
        jsonl(SHAREGPT, SHAREGPT),
        jsonl(INSTRUCTION, INSTRUCTION),
    ],
)
def test_every_way_to_write_the_same_rows_reads_the_same(path: Path, content: bytes) -> None:
    dataset = read(path, content)
    assert dataset.chats == (CHAT, CHAT)
    assert dataset.refused == ()
    assert dataset.sha256 == hashlib.sha256(content).hexdigest()


def test_only_line_feeds_end_a_line(path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be"
    row = messages(("user", text), ("assistant", "Ho"))
    dataset = read(path, json.dumps(row, ensure_ascii=False).encode() + b"\n" + jsonl(GOOD))
    assert [chat[0].content for chat in dataset.chats] == [text, "Hi"]


def test_bad_rows_are_left_out_and_named_by_line(path: Path) -> None:
    content = b'{"messages": \n' + jsonl(GOOD, 7, messages(("user", "Hi"))) + b"[" * 9999 + b"\n"
    content += b'{"a": ' + b"9" * 5000 + b"}\n\n" + jsonl(GOOD, None)
    dataset = read(path, content)
    assert dataset.chats == (CHAT, CHAT)
    assert dataset.format == "messages"
    deep = "it is no valid JSON: a number too long, or nested too deep"
    assert dataset.refused == (
        (1, "it is no valid JSON: Expecting value"),
        (3, "it is no JSON object"),
        (4, "it has no reply to learn from"),
        (5, deep),
        (6, deep),
        (9, "it is no JSON object"),
    )
    assert describe_refusals(dataset.refused) == (
        "it is no JSON object (2 rows, the first is row 3); "
        f"{deep} (2 rows, the first is row 5); "
        "it is no valid JSON: Expecting value (1 rows, the first is row 1)"
    )


def test_a_named_format_is_believed_and_max_rows_counts_usable_ones(path: Path) -> None:
    content = jsonl(SHAREGPT, INSTRUCTION, SHAREGPT, SHAREGPT)
    assert read(path, content, format="instruction").chats == (CHAT,)
    dataset = read(path, content, max_rows=2)
    assert dataset.chats == (CHAT, CHAT)
    assert [number for number, _ in dataset.refused] == [2]
    assert sentence(path, content, format="messages").startswith(
        "rows.jsonl has no row to learn from: a message has no role (3 rows, the first is row 1); "
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "rows.jsonl is empty. Choose another file."),
        (b" \n\r\n\t\n", "rows.jsonl is empty. Choose another file."),
        (b"[]", "rows.jsonl is empty. Choose another file."),
        (b"{}\n\xff\n", "line 2 is not UTF-8 text. Save the file as UTF-8."),
        ("é".encode("latin-1"), "line 1 is not UTF-8 text. Save the file as UTF-8."),
        ("{}".encode("utf-16"), "line 1 is not UTF-8 text. Save the file as UTF-8."),
        (gzip.compress(jsonl(GOOD), mtime=0), f"rows.jsonl is a gzip archive, {NOT_YET}"),
        (b"PK\x03\x04\xff", f"rows.jsonl is a zip archive, {NOT_YET}"),
        (b"PAR1\x15\xffPAR1", f"rows.jsonl is a Parquet file, {NOT_YET}"),
        (b"ARROW1\x00\x00", f"rows.jsonl is an Arrow file, {NOT_YET}"),
        (b"[\n{},\n{]", "line 3 is no valid JSON: Expecting property name"),
        (b"[" * 9999, "the JSON holds a number too long or is nested too deep."),
        (b"[" + b"9" * 5000 + b"]", "the JSON holds a number too long or is nested too deep."),
        (
            b"hello\n",
            "the rows of rows.jsonl are in no format known here "
            f"(row 1: it is no valid JSON: Expecting value). {ADVICE}",
        ),
        (
            b'\n{"question": "Hi", "answer": "Ho"}\n',
            "the rows of rows.jsonl are in no format known here "
            f"(row 2 holds: question, answer). {ADVICE}",
        ),
        (b'"Hi"\n', "the rows of rows.jsonl are in no format known here (row 1: it is no JSON ob"),
        (jsonl(GOOD).replace(b"\n", b"\r") * 2, "the rows of rows.jsonl are in no format"),
        (
            jsonl(messages(("user", "Hi")), messages(("user", "Hi"), ("assistant", ""))),
            "rows.jsonl has no row to learn from: it has no reply to learn from (1 rows, the "
            "first is row 1); a reply is empty (1 rows, the first is row 2). "
            "Each row needs a question and a reply.",
        ),
    ],
)
def test_files_without_a_usable_row_are_refused_in_a_sentence(
    path: Path, content: bytes, expected: str
) -> None:
    assert sentence(path, content).startswith(expected)


def test_what_is_no_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for source, expected in (
        (str(tmp_path), "is a folder. Name a .json or .jsonl file in it."),
        (str(tmp_path / "absent.jsonl"), "one of the samples pirate, support, json."),
        ("x" * 4000, "one of the samples pirate, support, json."),
        ("~no-one-here/rows.jsonl", "one of the samples pirate, support, json."),
        ("a\x00b", "one of the samples pirate, support, json."),
    ):
        with pytest.raises(RequestError) as caught:
            read_dataset(DataSpec(source=source))
        assert str(caught.value).endswith(expected)


def test_samples_and_odd_names_are_read(tmp_path: Path) -> None:
    assert len(read_dataset(DataSpec(source="pirate")).chats) >= 200
    for name in ("a b.jsonl", "$(touch x)", "-r", "é😀.json", "new\nline", "x" * 250, "CON.txt"):
        assert read(tmp_path / name, jsonl(GOOD)).chats == (CHAT,)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROLES = st.sampled_from(["user", "assistant", "system", "gpt", "human", "tool"]) | VALUES
KEYS = st.sampled_from(["role", "content", "from", "value", "instruction", "output", "messages"])
TURNS = st.lists(st.dictionaries(KEYS, ROLES, max_size=3), max_size=3)
ROWS = st.dictionaries(KEYS, TURNS | VALUES, max_size=3) | VALUES


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.lists(ROWS.map(lambda row: json.dumps(row).encode()) | st.binary(max_size=20), max_size=4)
)
def test_any_file_is_a_dataset_or_a_sentence(tmp_path_factory: Any, lines: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    chats: tuple[Chat, ...] = ()
    with suppress(RequestError):
        chats = read(path, b"\n".join(lines)).chats
    for chat in chats:
        assert [turn.role for turn in chat if turn.role != "system"][:2] == ["user", "assistant"]
