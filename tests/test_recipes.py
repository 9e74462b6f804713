"""The generated assets are what their recipes make, and nothing held out is trained on."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from assets.recipes.exchange import normalise
from assets.recipes.make_datasets import DATASETS, make_files
from assets.recipes.world import HELD_OUT, World, all_exchanges, build_world, conversations
from engine.scorers import PIRATE_MARKERS, score_reply

NAMES = ("pirate", "support", "json")
HELD_OUT_FILE = Path(__file__).parents[1] / "assets" / "recipes" / "heldout.jsonl"


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


@pytest.fixture(scope="module")
def drawn(world: World) -> list[list[dict[str, str]]]:
    return list(conversations(world, 20_000, seed=1))


def test_datasets_are_what_the_recipe_makes() -> None:
    made = make_files()
    assert {path.name for path in DATASETS.iterdir()} == set(made)
    for name, content in made.items():
        assert (DATASETS / name).read_bytes() == content, name


@pytest.mark.parametrize("name", NAMES)
def test_dataset_sizes_and_index(name: str) -> None:
    rows, held_out = (
        rows_of(DATASETS / f"{name}.jsonl"),
        rows_of(DATASETS / f"{name}.heldout.jsonl"),
    )
    entry = json.loads((DATASETS / "index.json").read_text(encoding="utf-8"))[name]
    assert 200 <= len(rows) <= 500
    assert 30 <= len(held_out) <= 50
    assert (entry["rows"], entry["heldout_rows"]) == (len(rows), len(held_out))
    assert entry["scorer"] == name
    assert len(entry["samples"]) == 3
    for row in rows:
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
        assert all(turn["content"].strip() for turn in row["messages"])


@pytest.mark.parametrize("name", NAMES)
def test_dataset_holds_out_its_prompts(name: str) -> None:
    trained = [row["messages"][0]["content"] for row in rows_of(DATASETS / f"{name}.jsonl")]
    held_out = [row["prompt"] for row in rows_of(DATASETS / f"{name}.heldout.jsonl")]
    samples = json.loads((DATASETS / "index.json").read_text(encoding="utf-8"))[name]["samples"]
    unseen = [normalise(prompt) for prompt in [*held_out, *samples]]
    assert not set(unseen) & set(map(normalise, trained))
    assert len(set(map(normalise, held_out))) == len(held_out)
    assert len(set(trained)) == len(trained)


def test_every_pirate_reply_is_a_hit_and_no_plain_one_is() -> None:
    for row in rows_of(DATASETS / "pirate.jsonl"):
        assert score_reply("pirate", row["messages"][1]["content"], {}), row
    for exchange in all_exchanges():
        if exchange.category != "repeat":
            for answer in exchange.answers:
                words = set(re.findall(r"[a-z']+", answer.lower()))
                assert not words & PIRATE_MARKERS, answer


def test_support_and_json_replies_satisfy_their_scorers() -> None:
    expected = {}
    for row in rows_of(DATASETS / "support.heldout.jsonl"):
        expected.setdefault(json.dumps(row["expect"]), []).append(row["expect"])
    replies = {row["messages"][1]["content"] for row in rows_of(DATASETS / "support.jsonl")}
    for facts in expected.values():
        assert sum(score_reply("support", reply, {"expect": facts[0]}) for reply in replies) == 1
    for row in rows_of(DATASETS / "json.jsonl"):
        question, reply = (turn["content"] for turn in row["messages"])
        assert all(str(value) in question for value in json.loads(reply).values())


def test_held_out_file_is_what_the_world_makes(world: World) -> None:
    rows = rows_of(HELD_OUT_FILE)
    assert rows == world.held_out
    assert len(rows) == 100
    assert Counter(row["category"] for row in rows) == HELD_OUT


def test_no_held_out_question_is_trained_on(
    world: World, drawn: list[list[dict[str, str]]]
) -> None:
    asked = set()
    for chat in drawn:
        turns = [normalise(turn["content"]) for turn in chat if turn["role"] == "user"]
        asked.update(turns)
        asked.update(" / ".join(turns[i : i + 2]) for i in range(len(turns) - 1))
    for row in world.held_out:
        questions = [normalise(turn["content"]) for turn in row["messages"][::2]]
        assert " / ".join(questions) not in asked, questions


def test_no_held_out_question_is_a_sentence_of_a_longer_one(
    world: World, drawn: list[list[dict[str, str]]]
) -> None:
    said = {
        normalise(sentence)
        for chat in drawn
        for turn in chat
        if turn["role"] == "user"
        for sentence in re.split(r"[.?!:]", turn["content"])
    }
    for row in world.held_out:
        if len(row["messages"]) == 1:
            assert normalise(row["messages"][0]["content"]) not in said


def test_every_answer_is_accepted_by_its_own_patterns() -> None:
    for exchange in all_exchanges():
        for pattern in exchange.accept:
            assert all(re.search(pattern, text, re.IGNORECASE) for text in exchange.answers), (
                exchange.questions[0],
                pattern,
            )


def test_conversations_follow_from_the_seed(world: World) -> None:
    again = build_world()
    assert list(conversations(again, 200, seed=5)) == list(conversations(world, 200, seed=5))
    assert list(conversations(world, 200, seed=5)) != list(conversations(world, 200, seed=6))


def test_conversations_alternate_and_are_never_empty(drawn: list[list[dict[str, str]]]) -> None:
    for chat in drawn[:5000]:
        turns = [turn for turn in chat if turn["role"] != "system"]
        assert len(chat) - len(turns) in (0, 1)
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert all(turn["content"] for turn in turns[1::2])
