"""The data card: one's own folder, what is asked, what is shown, and that text is only text."""

from __future__ import annotations

import doctest
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.contract.spec_file import validate_spec
from qft_gui import data_wish, own_datasets
from qft_gui.checks import Look
from qft_gui.data_check import DataCheck, Histogram, Piece
from qft_gui.data_wish import DataWish, Reading, data_kind
from qft_gui.engine_commands import read_check
from qft_gui.forecasts import Forecasts
from qft_gui.form import OTHER, Form
from qft_gui.fragments import render
from qft_gui.own_datasets import OwnDatasets
from qft_gui.pages.setup_fields import data_choices
from qft_gui.setup_frames import DataState, Frames, setup_frames
from qft_gui.view import data, example, mapping

ATTACK = "<img src=x onerror=window.__xss=1> ${window.__xss=2} {{7*7}} `x`"


def checked(**values: Any) -> DataCheck:
    """An answer of the engine, with some values of its own."""
    answer: dict[str, Any] = {
        "container": "CSV",
        "encoding": "UTF-8",
        "unit": "line",
        "format": "qa",
        "columns": {"prompt": "Question", "reply": "Answer"},
        "available_columns": ["Question", "Answer", "Note"],
        "rows": 1240,
        "usable": 1237,
        "refused": [{"row": 7, "reason": "the answer is empty", "snippet": '{"Question": "?"}'}],
        "refused_count": 3,
        "reasons": [{"reason": "the answer is empty", "count": 3, "first": 7}],
        "duplicates": 12,
        "tokens": {"p50": 75, "p95": 210, "max": 812, "total": 90_000, "trained": 40_000},
        "histogram": {"edges": [0, 100, 200, 300, 900], "counts": [700, 400, 100, 37]},
        "sequence_length": 256,
        "truncated": 50,
        "truncated_percent": 4.04,
        "training_rows": 1113,
        "held_out_rows": 124,
        "epoch_tokens": 80_000,
        "epoch_trained_tokens": 36_000,
        "template": "default",
        "num_examples": 1237,
        "examples": [one_example()],
    }
    return DataCheck.model_validate({**answer, **values})


def one_example(**values: Any) -> dict[str, Any]:
    pieces = [
        {"text": "<|user|>", "trained": False, "control": True},
        {"text": "Who?\n", "trained": False, "control": False},
        {"text": "Me.", "trained": True, "control": False},
        {"text": "<|end|>", "trained": True, "control": True},
    ]
    place = {"number": 1, "row": 2, "held_out": False, "tokens": 9, "trained": 3, "cut": False}
    return {**place, "pieces": pieces, **values}


def known(check: DataCheck, **values: Any) -> Look:
    return Look(check=check, is_current=True, example=check.example(1), limit=256, **values)


def frames(
    tmp_path: Path, look: Look, reading: Reading | None = None, name: str = "mine.csv"
) -> Frames:
    """The Setup page for a file of a person's own."""
    file = tmp_path / name
    file.touch()
    form = Form(data=OTHER, data_path=str(file), device="cpu")
    form = replace(form, reading=replace(reading or Reading(), source=str(file)))
    return setup_frames(form, Forecasts(), data=DataState(look))


def test_the_examples_in_the_docstrings_hold() -> None:
    for module in (data, example, mapping, own_datasets, data_wish):
        assert doctest.testmod(module).failed == 0


def test_the_card_tells_what_was_found(tmp_path: Path) -> None:
    now = frames(tmp_path, known(checked()))
    for words in ("1,237", "36,000 tokens", "CSV, UTF-8: question and answer", "Question (found)"):
        assert words in now.data
    for words in ("3 rows left out", "the answer is empty", "Cut at 256", "4.0 %", "124"):
        assert words in now.data
    for words in ("50 rows are longer than 256 tokens", "Line 2, 9 tokens, 3 learned"):
        assert words in now.seen
    assert "It is saved with the result" in " ".join(now.seen.split())
    assert not now.waits
    assert not now.is_reading


