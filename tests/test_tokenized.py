"""A dataset in tokens: made once, the same for check and training, and honest about it."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.contract.spec import DataSpec
from engine.data import tokenized
from engine.data.chat import ChatEncoder
from engine.data.check import histogram, report, sentences_about
from engine.data.shown_examples import shown_examples
from engine.data.source import dataset_sha256, read_items
from engine.data.tokenized import TokenizedData, tokenize_data
from tests.tiny import TEMPLATE, TURN_END, chat_rows, tiny_tokenizer, write_jsonl


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def pair(question: str, answer: str) -> dict[str, str]:
    return {"instruction": question, "output": answer}


def made(folder: Path, rows: list[Any], tokenizer: Any, length: int = 64, **fields: Any) -> Any:
    file = write_jsonl(folder / "rows.jsonl", rows)
    return tokenize_data(DataSpec(source=str(file), **fields), tokenizer, length)


def test_examples_are_those_of_the_encoder(tmp_path: Path, tokenizer: Any) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", chat_rows(40))
    spec = DataSpec(source=str(file))
    data = tokenize_data(spec, tokenizer, 50)
    encoder = ChatEncoder(tokenizer, 50, "replies")
    chats = [item for item in read_items(spec) if isinstance(item, tuple)]
    assert [data.store.example(n) for n in range(40)] == [encoder.encode(chat) for chat in chats]
    assert data.store.numbers.tolist() == list(range(1, 41))
    assert len(data.training) + len(data.evaluation) == 40
    assert len(data.evaluation) == 4
    assert data.duplicates == 0


def test_what_was_cut_into_tokens_before_is_not_read_again(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tmp_path, chat_rows(12), tokenizer)
    monkeypatch.setattr(tokenized, "DatasetReader", None)
    # Another share is held out of the same tokens, and the file may have moved.
    (tmp_path / "elsewhere").mkdir()
    for folder, percent in ((tmp_path, 10.0), (tmp_path / "elsewhere", 25.0)):
        again = made(folder, chat_rows(12), tokenizer, eval_percent=percent)
        assert again.dataset == first.dataset
        assert [*again.training, *again.evaluation] != []
        assert len(again.evaluation) == round(12 * percent / 100)
    changes: list[dict[str, Any]] = [{"train_on": "all"}, {"max_rows": 5}, {"format": "messages"}]
    for changed in changes:
        with pytest.raises(TypeError):
            made(tmp_path, chat_rows(12), tokenizer, **changed)
    for rows, length in ((chat_rows(13), 64), (chat_rows(12), 63)):
        with pytest.raises(TypeError):
            made(tmp_path, rows, tokenizer, length)


def test_other_templates_have_other_tokens(tmp_path: Path) -> None:
    found: set[int] = set()
    for mark in ("", "!", "!!"):
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = TEMPLATE.replace("'\\n' + message", f"'{mark}\\n' + message")
        found.add(int(made(tmp_path, chat_rows(5), tokenizer).store.starts[-1]))
    assert len(found) == 3


def test_a_file_that_changed_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", chat_rows(5))
    sha256 = dataset_sha256(DataSpec(source=str(file)))
    write_jsonl(file, chat_rows(6))
    with pytest.raises(RequestError, match="has changed since this run was made"):
        tokenize_data(DataSpec(source=str(file), sha256=sha256), tokenizer, 64)


def test_replies_out_of_reach_are_refused_by_row(tmp_path: Path, tokenizer: Any) -> None:
    rows = [pair("Why? " * 40, "Because."), pair("Who?", "Mara."), {"x": 1}, pair("And?" * 50, "x")]
    data = made(tmp_path, rows, tokenizer, 40)
    assert (data.dataset.rows, data.dataset.usable, data.dataset.refused_count) == (4, 1, 3)
    assert [one.number for one in data.dataset.refused] == [1, 3, 4]
    assert data.dataset.refused[0].reason == "no reply begins within 40 tokens"
    assert data.dataset.refused[0].snippet.startswith("Why? Why?")
    assert data.dataset.reasons[0] == ("no reply begins within 40 tokens", 2, 1)
    assert list(data.evaluation) == []
    first = next(sentences_about(data))
    assert first.startswith("3 rows are left out: no reply begins within 40 tokens (2 rows, ")


def test_nothing_to_learn_is_a_sentence(tmp_path: Path, tokenizer: Any) -> None:
    rows = [pair("Why? " * 40, "Because.")] * 3
    with pytest.raises(RequestError) as found:
        made(tmp_path, rows, tokenizer, 40)
    assert found.value.field == "train.sequence_length"
    assert str(found.value).startswith("train.sequence_length: no reply begins within 40 tokens")
    refusing = tiny_tokenizer()
    refusing.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(RequestError, match="template refuses it: never"):
        made(tmp_path, rows, refusing)


def test_copies_are_counted_and_stay_on_one_side(tmp_path: Path, tokenizer: Any) -> None:
    rows = [pair(f"Q{n % 10}", f"A{n % 10}") for n in range(50)]
    data: TokenizedData = made(tmp_path, rows, tokenizer, eval_percent=20.0)
    assert data.duplicates == 40
    assert (len(data.training), len(data.evaluation)) == (40, 10)
    assert not {example.tokens for example in data.training} & {
        example.tokens for example in data.evaluation
    }
    assert any(one.startswith("40 rows repeat another row") for one in sentences_about(data))
    same = made(tmp_path, [pair("Q", "A")] * 30, tokenizer)
    assert len(same.evaluation) == 0
    assert any(one.startswith("All 30 rows are the same") for one in sentences_about(same))


def test_what_is_seldom_meant_is_told(tmp_path: Path, tokenizer: Any) -> None:
    rows = [
        pair("Who are you, {{name}}?", "I am {{name}}."),
        pair(f"What is {TURN_END}?", "A mark."),
        pair("[INST] again [/INST]", "yes"),
        *[pair(f"Q{n}", f"A{n} " * 30) for n in range(97)],
    ]
    data = made(tmp_path, rows, tokenizer, 40)
    told = "\n".join(sentences_about(data))
    assert "98 rows (98.0 %) are longer than 40 tokens" in told
    assert "1 row holds letters that are control tokens of this model" in told
    assert "placeholder such as {{name}}" in told
    assert "a chat template had been applied already" in told


def test_the_report_adds_up(tmp_path: Path, tokenizer: Any) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [*chat_rows(60), {"x": 1}])
    spec = DataSpec(source=str(file))
    data = tokenize_data(spec, tokenizer, 90)
    told = json.loads(json.dumps(report(spec, data)))
    assert (told["rows"], told["usable"], told["refused_count"]) == (61, 60, 1)
    assert told["refused"][0]["row"] == 61
    assert told["training_rows"] + told["held_out_rows"] == told["num_examples"] == 60
    assert told["epoch_tokens"] == sum(len(example.tokens) for example in data.training)
    assert told["epoch_trained_tokens"] == sum(
        sum(example.trained[1:]) for example in data.training
    )
    whole = ChatEncoder(tokenizer, 1000, "replies")
    chats = [item for item in read_items(spec) if isinstance(item, tuple)]
    lengths = sorted(len(whole.encode(chat).tokens) for chat in chats)
    assert told["tokens"]["max"] == lengths[-1]
    assert lengths[29] <= told["tokens"]["p50"] <= lengths[30]
    assert told["truncated"] == sum(length > 90 for length in lengths)
    assert sum(told["histogram"]["counts"]) == 60


@pytest.mark.parametrize("lengths", [[5], [3, 3, 3], list(range(1000)), [10] * 99 + [9000]])
def test_a_histogram_holds_every_length_once(lengths: list[int]) -> None:
    import numpy as np

    found = histogram(np.array(lengths))
    edges, counts = found["edges"], found["counts"]
    assert edges == sorted(set(edges))
    assert len(counts) == len(edges) - 1 <= 24
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        assert count == sum(low <= length < high for length in lengths)
    assert sum(counts) == len(lengths)


def test_shown_examples_are_the_trained_ones(tmp_path: Path, tokenizer: Any) -> None:
    rows = [*chat_rows(30), {"x": 1}, pair(f"What is {TURN_END}? é🧜", "A 🧜 mark."), *chat_rows(3)]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    spec = DataSpec(source=str(file))
    data = tokenize_data(spec, tokenizer, 48)
    shown = shown_examples(spec, data, tokenizer, first=25, count=8)
    assert [one["number"] for one in shown] == list(range(25, 33))
    assert [one["row"] for one in shown] == [25, 26, 27, 28, 29, 30, 32, 33]
    assert sum(one["held_out"] for one in shown) == sum(
        24 <= number < 32 for number in data.evaluation.numbers
    )
    for one in shown:
        example = data.store.example(one["number"] - 1)
        assert one["tokens"] == len(example.tokens)
        assert one["trained"] == sum(example.trained[1:])
        pairs = zip(example.tokens, example.trained, strict=True)
        for trained, run in groupby(pairs, key=lambda both: both[1]):
            words = tokenizer.decode([token for token, _ in run])
            text = "".join(piece["text"] for piece in one["pieces"] if piece["trained"] == trained)
            assert words in text
        marks = [piece["text"] for piece in one["pieces"] if piece["control"]]
        assert set(marks) <= {"<|im_start|>", TURN_END}
        assert len(marks) >= 4
    question = next(piece["text"] for piece in shown[6]["pieces"] if not piece["control"])
    assert question == f"user\nWhat is {TURN_END}? é🧜"
    assert shown[6]["question"] == f"What is {TURN_END}? é🧜"
    assert [one["number"] for one in shown_examples(spec, data, tokenizer, 99, 5)] == [34]


def test_plain_text_is_used_whole(tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "story.txt"
    file.write_text("\n".join(f"Mara bakes loaf number {n}." for n in range(400)))
    spec = DataSpec(source=str(file), eval_percent=0.0)
    data = tokenize_data(spec, tokenizer, 32)
    tokens = [token for example in data.training for token in example.tokens]
    assert tokenizer.decode(tokens).split() == file.read_text().split()
    assert all(len(example.tokens) <= 32 for example in data.training)
    assert (data.dataset.format, data.dataset.container) == ("text", "plain text")
    assert data.counts.too_long == 0


def test_a_text_of_its_own_is_learned_with_its_end(tmp_path: Path, tokenizer: Any) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"text": "Mara bakes."}, {"text": "Otto " * 30}])
    spec = DataSpec(source=str(file))
    data = tokenize_data(spec, tokenizer, 32)
    ends = [example.tokens[-1] == tokenizer.eos_token_id for example in data.training]
    assert ends[0]
    assert ends[-1]
    assert ends.count(True) == 2
    (shown,) = shown_examples(spec, data, tokenizer, first=1, count=1)
    assert [(piece["text"], piece["control"]) for piece in shown["pieces"]] == [
        ("Mara bakes.", False),
        (tokenizer.eos_token, True),
    ]
    assert all(piece["trained"] for piece in shown["pieces"])


def test_calls_of_tools_become_words_where_a_template_has_no_place_for_them(
    tmp_path: Path, tokenizer: Any
) -> None:
    call = {"type": "function", "function": {"name": "w", "arguments": '{"city": "Ulm"}'}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "3 degrees."},
    ]
    file = write_jsonl(tmp_path / "rows.jsonl", [{"messages": messages}])
    spec = DataSpec(source=str(file))
    data = tokenize_data(spec, tokenizer, 500)
    (shown,) = shown_examples(spec, data, tokenizer, first=1, count=1)
    trained = [piece["text"] for piece in shown["pieces"] if piece["trained"]]
    assert trained == [
        '{"name": "w", "arguments": {"city": "Ulm"}}',
        TURN_END,
        "3 degrees.",
        TURN_END,
    ]
    assert "user\nResult: 3" in [piece["text"] for piece in shown["pieces"]]
    assert any("has no place for tools: 1 row has calls" in one for one in sentences_about(data))


def test_a_file_with_another_ending_is_read_anew(tmp_path: Path, tokenizer: Any) -> None:
    content = "question,answer\n" + "".join(f"Who is {n}?,Mara {n}\n" for n in range(20))
    formats: list[str] = []
    for name in ("rows.txt", "rows.csv", "copy.csv"):
        (tmp_path / name).write_text(content)
        found = tokenize_data(DataSpec(source=str(tmp_path / name)), tokenizer, 64)
        formats.append(found.dataset.container)
    assert formats[1:] == ["CSV", "CSV"]


def test_rows_that_teach_differently_are_no_copies(tmp_path: Path, tokenizer: Any) -> None:
    def row(first: int, second: int, thought: str = "") -> dict[str, Any]:
        replies = [
            {"role": "assistant", "content": "Yes.", "weight": weight} for weight in (first, second)
        ]
        replies[1]["reasoning_content"] = thought
        asked = {"role": "user", "content": "Go?"}
        return {"messages": [asked, replies[0], asked, replies[1]]}

    data = made(tmp_path, [row(1, 0), row(0, 1), row(1, 1), row(1, 1, "hm")], tokenizer, 200)
    assert data.duplicates == 0
    told = list(sentences_about(data))
    assert any("has no place for thoughts: those of 1 row are not read" in one for one in told)


def test_it_is_told_where_nothing_is_held_out(tmp_path: Path, tokenizer: Any) -> None:
    few = made(tmp_path, [pair("Q1", "A1"), pair("Q2", "A2")], tokenizer)
    assert "No row is held out: 2 rows are too few for 10 %." in sentences_about(few)
    none = made(tmp_path, [pair("Q1", "A1"), pair("Q2", "A2")], tokenizer, eval_percent=0.0)
    assert not any("held out" in one for one in sentences_about(none))
