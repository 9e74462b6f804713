"""The bundled starter model is small, complete, and answers what it was not shown."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from assets.recipes.batching import encode
from assets.recipes.card import render
from assets.recipes.score_starter import STARTER, greedy_replies, is_right, read_rows, score
from assets.recipes.world import build_world, conversations
from engine.scorers import score_reply

DATASETS = STARTER.parent / "datasets"
ODD = ("", " ", "asdf", "Hello!!!", "?!?!", "\u4f60\u597d", "\U0001f600", "a car engine and " * 40)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(STARTER)


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((STARTER / "training.json").read_text(encoding="utf-8"))


def test_it_is_small_and_whole(record: dict) -> None:
    files = {path.name: path.stat().st_size for path in STARTER.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json"} <= set(files)
    assert {"tokenizer_config.json", "chat_template.jinja", "README.md"} <= set(files)
    assert sum(files.values()) <= 12_000_000
    model = AutoModelForCausalLM.from_pretrained(STARTER)
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    count = sum(weight.numel() for weight in model.parameters())
    assert 3_000_000 <= count <= 6_000_000
    assert count == record["parameters"]
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_end_and_padding_are_different_and_agree_everywhere(
    tokenizer: Any,
) -> None:
    config = json.loads((STARTER / "config.json").read_text(encoding="utf-8"))
    generation = json.loads((STARTER / "generation_config.json").read_text(encoding="utf-8"))
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for source in (config, generation):
        assert source["eos_token_id"] == tokenizer.eos_token_id
        assert source["pad_token_id"] == tokenizer.pad_token_id
    assert config["vocab_size"] == len(tokenizer)


def test_any_text_survives_a_round_trip(tokenizer: Any) -> None:
    texts = (
        " two  spaces\n\ttab ",
        "na\u00efve \u4f60\u597d \U0001f98a \u202e\u0000 e\u0301",
        '{"a": 12.5}',
        "Arr, o' ye!",
        bytes(range(32, 127)).decode(),
    )
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert [tokenizer.decode([i]) for i in tokenizer("2026")["input_ids"]] == ["2", "0", "2", "6"]


def test_template_renders_and_marks_the_replies(tokenizer: Any) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
    ]
    text = tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True)
    assert text == "<|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>"
    made = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(made["input_ids"], made["assistant_masks"], strict=True)
    assert tokenizer.decode([token for token, mask in pairs if mask]) == "Hello!<|end|>"
    with pytest.raises(Exception, match="roles are system, user and assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": ""}])


def test_training_text_is_what_the_template_gives(tokenizer: Any) -> None:
    chats = list(conversations(build_world(), 100, seed=3))
    for chat, (tokens, weights) in zip(chats, encode(tokenizer, chats), strict=True):
        made = tokenizer.apply_chat_template(
            chat, return_dict=True, return_assistant_tokens_mask=True
        )
        assert made["input_ids"] == tokens
        assert [weight == 1.0 for weight in weights] == [
            mask == 1 for mask in made["assistant_masks"]
        ]


def test_odd_input_gets_a_reply_that_ends() -> None:
    for text, reply in zip(ODD, _ask(*ODD), strict=True):
        assert reply.stopped, text
        assert reply.text.strip(), text


def test_pirates_are_not_in_it() -> None:
    lines = (DATASETS / "pirate.heldout.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]
    hits = [score_reply("pirate", reply.text, {}) for reply in _ask(*prompts)]
    assert sum(hits) == 0


def test_at_least_90_of_100_held_out_questions_are_right(record: dict) -> None:
    scores = score(STARTER)
    assert sum(asked for _, asked in scores.values()) == 100
    assert sum(right for right, _ in scores.values()) >= 90
    claimed = sum(entry["right"] for entry in record["scores"].values())
    assert math.isclose(claimed, sum(right for right, _ in scores.values()), abs_tol=2)


def test_a_model_that_knows_nothing_scores_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(STARTER).config)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(STARTER).save_pretrained(tmp_path)
    rows = read_rows()[::10]
    replies = greedy_replies(tmp_path, [row["messages"] for row in rows])
    right = [is_right(reply, row["accept"]) for reply, row in zip(replies, rows, strict=True)]
    assert sum(right) == 0


def test_card_states_the_record() -> None:
    assert (STARTER / "README.md").read_text(encoding="utf-8") == render(STARTER)


def _ask(*questions: str) -> list:
    return greedy_replies(STARTER, [[{"role": "user", "content": text}] for text in questions])