def test_trained_words_are_marked_and_tokens_are_chips(tmp_path: Path) -> None:
    seen = frames(tmp_path, known(checked())).seen
    before, _, after = seen.partition("<mark><span")
    assert 'class="q-chip control" >&lt;|user|&gt;</span>' in before
    learned = after.partition("</mark>")[0]
    assert "<bdi>Me.</bdi>" in learned
    assert "&lt;|end|&gt;" in learned
    assert "Who?" in before


@pytest.mark.parametrize(
    ("text", "chips"),
    [
        ("a\x00b", ["NUL"]),
        ("a\u202eb\u2066", ["U+202E", "U+2066"]),
        ("\u200b\ufeff\u00ad", ["ZWSP", "BOM", "SHY"]),
        ("\ud83d", ["U+D83D"]),
        ("\u2028", ["U+2028"]),
        ("\U0001f469\u200d\U0001f680", []),
        ("a\u200db", ["ZWJ"]),
        ("plain é 漢", []),
    ],
)
def test_what_cannot_be_seen_is_a_chip(text: str, chips: list[str]) -> None:
    parts = list(example.parts_of(text))
    assert [part.text for part in parts if part.kind == "hidden"] == chips


def test_a_giant_example_is_shown_in_part() -> None:
    pieces = [Piece(text="x" * 15_000, trained=True), Piece(text="y" * 15_000, trained=True)]
    (run,) = example.runs_of(pieces)
    assert sum(len(part.text) for part in run["parts"]) == example.MOST_CHARACTERS


@pytest.mark.parametrize(
    ("limit", "cut", "over"),
    [
        (100, "25.0", [False, True, True, True]),
        (150, "37.5", [False, False, True, True]),
        (900, "100.0", [False] * 4),
        (4096, "", [False] * 4),
    ],
)
def test_the_cut_stands_where_the_length_is(limit: int, cut: str, over: list[bool]) -> None:
    drawn = example.lengths(checked(), limit)
    assert drawn["cut"] == cut
    assert [bar["over"] for bar in drawn["bars"]] == over


def test_a_histogram_of_one_length_is_drawn() -> None:
    one = checked(histogram=Histogram(edges=[5, 6], counts=[3]))
    assert example.lengths(one, 5)["cut"] == "0.0"
    assert example.lengths(one, None)["cut"] == ""


def test_text_of_data_is_only_text(tmp_path: Path) -> None:
    attack = checked(
        container=ATTACK,
        encoding=ATTACK,
        columns={"prompt": ATTACK},
        available_columns=[ATTACK, f'"{ATTACK}'],
        refused=[{"row": 1, "reason": ATTACK, "snippet": ATTACK}],
        reasons=[{"reason": ATTACK, "count": 1, "first": 1} for _ in range(5)],
        warnings=[ATTACK],
        examples=[
            one_example(
                pieces=[
                    {"text": ATTACK, "trained": True, "control": False},
                    {"text": ATTACK, "trained": False, "control": True},
                ]
            )
        ],
        error={"message": ATTACK, "field": "data.columns", "advice": ATTACK},
    )
    checking = frames(tmp_path, Look(is_checking=True), name=f"{ATTACK.replace('/', '')}.csv")
    assert "<img" not in checking.refusal
    columns = (("reply", ATTACK),)
    now = frames(tmp_path, known(attack, problem=ATTACK), Reading(columns=columns, split=ATTACK))
    for html in (now.data, now.seen, now.refusal):
        assert "<img" not in html
        assert "&lt;img" in html
        assert "49" not in html.replace("{{7*7}}", "")


def test_nothing_to_learn_keeps_start_off_and_offers_the_fix(tmp_path: Path) -> None:
    mistake = {
        "message": "no reply begins within 256 tokens, so there is nothing to learn from.",
        "field": "train.sequence_length",
        "advice": "Raise the sequence length.",
    }
    now = frames(tmp_path, known(checked(usable=0, error=mistake)))
    (waits,) = now.waits
    assert waits.startswith("Sequence length: No reply begins within 256 tokens")
    assert 'data-act="length" data-value="1024"' in now.data
    assert "Rows used" not in now.data
    stale = frames(tmp_path, replace(known(checked(error=mistake)), is_current=False))
    assert not stale.waits


