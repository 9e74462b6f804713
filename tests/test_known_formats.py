"""Files as people export them from elsewhere: read where that can be, else refused with advice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.data.items import Passage
from engine.data.row_notes import RowNote
from tests.rows import CHAT, GOOD, items_of, jsonl, messages, read, said, sentence


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.json"


def step(parent: str | None, role: str, words: Any, *children: str, **more: Any) -> dict[str, Any]:
    """One node of a ChatGPT export."""
    content = words if isinstance(words, dict) else {"content_type": "text", "parts": [words]}
    message = {"author": {"role": role, "name": None}, "content": content, "weight": 1.0, **more}
    return {"message": message, "parent": parent, "children": list(children)}


def exported(**nodes: dict[str, Any]) -> dict[str, Any]:
    """A conversation of a ChatGPT export, whose last node is the current one."""
    root = {"id": "root", "message": None, "parent": None, "children": ["a"]}
    current = list(nodes)[-1]
    return {"title": "t", "mapping": {"root": root, **nodes}, "current_node": current}


PLAIN = exported(a=step("root", "user", "Hi", "b"), b=step("a", "assistant", "Ho"))


def test_a_chatgpt_export_is_read(path: Path) -> None:
    assert items_of(path, json.dumps([PLAIN, PLAIN]).encode()) == (CHAT, CHAT)
    assert items_of(path, json.dumps(PLAIN).encode()) == (CHAT,)
    assert items_of(path, jsonl(PLAIN)) == (CHAT,)
    dataset = read(path, json.dumps([PLAIN]).encode())
    assert (dataset.format, dataset.notes) == ("messages", ())
    lost = {**PLAIN, "current_node": "gone"}
    assert items_of(path, json.dumps([lost]).encode()) == (CHAT,)


def test_of_several_branches_the_one_shown_last_is_read(path: Path) -> None:
    row = exported(
        a=step("root", "user", "Hi", "x", "b"),
        x=step("a", "assistant", "an answer that was made anew"),
        b=step("a", "assistant", "Ho"),
    )
    content = json.dumps([row]).encode()
    assert items_of(path, content) == (CHAT,)
    assert read(path, content).notes == (RowNote.BRANCHES.sentence(1),)


def test_what_an_export_never_showed_is_left_out_and_told(path: Path) -> None:
    hidden = {"is_visually_hidden_from_conversation": True}
    row = exported(
        s=step("root", "system", "", "u"),
        u=step("s", "user", "About me", "a", metadata=hidden),
        a=step("u", "user", "Hi", "c"),
        c=step(
            "a", "assistant", {"content_type": "code", "text": "search()"}, "t", recipient="web"
        ),
        t=step("c", "tool", "found", "b"),
        b=step("t", "assistant", "Ho", recipient="all"),
    )
    content = json.dumps([row]).encode()
    assert items_of(path, content) == (CHAT,)
    assert read(path, content).notes == (RowNote.UNSEEN.sentence(1),)


def test_an_export_with_a_circle_or_without_messages_ends(path: Path) -> None:
    circle = exported(a=step("b", "user", "Hi", "b"), b=step("a", "assistant", "Ho", "a"))
    assert items_of(path, json.dumps([circle]).encode()) == (CHAT,)
    nothing = exported(a={"message": None, "parent": "root", "children": []})
    reason = "it has no messages (2 rows, the first is row 1)"
    assert reason in sentence(path, json.dumps([nothing] * 2).encode())


def test_pictures_in_an_export_are_not_overlooked(path: Path) -> None:
    parts = [{"content_type": "image_asset_pointer"}, "What is it?"]
    words = {"content_type": "multimodal_text", "parts": parts}
    row = exported(a=step("root", "user", words, "b"), b=step("a", "assistant", "Ho"))
    assert sentence(path, json.dumps([row]).encode()) == (
        "rows.json has no row to learn from: a message holds a part of the kind "
        "'image_asset_pointer', no text (row 1). Only text is learned here: take these parts out, "
        "or the rows that have them."
    )


SQUAD = {"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": [{"text": "a"}]}]}]}
SEGMENTS = {"segments": [{"label": False, "text": "<s>Hi"}, {"label": True, "text": "Ho</s>"}]}
DISCORD = {
    "guild": {"id": "1", "name": "g"},
    "messages": [
        {"id": str(n), "content": "well", "author": {"name": name, "isBot": False}}
        for n, name in enumerate(("ann", "bob", "ann", "bob"))
    ],
}
TELEGRAM = {
    "name": "chat",
    "type": "personal_chat",
    "messages": [{"type": "message", "from": n, "text": "hey"} for n in ("Ann", "Bob", "Ann")],
}
LATE = messages(("user", "Hi"), ("system", "Now sing."), ("assistant", "La"))
UNWEIGHTED = {"messages": [GOOD["messages"][0], {**GOOD["messages"][1], "weight": 0}]}


@pytest.mark.parametrize(
    ("content", "reason", "advice"),
    [
        (
            {"version": "1", "data": [{"title": "t", **SQUAD}]},
            "it is an article of SQuAD with its questions inside of paragraphs",
            "one row for each question, with the columns question, context and answer.",
        ),
        ([SEGMENTS] * 2, "it holds segments with labels, as Axolotl's", "Write the segments"),
        (DISCORD, "its messages are by 'ann' and 'bob': these are names", "Write user and assis"),
        (TELEGRAM, "its messages are by 'Ann' and 'Bob': these are names", "Write user and assis"),
        ([LATE], "a system message stands after the first question", "Put what the system says"),
        (
            [UNWEIGHTED],
            "each of its replies is marked as not to be learned",
            "They have the weight 0, or",
        ),
    ],
)
def test_what_is_not_read_is_named_with_its_own_way_out(
    path: Path, content: Any, reason: str, advice: str
) -> None:
    said_of_it = sentence(path, json.dumps(content).encode())
    assert reason in said_of_it
    assert advice in said_of_it
    assert "Each row needs" not in said_of_it


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Ho"], "answer_start": [0]},
        {"text": ["Ho", "Hey"], "answer_start": [0, 7]},
        ["Ho", "Hey"],
        [{"text": "Ho", "answer_start": 0}],
        json.dumps(["Ho", "Hey"]),
        "Ho",
    ],
)
def test_of_several_answers_the_first_is_learned_and_told(path: Path, answers: Any) -> None:
    row = {"id": "1", "question": "Hi", "answers": answers}
    assert items_of(path, jsonl(row, row)) == (CHAT, CHAT)
    is_told = read(path, jsonl(row, row)).notes == (RowNote.NESTED.sentence(2),)
    assert is_told == ("Hey" in str(answers))


def test_a_question_without_an_answer_is_refused(path: Path) -> None:
    row = {"question": "Hi", "answers": {"text": [], "answer_start": []}}
    assert "a reply is empty (line 1)" in sentence(path.with_suffix(".jsonl"), jsonl(row))


def test_the_way_out_is_that_of_most_rows(path: Path) -> None:
    rows = [LATE, *[messages(("user", "Hi"))] * 3]
    assert "Each row needs a question and a reply." in sentence(path, json.dumps(rows).encode())
    assert "Put what the system says" in sentence(path, json.dumps([LATE, *rows[:2]]).encode())


def test_each_text_of_a_json_list_is_one_of_its_own(path: Path) -> None:
    expected = (Passage("One.", is_whole=True), Passage("Two.", is_whole=True))
    assert items_of(path, b'["One.", "Two."]') == expected
    assert items_of(path, b'"One."\n"Two."\n') == expected
    prose = items_of(path.with_suffix(".txt"), b"Once upon a time.\n")
    assert prose == (Passage("Once upon a time.\n", is_whole=False),)
    assert said(prose[0]) == [("text", "Once upon a time.\n")]
