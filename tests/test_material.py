"""Real files and faulty ones, where they are there: each ends as their list says is right."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.contract.spec import DataSpec
from engine.data.content_marks import Mark, marks_in
from engine.data.dataset import Dataset
from engine.data.items import Item, Passage
from engine.data.source import read_dataset, read_items

MATERIAL = Path(
    os.environ.get("QFT_MATERIAL", Path(__file__).resolve().parents[2] / "shared" / "material")
)
NASTY = MATERIAL / "nasty"
SETS = MATERIAL / "datasets"
pytestmark = pytest.mark.skipif(
    not (NASTY / "cases.json").is_file(), reason="the folder of test material is not here"
)
COLUMNS = {"prompt": "Tweet text", "reply": "text_label"}
# What only the words of a model can tell is decided where there is a tokenizer.
LATER = {"long_prompt_short_answer.jsonl": 4, "duplicates.jsonl": 500}


@cache
def cases() -> dict[str, dict[str, Any]]:
    if not (NASTY / "cases.json").is_file():
        return {}
    listed = json.loads((NASTY / "cases.json").read_text(encoding="utf-8"))["cases"]
    return {case["file"]: case for case in listed}


def spec(path: Path, **settings: Any) -> DataSpec:
    return DataSpec(source=str(path), **settings)


def outcome(name: str) -> Dataset | RequestError:
    try:
        return read_dataset(spec(NASTY / name))
    except RequestError as error:
        return error


def words(item: Item) -> list[str]:
    if isinstance(item, Passage):
        return [item.text]
    return [turn.content for turn in item]


def all_words(name: str) -> list[str]:
    return [text for item in read_items(spec(NASTY / name)) for text in words(item)]


def warned(dataset: Dataset, items: tuple[Item, ...]) -> bool:
    """Whether a person is told anything."""
    marked = any(marks_in(item) for item in items)
    return bool(dataset.notes or dataset.refused_count or marked)


@pytest.mark.parametrize("name", sorted(cases()) or ["absent"])
def test_each_faulty_file_ends_as_is_right(name: str) -> None:
    case, found = cases()[name], outcome(name)
    right = [case, *case.get("also_right", [])]
    if isinstance(found, RequestError):
        assert "refuse" in [one["outcome"] for one in right], str(found)
        assert found.field.startswith("data.")
        assert found.message.endswith(".")
        assert found.advice
        return
    items = read_items(spec(NASTY / name))
    assert len(items) == found.usable > 0
    assert found.rows == found.usable + found.refused_count
    if name in LATER:
        assert found.usable == LATER[name]
        return
    accepted = {one["outcome"] for one in right} - {"refuse"}
    assert accepted, "this file is to be refused"
    if accepted == {"accept_with_warning"}:
        assert warned(found, items)
    if case.get("usable_ok"):
        assert found.usable in case["usable_ok"]


@pytest.mark.parametrize("name", sorted(cases()) or ["absent"])
def test_nothing_is_learned_that_no_one_wrote(name: str) -> None:
    if isinstance(outcome(name), RequestError):
        return
    texts = all_words(name)
    for text in texts:
        assert "\r" not in text
        assert "\ufeff" not in text
        assert "\ufffd" not in text
        assert not re.match(r"b'", text)
    written = (NASTY / name).read_bytes()
    for word in ("None", "nan", "NaN", "inf", "Infinity", "null"):
        if word not in texts:
            continue
        assert f"\n{word}".encode() in written or f",{word}".encode() in written


def test_what_the_files_are_about_is_kept() -> None:
    def usable(name: str) -> Dataset:
        found = outcome(name)
        assert isinstance(found, Dataset), found
        return found

    western = (NASTY / "cp1252_smart_quotes.csv").read_bytes().decode("cp1252")
    assert any("Windows-1252" in note for note in usable("cp1252_smart_quotes.csv").notes)
    for text in all_words("cp1252_smart_quotes.csv"):
        assert all(word in western for word in text.split())
    assert any("line 2" in note for note in usable("one_bad_byte.jsonl").notes)
    last = json.loads((NASTY / "nan_infinity_dupkeys.jsonl").read_text().splitlines()[-1])
    assert all_words("nan_infinity_dupkeys.jsonl")[-2:] == [last["instruction"], last["output"]]
    assert {"NA", "None", "null", "nan"} <= set(all_words("na_words.csv"))
    assert usable("na_words.csv").refused[0].number == 4
    assert any('"output"' in note for note in usable("unnamed_index_dup_header.csv").notes)
    assert not {"0", "1"} & set(all_words("unnamed_index_dup_header.csv"))
    cells = (NASTY / "tab_named_csv.csv").read_text().splitlines()[1].split("\t")
    assert set(" ".join(cells).split()) <= set(" ".join(all_words("tab_named_csv.csv")).split())
    assert sum(text.count("\n") for text in all_words("quotes_commas_newlines.csv")) >= 2
    for name in ("cr_only.txt", "one_huge_line.txt"):
        assert "".join("".join(all_words(name)).split()) == "".join(
            (NASTY / name).read_text(encoding="utf-8").split()
        )
    placeholders = read_items(spec(NASTY / "placeholders.json"))
    assert any(Mark.PLACEHOLDER in marks_in(item) for item in placeholders)


def test_chats_and_tools_keep_what_matters() -> None:
    rows = json.loads((NASTY / "sharegpt_roles.json").read_text(encoding="utf-8"))
    chats = read_items(spec(NASTY / "sharegpt_roles.json"))
    systems = [rows[0]["conversations"][0]["value"], rows[1]["system"]]
    assert [words(chat)[0] for chat in chats[:2]] == systems
    for chat in read_items(spec(NASTY / "messages_null_padded.parquet")):
        assert not isinstance(chat, Passage)
        for turn in chat:
            for call in turn.tool_calls:
                assert "null" not in call.arguments
    extras = read_items(spec(NASTY / "openai_extras.jsonl"))[0]
    assert not isinstance(extras, Passage)
    assert [turn.role for turn in extras][:2] == ["system", "user"]
    assert [turn.trained for turn in extras if turn.role == "assistant"] == [False, True]


def test_refusals_name_what_is_wrong() -> None:
    for name, said in (
        ("empty_file.jsonl", "is empty"),
        ("html_error_page.json", "web page"),
        ("zip_with_splits.zip", "Unpack it first"),
        ("preference_pairs_for_sft.jsonl", "chosen"),
        ("preference_pairs_for_sft.jsonl", "rejected"),
    ):
        found = outcome(name)
        assert isinstance(found, RequestError)
        assert said in str(found)


@pytest.mark.parametrize(
    ("name", "usable", "columns"),
    [
        ("gsm8k_train_1500.jsonl", 1500, None),
        ("gsm8k_test.jsonl", 1319, None),
        ("oasst_en_100_message.jsonl", 100, None),
        ("self_instruct_seed_tasks.jsonl", 175, None),
        ("dummy_conversation.json", 500, None),
        ("identity.json", 91, None),
        ("dolly_sample_7.jsonl", 7, None),
        ("formats/jsonl__multi_turn_chat.jsonl", 10, None),
        ("formats/parquet__twitter_complaints_small.parquet", 10, COLUMNS),
        ("formats/arrow__twitter_complaints_small.arrow", 10, COLUMNS),
    ],
)
def test_real_sets_have_every_usable_row(
    name: str, usable: int, columns: dict[str, str] | None
) -> None:
    dataset = read_dataset(spec(SETS / name, columns=columns))
    assert (dataset.usable, dataset.refused_count) == (usable, 0)
    assert len(read_items(spec(SETS / name, columns=columns))) == usable


@pytest.mark.parametrize("name", ["vicuna_bench_question.jsonl", "mt_bench_question.jsonl"])
def test_questions_without_answers_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="in no format known here") as caught:
        read_dataset(spec(SETS / name))
    assert "data.columns" in caught.value.advice


@pytest.mark.parametrize("name", ["alice.md", "wizard_of_oz.md"])
def test_books_are_read_to_their_last_word(name: str) -> None:
    items = read_items(spec(SETS / name))
    texts = [text for item in items for text in words(item)]
    whole = (SETS / name).read_text(encoding="utf-8-sig")
    assert "".join(texts).split() == whole.split()