def test_preference_pairs_are_used_only_with_consent(tmp_path: Path) -> None:
    mistake = {
        "message": "the rows of mine.csv are preference pairs.",
        "field": "data.format",
        "advice": "Set data.format to preference, which learns the chosen replies only.",
    }
    now = frames(tmp_path, known(checked(usable=0, error=mistake)))
    assert "Set Format to preference" in now.waits[0]
    assert "Learn the chosen replies only" in now.data
    assert 'data-act="format" data-value="preference"' in now.data


def test_a_check_that_goes_on_keeps_nothing_waiting(tmp_path: Path) -> None:
    now = frames(tmp_path, Look(is_checking=True))
    assert "Checking mine.csv" in now.data
    assert "Still checking mine.csv." in now.refusal
    assert "Cancel the check" not in now.data
    assert not now.waits
    assert now.is_reading
    again = Look(check=checked(), is_checking=True, seconds=2, rows=50_000)
    later = frames(tmp_path, again)
    assert "Checking 50,000 rows" in later.data
    assert "Cancel the check" in later.data
    assert "is-stale" in later.data
    assert "Still checking" not in later.refusal


def test_what_could_not_be_checked_is_said_and_forbids_nothing(tmp_path: Path) -> None:
    now = frames(tmp_path, Look(problem="The engine did not answer.", is_current=True))
    assert "Not checked. The engine did not answer." in now.data
    assert "Check again" in now.data
    assert not now.waits
    ended = frames(tmp_path, Look(is_cancelled=True))
    assert "the check was ended" in ended.data


def test_the_columns_open_by_themselves_where_help_is_needed(tmp_path: Path) -> None:
    assert 'data-keep="mapping" ><summary>' in frames(tmp_path, known(checked())).data
    mistake = {"message": "no question is found.", "field": "data.source", "advice": ""}
    lost = checked(usable=0, columns={}, format="auto", num_examples=0, error=mistake)
    now = frames(tmp_path, known(lost))
    assert 'data-keep="mapping" open' in now.data
    for role in ("prompt", "input", "reply", "system", "messages", "text"):
        assert f'data-act="column" data-role="{role}"' in now.data
    by_hand = frames(tmp_path, known(checked()), Reading(columns=(("reply", "Note"),)))
    assert '<option value="Note" selected>' in by_hand.data
    assert "set by hand" in by_hand.data


def test_the_encoding_of_a_text_can_be_set_and_of_nothing_else(tmp_path: Path) -> None:
    found = frames(tmp_path, known(checked())).data
    assert 'data-act="encoding"' in found
    assert "UTF-8 (found)" in found
    assert '<option value="cp1250" >Windows-1250, Central Europe</option>' in found
    parquet = frames(tmp_path, known(checked(container="Parquet", encoding=None)))
    assert 'data-act="format"' in parquet.data
    assert 'data-act="encoding"' not in parquet.data
    by_hand = frames(tmp_path, known(checked()), Reading(encoding="cp1250")).data
    assert '<option value="cp1250" selected>' in by_hand
    assert "set by hand" in by_hand
    mistake = {"message": "line 3 is no UTF-16.", "field": "data.encoding", "advice": ""}
    lost = DataCheck.model_validate({"error": mistake})
    open_now = frames(tmp_path, known(lost), Reading(encoding="utf-16")).data
    assert 'data-keep="mapping" open' in open_now
    assert '<option value="utf-16" selected>' in open_now


