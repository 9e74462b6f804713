"""A vote is one bounded line that a crash cannot make unreadable."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.contract.errors import RequestError
from engine.contract.votes import (
    LONGEST_TEXT,
    MOST_MESSAGES,
    Choice,
    Message,
    Vote,
    VotedSide,
    append_vote,
    read_votes,
)

# Half a character, which no UTF-8 file can hold, among them.
TEXTS = st.text(st.characters(), max_size=40)


def vote(left: str = "tuned", right: str = "base", choice: Choice = "left", **changed: Any) -> Vote:
    fields: dict[str, Any] = {
        "time": 1.5,
        "left": VotedSide(model=left, fingerprint="a1", reply="Arr!"),
        "right": VotedSide(model=right, fingerprint="b2", reply="Hello."),
        "messages": (Message(role="user", content="Hi"),),
        "seed": 7,
        "settings": {"temperature": 0.7, "top_k": 40, "sampled": True, "system": None},
        "choice": choice,
    }
    return Vote(**{**fields, **changed})


def test_votes_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    assert read_votes(path).votes == ()
    cast = [vote(choice=choice) for choice in ("left", "right", "tie", "both_bad")]
    for one in cast:
        append_vote(path, one)
    found = read_votes(path)
    assert (list(found.votes), found.bad_lines) == (cast, 0)
    assert [one.winner for one in found.votes] == ["tuned", "base", None, None]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["choice"] for line in lines] == ["left", "right", "tie", "both_bad"]


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_a_torn_last_line_costs_that_vote_only(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "votes.jsonl"
    append_vote(path, vote())
    whole = path.read_bytes()
    path.write_bytes(whole + whole.rstrip(b"\n")[:kept])
    assert (len(read_votes(path).votes), read_votes(path).bad_lines) == (1, 1)
    append_vote(path, vote(choice="tie"))
    found = read_votes(path)
    assert ([one.choice for one in found.votes], found.bad_lines) == (["left", "tie"], 1)


@given(reply=TEXTS, question=TEXTS, model=st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_makes_one_line_that_reads_back(
    tmp_path_factory: pytest.TempPathFactory, reply: str, question: str, model: str
) -> None:
    path = tmp_path_factory.mktemp("votes") / "votes.jsonl"
    one = Vote(
        time=0.0,
        left=VotedSide(model=model, reply=reply),
        right=VotedSide(model="other", reply=reply),
        messages=(Message(role="user", content=question),),
        seed=0,
        choice="right",
    )
    append_vote(path, one)
    assert path.read_bytes().count(b"\n") == 1
    assert read_votes(path).votes == (one,)


def test_a_line_is_bounded_and_says_what_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    long = "\0" * 1_000_000
    turns = tuple(Message(role="user", content=f"{number} {long}") for number in range(100))
    side = VotedSide(model="m" * 4096, reply=long, earlier=(long,) * 100)
    one = Vote(time=0, left=side, right=side, messages=turns, seed=0, choice="tie")
    append_vote(path, one)
    assert path.stat().st_size < 2 << 20
    (found,) = read_votes(path).votes
    assert found == one
    assert len(found.left.reply) <= LONGEST_TEXT
    assert found.left.reply.endswith("… [996,000 characters left out]")
    assert [turn.content.split()[0] for turn in found.messages] == [
        str(number) for number in range(100 - MOST_MESSAGES, 100)
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"choice": "both"},
        {"seed": -1},
        {"time": float("nan")},
        {"messages": ()},
        {"settings": {"temperature": float("inf")}},
        {"settings": {str(number): number for number in range(17)}},
        {"left": VotedSide.model_construct(model="", reply="")},
        {"more": 1},
    ],
)
def test_what_is_no_vote_is_refused(changed: dict[str, Any]) -> None:
    document = {**vote().model_dump(), **changed}
    with pytest.raises(ValidationError):
        Vote.model_validate(document | {"left": dict(document["left"])})


def test_lines_that_are_no_votes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    append_vote(path, vote())
    with path.open("ab") as file:
        file.write(b"\n{}\n[[[[\n\xff\n" + b"[" * 100_000 + b"\n" + b"x" * (3 << 20) + b"\n")
    append_vote(path, vote())
    found = read_votes(path)
    assert len(found.votes) == 2
    assert found.bad_lines == 6  # of the longest line two pieces


def test_votes_of_many_threads_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda seed: append_vote(path, vote(seed=seed)), range(64)))
    found = read_votes(path)
    assert found.bad_lines == 0
    assert sorted(one.seed for one in found.votes) == list(range(64))


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^votes: the vote cannot be written to .* vote again"):
        append_vote(tmp_path, vote())
    with pytest.raises(RequestError, match=r"cannot be written"):
        append_vote(tmp_path / "nowhere" / "votes.jsonl", vote())
    assert read_votes(tmp_path).votes == ()
