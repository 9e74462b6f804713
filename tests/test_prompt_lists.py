"""Lists of prompts in the run's folder, and files of votes and conversations."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contract.errors import RequestError
from qft_gui.answers import SIDES, Answer, Reply, Settings, Side
from qft_gui.comparing.conversation import Conversation
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.prompt_list import (
    LONGEST_PROMPT,
    MOST_PROMPTS,
    PromptList,
    begin_list,
    newest_list,
    read_list,
)
from qft_gui.comparing.transcripts import as_csv, conversation_file
from qft_gui.view.comparison import list_frame

NAMES: dict[Side, str] = {"a": "starter", "b": "tuned"}
PROMPTS = ("Who are you?", "=1+1", "Wie heißt du? \N{SPARKLES}")


def begin(run: Path, *prompts: str) -> PromptList:
    settings = Settings(temperature=0.5, system="Be brief.")
    return begin_list(run, Pair("base:tuned", "tuned"), NAMES, settings, prompts or PROMPTS)


def answer_all(found: PromptList) -> None:
    for number, side in list(found.missing(side_by_side=True)):
        found.add_reply(number, side, Reply(f"{side} says {number}", num_tokens=3, is_done=True))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    found = begin(tmp_path)
    answer_all(found)
    found.add_vote(1, "tie")
    again = newest_list(tmp_path)
    assert again is not None
    for name in ("id", "pair", "names", "settings", "prompts", "secret", "replies", "votes"):
        assert getattr(again, name) == getattr(found, name), name
    assert [again.turn(n).order for n in range(3)] == [found.turn(n).order for n in range(3)]
    assert again.next_to_vote() == 0


@given(st.integers(min_value=0, max_value=4000))
def test_a_torn_file_loses_only_what_was_torn(
    tmp_path_factory: pytest.TempPathFactory, at: int
) -> None:
    run = tmp_path_factory.mktemp("run")
    found = begin(run)
    head = len(found.path.read_bytes())
    answer_all(found)
    whole = found.path.read_bytes()
    cut = whole[: min(len(whole), head + at)]
    found.path.write_bytes(cut)
    again = read_list(found.path)
    assert again is not None
    assert len(again.replies) in (cut.count(b"\n") - 1, cut.count(b"\n"))
    answer_all(again)
    last = read_list(found.path)
    assert last is not None
    assert last.is_answered_whole


def test_models_that_take_turns_are_asked_one_after_the_other(tmp_path: Path) -> None:
    found = begin(tmp_path)
    assert list(found.missing(side_by_side=True))[:3] == [(0, "a"), (0, "b"), (1, "a")]
    assert [side for _, side in found.missing(side_by_side=False)] == ["a"] * 3 + ["b"] * 3


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (("", "  "), "The list is empty"),
        (tuple(f"{n}" for n in range(MOST_PROMPTS + 1)), "201 prompts"),
        (("short", "x" * (LONGEST_PROMPT + 1)), "Prompt 2 is longer"),
    ],
)
def test_a_list_that_cannot_be_is_a_sentence(
    tmp_path: Path, prompts: tuple[str, ...], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        begin(tmp_path, *prompts)
    assert not list(tmp_path.iterdir())


def test_a_vote_in_a_list_tells_nothing_before(tmp_path: Path) -> None:
    found = begin(tmp_path)
    answer_all(found)
    frame = list_frame(found, "", is_at_work=False)
    assert frame is not None
    sent = json.dumps(frame["turn"])
    assert "starter" not in sent
    assert "tuned" not in sent
    assert frame["title"] == "Prompt 1 of 3"
    for number in range(3):
        found.add_vote(number, "left")
    frame = list_frame(found, "", is_at_work=False)
    assert frame is not None
    right = [found.turn(number).order[0] for number in range(3)].count("b")
    state = (
        "All 3 prompts are answered and voted on. "
        f"Of this list {right} for tuned, {3 - right} for starter, 0 ties, 0 with both bad."
    )
    assert (frame["turn"], frame["state"]) == (None, state)


def test_votes_of_a_list_are_counted_by_model(tmp_path: Path) -> None:
    found = begin(tmp_path, *(f"{number}" for number in range(6)))
    answer_all(found)
    for number, winner in enumerate(("a", "b", "b")):
        found.add_vote(number, "right" if found.turn(number).order[1] == winner else "left")
    for number, choice in enumerate(("tie", "both_bad", "both_bad"), 3):
        found.add_vote(number, choice)
    frame = list_frame(newest_list(tmp_path), "", is_at_work=False)
    assert frame is not None
    assert frame["state"].endswith(
        "Of this list 2 for tuned, 1 for starter, 1 tie, 2 with both bad."
    )


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (("One", "", " "), ""),
        (("One", " One"), " 1 repeated prompt was left out."),
        (("One", "Two", "One", "One"), " 2 repeated prompts were left out."),
    ],
)
def test_repeated_prompts_are_not_dropped_without_a_word(
    tmp_path: Path, prompts: tuple[str, ...], words: str
) -> None:
    answer_all(begin(tmp_path, *prompts))
    frame = list_frame(newest_list(tmp_path), "", is_at_work=False)
    assert frame is not None
    assert frame["state"].partition("answered.")[2] == words


def test_a_list_that_was_ended_can_go_on(tmp_path: Path) -> None:
    found = begin(tmp_path)
    for side in SIDES:
        found.add_reply(0, side, Reply("x", is_done=True))
    frame = list_frame(newest_list(tmp_path), "", is_at_work=False)
    assert frame is not None
    assert frame["can_go_on"]
    assert "1 of 3 prompts were answered before it ended." in frame["state"]


TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"), max_size=30)


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_no_cell_is_a_formula(texts: list[str]) -> None:
    columns = [f"column {number}" for number in range(len(texts))]
    table = as_csv(columns, [dict(zip(columns, texts, strict=True))])
    (_, row) = csv.reader(io.StringIO(table.removeprefix("\ufeff")))
    for cell, text in zip(row, texts, strict=True):
        assert not cell.startswith(("=", "+", "-", "@", "\t"))
        assert cell in (text, f"'{text}")


def test_a_conversation_keeps_an_open_vote_to_itself() -> None:
    talk = Conversation()
    turn, _ = talk.begin("@SUM(A1)", SIDES, Settings(), NAMES, is_blind=True)
    reply = Reply("-cmd", seconds=2.0, num_tokens=3, tokens_per_s=1.5, is_done=True)
    talk.update(turn, Answer({"a": reply, "b": reply}), "")
    talk.finish(turn)
    first = json.loads(conversation_file(talk, "jsonl").splitlines()[0])
    assert (first["model"], first["tokens_per_s"], first["reply"]) == (None, None, "-cmd")
    talk.vote(turn.number, "tie")
    rows = list(csv.DictReader(io.StringIO(conversation_file(talk, "csv").removeprefix("\ufeff"))))
    assert {row["model"] for row in rows} == {"starter", "tuned"}
    assert (rows[0]["question"], rows[0]["reply"], rows[0]["vote"]) == ("'@SUM(A1)", "'-cmd", "tie")