@pytest.mark.parametrize("encoding", mapping.ENCODINGS)
def test_each_encoding_that_is_offered_is_one_of_the_spec(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("question,answer\nHi,Ho\n", encoding=encoding)
    form = Form(data=OTHER, data_path=str(file))
    asked = replace(form, reading=Reading(form.data_source, encoding=encoding))
    assert validate_spec(asked.document()).data.encoding == encoding
    wish = DataWish.of(asked.document())
    assert f"--encoding={encoding}" in wish.arguments(1)
    assert wish.state() != DataWish.of(form.document()).state()


def test_each_reason_is_told_once_beside_its_rows(tmp_path: Path) -> None:
    said = "3 rows are left out: the answer is empty (3 rows, the first is line 7)."
    card = frames(tmp_path, known(checked(warnings=[said]))).data
    assert card.count("the answer is empty") == 2  # the sentence, and the row of the table
    reasons = [{"reason": f"reason {n}", "count": 1, "first": n} for n in range(1, 6)]
    many = frames(tmp_path, known(checked(reasons=reasons))).data
    assert "reason 3" not in many  # the sentence of the engine tells the first three
    assert "Further reasons" in many
    assert "1: reason 4 (first: line 4)" in many
    shown = checked(refused_count=250, refused=[{"row": 1, "reason": "r", "snippet": ""}] * 100)
    assert "The first 100 of them:" in frames(tmp_path, known(shown)).data


def test_lengths_that_are_all_the_same_are_told_truly(tmp_path: Path) -> None:
    same = {"p50": 10, "p95": 10, "max": 10, "total": 100, "trained": 50}
    seen = frames(tmp_path, known(checked(tokens=same))).seen
    assert "Half up to: 10. 95 % up to: 10. Longest: 10." in seen
    assert "below" not in seen


def test_warnings_name_the_fields_of_the_page(tmp_path: Path) -> None:
    said = "mine.csv was read as Windows-1252; if that is wrong, set data.encoding."
    card = frames(tmp_path, known(checked(warnings=[said]))).data
    assert "if that is wrong, set Encoding, under How it is read." in card
    assert "How it is read</summary>" in card


def test_only_what_was_set_by_hand_reaches_the_spec() -> None:
    form = Form(data=OTHER, data_path="/data/mine.csv")
    assert set(form.document()["data"]) == {"source", "eval_percent"}
    reading = Reading("/data/mine.csv", format="qa").with_column("prompt", "Frage")
    asked = replace(form, reading=reading.with_column("reply", "x").with_column("reply", ""))
    spec = validate_spec(asked.document())
    assert spec.data.format == "qa"
    assert spec.data.columns == {"prompt": "Frage"}
    another = replace(asked, data_path="/data/other.csv")
    assert set(another.document()["data"]) == {"source", "eval_percent"}


def test_a_wish_is_the_commands_arguments(tmp_path: Path) -> None:
    file = tmp_path / "a b.csv"
    file.write_text("q,a\n")
    form = Form(data=OTHER, data_path=f'"{file}"', sequence_length=64)
    reading = Reading(form.data_source, columns=(("prompt", "-q = x"), ("reply", "a")))
    wish = DataWish.of(replace(form, reading=reading).document())
    words = wish.arguments(26)
    assert words[0] == str(file)
    assert "--sequence-length=64" in words
    assert "--first-example=26" in words
    assert words[-3:] == ["--columns", "prompt=-q = x", "reply=a"]
    shorter = DataWish.of(replace(form, reading=reading, sequence_length=32).document())
    assert shorter.state() != wish.state()
    assert shorter.subject() == wish.subject()
    before = wish.subject()
    file.write_text("q,a\n1,2\n")
    assert wish.subject() != before


@pytest.mark.parametrize("length", [None, 0, -3, 7.5, "many"])
def test_a_length_that_cannot_be_is_left_to_the_engine(length: Any) -> None:
    wish = DataWish.of(Form(sequence_length=length).document())
    assert wish.limit is None
    assert not any("sequence-length" in word for word in wish.arguments(1))


def test_kinds_of_sources(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").touch()
    assert data_kind("pirate") == "sample"
    assert data_kind(str(tmp_path / "x.jsonl")) == "file"
    assert data_kind("owner/some-data") == "hub"
    for source in ("", "/nowhere/at/all.csv", "--help", "a/b/c", "x.csv", "-a/b"):
        assert data_kind(source) == "missing"


def test_a_hub_dataset_is_downloaded_only_when_asked_for() -> None:
    form = Form(data=OTHER, data_path="owner/some-data", device="cpu")
    now = setup_frames(form, Forecasts())
    assert "Download and check it" in now.data
    assert not now.waits


def test_data_that_cannot_be_learned_from_is_an_answer() -> None:
    error = '{"usable": 0, "error": {"field": "data.source", "message": "no row.", "advice": ""}}'
    check = DataCheck.model_validate(read_check(error, "", 2))
    assert check.error is not None
    assert check.error.as_error().field == "data.source"
    with pytest.raises(ValueError, match="could not be started"):
        read_check("Traceback", "it broke", 1)


def test_an_upload_goes_into_the_persons_own_folder(tmp_path: Path) -> None:
    own = OwnDatasets(tmp_path / "runs")
    assert own.files() == ()
    source = tmp_path / "my chats; rm -rf.jsonl"
    source.write_text("{}")
    kept = own.keep(source)
    assert kept == tmp_path / "datasets" / "my-chats-rm-rf.jsonl"
    assert kept.read_text() == "{}"
    assert own.keep(source) == kept
    source.write_text("[]")
    assert own.keep(source) == kept.with_name("my-chats-rm-rf-2.jsonl")
    assert kept.read_text() == "{}"
    assert sorted(path.name for path in own.folder.iterdir()) == [
        "my-chats-rm-rf-2.jsonl",
        "my-chats-rm-rf.jsonl",
    ]


@pytest.mark.parametrize(
    "name", ["data.parquet", "notes.md", "x.csv.gz", "no ending", "日本語.txt", ".hidden", "NUL"]
)
def test_files_of_any_kind_are_taken_and_listed(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(b"\x00\x01")
    own = OwnDatasets(tmp_path / "runs")
    kept = own.keep(source)
    assert [one.path for one in own.files()] == [kept]
    assert kept.suffix == source.suffix
    assert not kept.name.startswith(".")


def test_one_of_the_own_datasets_can_be_chosen_newest_first(tmp_path: Path) -> None:
    own = OwnDatasets(tmp_path / "runs")
    own.folder.mkdir()
    now = time.time()
    for age, name in enumerate(("new.csv", "old.csv", ".part")):
        (own.folder / name).write_text("q,a\n")
        os.utime(own.folder / name, (now - age, now - age))
    (own.folder / "a folder").mkdir()
    choices = data_choices(own.files())
    values = [value for _, value in choices]
    files = [str(own.folder / "new.csv"), str(own.folder / "old.csv")]
    assert values == ["pirate", "support", "json", *files, OTHER]
    assert choices[0][0].startswith("Talk like a pirate · Everyday questions")
    assert validate_spec(Form(data=values[3]).document()).data.source == values[3]


def test_a_file_that_is_too_large_is_sent_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_datasets, "MAX_UPLOAD_BYTES", 1 << 20)
    source = tmp_path / "large.jsonl"
    source.write_bytes(b"x" * ((1 << 20) + 1))
    own = OwnDatasets(tmp_path / "runs")
    with pytest.raises(RequestError, match=r"large\.jsonl is larger than 1 MB"):
        own.keep(source)
    assert not own.folder.exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    source = tmp_path / "x.csv"
    source.write_text("q,a\n")
    (tmp_path / "datasets").write_text("a file stands in the way")
    with pytest.raises(RequestError, match="could not be written"):
        OwnDatasets(tmp_path / "runs").keep(source)


def test_a_notice_of_a_file_is_shown() -> None:
    card = data.data_card("pirate", Reading(), Look(), "x.csv is too large.")
    assert "x.csv is too large." in render("data_facts", **card)
