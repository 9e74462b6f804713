"""A file end to end: what it was taken for, what became of its rows, or why it is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from engine.contract.bundled import DATASETS, sample_datasets
from engine.contract.errors import RequestError
from engine.contract.spec import DataSpec
from engine.data.containers.record_file import RowError
from engine.data.dataset import Dataset, Refusal, Refusals, describe_refusals, snippet_of
from engine.data.items import Passage, Turn
from engine.data.source import (
    DatasetReader,
    dataset_path,
    dataset_sha256,
    is_hub_dataset,
    read_dataset,
    read_items,
)
from tests.rows import (
    CHAT,
    GOOD,
    INSTRUCTION,
    SHAREGPT,
    items_of,
    jsonl,
    messages,
    read,
    said,
    sentence,
)

UNKNOWN = (
    "Say which column is what in data.columns, such as prompt: Question and reply: Answer, or set "
    "data.format to text to learn every word."
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    "content",
    [
        jsonl(GOOD, GOOD),
        jsonl(GOOD, GOOD).rstrip(),
        b"\xef\xbb\xbf" + jsonl(GOOD, GOOD),
        jsonl(GOOD, GOOD).replace(b"\n", b"\r\n"),
        b"\n \n" + jsonl(GOOD) + b"\n\t\n" + jsonl(GOOD),
        json.dumps([GOOD, GOOD]).encode(),
        json.dumps({"data": [SHAREGPT, SHAREGPT]}).encode(),
        jsonl(SHAREGPT, SHAREGPT),
        jsonl(INSTRUCTION, INSTRUCTION),
        b"question,answer\nHi,Ho\nHi,Ho\n",
        b"Prompt;Completion\r\nHi;Ho\r\nHi;Ho\r\n",
    ],
)
def test_every_way_to_write_the_same_rows_reads_the_same(path: Path, content: bytes) -> None:
    assert items_of(path, content) == (CHAT, CHAT)
    dataset = read(path, content)
    assert (dataset.rows, dataset.usable, dataset.refused_count) == (2, 2, 0)
    assert (dataset.refused, dataset.reasons) == ((), ())
    assert dataset.sha256 == hashlib.sha256(content).hexdigest()
    assert dataset.prompts == ("Hi",)


def test_a_dataset_says_what_it_was_taken_for(path: Path) -> None:
    rows = [{"id": n, "Question": f"What is {n} + 1?", "Answer": str(n + 1)} for n in range(5)]
    dataset = read(path, jsonl(*rows, {"id": 5, "Question": "What is 5 + 1?", "Answer": ""}))
    assert dataset.container == "JSON Lines"
    assert (dataset.encoding, dataset.unit) == ("UTF-8", "line")
    assert (dataset.format, dataset.formats) == ("qa", {"qa": 5})
    assert dataset.columns == {"prompt": "Question", "reply": "Answer"}
    assert dataset.available_columns == ("id", "Question", "Answer")
    assert dataset.prompts == ("What is 0 + 1?", "What is 1 + 1?", "What is 2 + 1?")
    assert dataset.refused == (
        Refusal(6, "a reply is empty", '{"id": 5, "Question": "What is 5 + 1?", "Answer": ""}'),
    )
    assert dataset.reasons == (("a reply is empty", 1, 6),)


def test_a_dataset_outlives_json(path: Path) -> None:
    dataset = read(path, jsonl(GOOD, INSTRUCTION, 7, messages(("bot", "Ho"), *[("user", "Hi")])))
    adapter = TypeAdapter(Dataset)
    assert adapter.validate_python(adapter.dump_python(dataset, mode="json")) == dataset
    assert adapter.validate_json(adapter.dump_json(dataset)) == dataset


def test_rows_that_are_left_out_are_named_and_counted(path: Path) -> None:
    content = b'{"messages": \n' + jsonl(GOOD, 7, messages(("user", "Hi"))) + b"[" * 9999 + b"\n"
    content += b'{"a": ' + b"9" * 5000 + b"}\n\n" + jsonl(GOOD, None)
    dataset = read(path, content)
    assert (dataset.rows, dataset.usable) == (8, 2)
    assert [one.number for one in dataset.refused] == [1, 3, 4, 5, 6, 9]
    reasons = {reason: (count, first) for reason, count, first in dataset.reasons}
    assert reasons["it is no JSON object"] == (2, 3)
    assert reasons["it has no reply to learn from"] == (1, 4)
    assert sum(count for count, _ in reasons.values()) == dataset.refused_count == 6


def test_only_the_first_refused_rows_are_kept_but_all_are_counted(path: Path) -> None:
    dataset = read(path, jsonl(*[{"question": "Hi", "answer": ""}] * 250, INSTRUCTION))
    assert len(dataset.refused) == 100
    assert dataset.reasons == (("a reply is empty", 250, 1),)
    assert dataset.refused_count == 250


def test_reasons_without_end_are_kept_within_bounds() -> None:
    refusals = Refusals()
    for number in range(5000):
        refusals.add(number, f"reason {number}", None)
    assert refusals.count == 5000
    assert refusals.reasons[0] == ("another reason", 4000, 1000)
    assert len(refusals.reasons) == 1001


def test_reasons_are_told_with_where_they_are_first() -> None:
    reasons = (("a reply is empty", 1200, 7), ("it is no JSON object", 1, 3), ("c", 1, 4))
    assert describe_refusals((*reasons, ("d", 1, 5)), "line") == (
        "a reply is empty (1,200 rows, the first is line 7); it is no JSON object (line 3); "
        "c (line 4)"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": "é", "b": None}, '{"a": "é", "b": null}'),
        ("x" * 999, "x" * 200),
        ({"a": "\ud83d"}, '{"a": "?"}'),
        ({"a": [1, 2, 3, 4, 5]}, '{"a": [1, 2, 3, 4]}'),
        (RowError("no row"), ""),
        (RowError("no row", "{'a': \udcff1}" + "x" * 999), "{'a': ?1}" + "x" * 191),
        (7, "7"),
    ],
)
def test_a_snippet_is_short_and_of_whole_characters(value: Any, expected: str) -> None:
    assert snippet_of(value) == expected
    assert snippet_of(10**5000) == "a long number"


def test_snippets_of_large_and_deep_rows_cost_nothing() -> None:
    deep: Any = "end"
    for _ in range(5000):
        deep = {"a": deep}
    assert snippet_of(deep).startswith('{"a": {"a": ')
    assert len(snippet_of({str(n): "x" * 10_000 for n in range(10_000)})) == 200


def test_max_rows_counts_usable_rows(path: Path) -> None:
    content = jsonl(7, GOOD, {"question": "Hi"}, INSTRUCTION, GOOD, GOOD)
    dataset = read(path, content, max_rows=2)
    assert (dataset.rows, dataset.usable, dataset.refused_count) == (4, 2, 2)
    assert items_of(path, content, max_rows=2) == (CHAT, CHAT)
    assert dataset.sha256 == hashlib.sha256(content).hexdigest()


def test_a_reader_streams_again_from_the_beginning(path: Path) -> None:
    path.write_bytes(jsonl(GOOD, 7, INSTRUCTION))
    reader = DatasetReader(DataSpec(source=str(path)))
    assert list(reader) == list(reader) == [(1, CHAT), (3, CHAT)]
    assert reader.summary() == read_dataset(DataSpec(source=str(path)))


def test_what_was_changed_is_told_in_sentences(path: Path) -> None:
    opening = messages(("bot", "Welcome!"), ("user", "Hi"), ("bot", "Ho"))
    dataset = read(path, jsonl(*[opening] * 12, INSTRUCTION))
    assert dataset.notes == (
        "The rows are of several kinds: 12 as messages, 1 as instruction.",
        "12 chats begin with the assistant: those openings are left out.",
    )


def test_columns_are_mapped_by_hand(path: Path) -> None:
    content = jsonl({"Zeile": "Hi", "Sache": "Ho"}, {"Zeile": "Hi"})
    assert "They hold: Zeile, Sache." in sentence(path, content)
    dataset = read(path, content, columns={"prompt": "Zeile", "reply": "Sache"})
    assert dataset.columns == {"prompt": "Zeile", "reply": "Sache"}
    assert (dataset.usable, dataset.refused_count) == (1, 1)


def test_a_column_that_is_not_there_is_refused_with_those_that_are(path: Path) -> None:
    content = jsonl({"Zeile": "Hi", "Sache": "Ho"})
    columns = {"prompt": "Zeile", "reply": "sache"}
    assert sentence(path, content, "data.columns", columns=columns) == (
        "rows.jsonl has no column sache; its columns are Zeile, Sache. "
        "Name one of these, as it is written there."
    )


def test_preference_pairs_need_consent(path: Path) -> None:
    content = jsonl({"prompt": "Hi", "chosen": "Ho", "rejected": "No"})
    assert sentence(path, content, "data.format") == (
        "the rows of rows.jsonl are preference pairs, with a chosen and a rejected reply. "
        "Set data.format to preference, which learns the chosen replies only."
    )
    dataset = read(path, content, format="preference")
    assert dataset.format == "preference"
    assert dataset.notes == (
        "1 row is a preference pair: its chosen reply is learned, the rejected one is left out.",
    )
    assert items_of(path, content, format="preference") == (CHAT,)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "rows.jsonl is empty. "),
        (b" \n\r\n\t\n", "rows.jsonl is empty. "),
        (b"[]", "rows.jsonl is empty. "),
        (
            jsonl({"Zeile": "Hi", "Sache": "Ho"}),
            "the rows of rows.jsonl are in no format known here: no question and no reply are "
            f"found in it (line 1). They hold: Zeile, Sache. {UNKNOWN}",
        ),
        (
            jsonl({"question_id": 1, "turns": ["Who are you?"]}),
            "the rows of rows.jsonl are in no format known here: no question and no reply are "
            f"found in it (line 1). They hold: question_id, turns. {UNKNOWN}",
        ),
        (
            jsonl(messages(("user", "Hi")), messages(("user", "Hi"), ("assistant", ""))),
            "rows.jsonl has no row to learn from: it has no reply to learn from (line 1); a reply "
            "is empty (line 2). Each row needs a question and a reply.",
        ),
    ],
)
def test_files_without_a_usable_row_are_refused_in_a_sentence(
    path: Path, content: bytes, expected: str
) -> None:
    assert sentence(path, content).startswith(expected)


def test_what_is_no_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    samples = "or one of the samples pirate, support, json."
    for source, expected in (
        (str(tmp_path), "is a folder. Name a .jsonl, .json, .csv, .parquet or .txt file in it."),
        (str(tmp_path / "absent.jsonl"), samples),
        ("absent.csv", samples),
        ("x" * 4000, samples),
        ("~no-one-here/rows.jsonl", samples),
        ("a\x00b", samples),
        ("/dev/null", "is no ordinary file. Name a .jsonl, .json, .csv, .parquet or .txt file."),
    ):
        with pytest.raises(RequestError) as caught:
            read_dataset(DataSpec(source=source))
        assert str(caught.value).endswith(expected)


def test_a_hub_id_is_told_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    assert is_hub_dataset("someone/chats")
    assert is_hub_dataset("some-one/chats_2.1")
    for path in ("rows/chats", "someone/chats.csv", "pirate", "a/b/c", "/tmp/chats", "./chats"):
        assert not is_hub_dataset(path)
    with pytest.raises(RequestError) as caught:
        dataset_path("someone/chats")
    assert "owner/name" in caught.value.advice


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_path_may_stand_in_quotes_as_windows_copies_it(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "my rows.jsonl"
    path.write_bytes(jsonl(GOOD))
    quoted = f"{quote}{path}{quote}"
    assert read_items(DataSpec(source=quoted)) == (CHAT,)
    assert dataset_path(quoted) == path.resolve()


def test_odd_names_are_read(tmp_path: Path) -> None:
    for name in ("a b.jsonl", "$(touch x)", "-r", "é😀.json", "new\nline", "x" * 250, "CON.txt"):
        assert items_of(tmp_path / name, jsonl(GOOD)) == (CHAT,)


@pytest.mark.parametrize("name", list(sample_datasets()))
def test_bundled_samples_come_out_word_for_word(name: str) -> None:
    lines = (DATASETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [
        tuple(Turn(one["role"], one["content"]) for one in json.loads(line)["messages"])
        for line in lines
    ]
    spec = DataSpec(source=name)
    assert list(read_items(spec)) == expected
    dataset = read_dataset(spec)
    assert (dataset.usable, dataset.notes) == (sample_datasets()[name].rows, ())
    assert dataset.sha256 == dataset_sha256(spec)


def test_plain_text_is_read_as_passages_that_hold_all_of_it(tmp_path: Path) -> None:
    words = "\n\n".join(f"Chapter {n}. It was a quiet day by the sea." for n in range(300))
    items = items_of(tmp_path / "tale.txt", words.encode())
    assert len(items) > 5
    assert all(isinstance(item, Passage) for item in items)
    joined = "".join(text for item in items for _, text in said(item))
    assert joined.split() == words.split()
    assert read(tmp_path / "tale.txt", words.encode()).format == "text"
