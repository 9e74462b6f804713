"""Replies come piece by piece, whole letters only, and stop where they should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.contract.errors import RequestError
from engine.data.chat import ChatEncoder
from engine.evaluate import SAMPLE_TOKENS, held_out_loss, sample_replies
from engine.generate import Reply, Sampling, end_tokens, never, reply_to
from engine.model import LoadedModel, load_model
from tests.tiny import CONTEXT, prepared, tiny_model_folder, tiny_spec, write_jsonl

LEARNED = "\u00dcber 20 \u20ac \U0001f9dc\u200d\u2640\ufe0f, \u6f6e!"
QUESTION = "What did you learn?"
ASK = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Knows one reply by heart; some of its letters take several tokens."""
    root = tmp_path_factory.mktemp("taught")
    folder = tiny_model_folder(root / "model", dtype=torch.float32)
    data = write_jsonl(root / "one.jsonl", [{"instruction": QUESTION, "output": LEARNED}])
    one = prepared(tiny_spec(folder, data, "full", batch_size=1), root / "runs")
    for step in range(1, 61):
        one.method.step(one.batches(step), 1e-2, step)
    one.loaded.model.eval()
    return one.loaded


@pytest.fixture(scope="module")
def random_model(tiny_folder: Callable[[str], Path]) -> LoadedModel:
    """Says any bytes at all, mostly no letters."""
    loaded = load_model(tiny_folder("llama"), torch.float32)
    loaded.model.eval()
    return loaded


def ask(
    loaded: LoadedModel, sampling: Sampling, stop: Callable[[], bool] = never
) -> tuple[Reply, list[str]]:
    pieces: list[str] = []
    reply = reply_to(loaded.model, loaded.tokenizer, ASK, sampling, pieces.append, stop)
    return reply, pieces


def test_a_reply_comes_letter_by_letter_and_stops_at_its_end(taught: LoadedModel) -> None:
    reply, pieces = ask(taught, Sampling(max_new_tokens=100))
    assert reply.text == LEARNED
    assert "".join(pieces) == LEARNED
    assert len(pieces) > 5
    assert all(piece and "\ufffd" not in piece for piece in pieces)
    assert reply.stopped == "end"
    tokens = taught.tokenizer(LEARNED, add_special_tokens=False)["input_ids"]
    assert reply.num_tokens == len(tokens) > len(LEARNED)
    assert 0 < reply.first_token_s <= reply.seconds


def test_cut_at_any_length_no_letter_is_split(taught: LoadedModel) -> None:
    tokens = taught.tokenizer(LEARNED, add_special_tokens=False)["input_ids"]
    for length in range(1, len(tokens)):
        reply, pieces = ask(taught, Sampling(max_new_tokens=length))
        assert reply.num_tokens == length
        assert reply.stopped == "length"
        assert LEARNED.startswith(reply.text)
        assert "".join(pieces) == reply.text
    reply, _ = ask(taught, Sampling(max_new_tokens=len(tokens) + 1))
    assert reply.stopped == "end"


def test_it_stops_on_request(taught: LoadedModel) -> None:
    asked = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) == 4

    reply, pieces = ask(taught, Sampling(max_new_tokens=100), stop)
    assert reply.stopped == "stop"
    assert reply.num_tokens == len(asked) == 4
    assert "".join(pieces) == reply.text
    assert LEARNED.startswith(reply.text)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_a_model_says_the_pieces_are_the_reply(
    random_model: LoadedModel, seed: int
) -> None:
    sampling = Sampling(seed=seed, temperature=1.5, max_new_tokens=60)
    reply, pieces = ask(random_model, sampling)
    assert "".join(pieces) == reply.text
    assert len(reply.text) > 5
    assert reply.num_tokens <= 60


def test_the_seed_decides_a_sample_and_nothing_else_does(random_model: LoadedModel) -> None:
    hot = [
        ask(random_model, Sampling(seed=seed, temperature=1.0, max_new_tokens=12))[0].text
        for seed in (1, 1, 2)
    ]
    assert hot[0] == hot[1] != hot[2]
    torch.manual_seed(99)
    assert ask(random_model, Sampling(1, 1.0, 12))[0].text == hot[0]
    cold = {ask(random_model, Sampling(seed, 0.0, 12))[0].text for seed in (1, 2)}
    assert len(cold) == 1


def test_settings_of_the_model_do_not_change_the_likeliest(random_model: LoadedModel) -> None:
    """Many models come with settings that sample; temperature 0 is the likeliest all the same."""
    model: Any = random_model.model
    expected = ask(random_model, Sampling(max_new_tokens=10))[0].text
    before = model.generation_config.to_dict()
    model.generation_config.update(do_sample=True, temperature=2.0, top_k=5, top_p=0.5)
    try:
        assert ask(random_model, Sampling(max_new_tokens=10))[0].text == expected
    finally:
        model.generation_config.update(**before)


def test_either_end_token_ends_a_reply(taught: LoadedModel) -> None:
    model: Any = taught.model
    before = model.generation_config.eos_token_id
    turn_end = taught.tokenizer.eos_token_id
    comma = taught.tokenizer(",")["input_ids"][0]
    model.generation_config.eos_token_id = [comma]
    try:
        assert end_tokens(model, taught.tokenizer) == {comma, turn_end}
        reply, _ = ask(taught, Sampling(max_new_tokens=100))
    finally:
        model.generation_config.eos_token_id = before
    assert reply.stopped == "end"
    assert reply.text.rstrip(",") == LEARNED.partition(",")[0]


def chat_of(loaded: LoadedModel, length: int) -> list[dict[str, str]]:
    """A question that makes a prompt of so many tokens."""
    encoder = ChatEncoder(loaded.tokenizer, 10_000, "replies")
    empty = len(encoder.prompt_tokens([{"role": "user", "content": ""}]))
    messages = [{"role": "user", "content": "Q" * (length - empty)}]
    assert len(encoder.prompt_tokens(messages)) == length
    return messages


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt"])
def test_a_full_context_is_told_and_an_almost_full_one_is_used(
    tiny_folder: Callable[[str], Path], architecture: str
) -> None:
    loaded = load_model(tiny_folder(architecture))
    assert loaded.max_position == CONTEXT
    messages = chat_of(loaded, CONTEXT - 2)
    reply = reply_to(loaded.model, loaded.tokenizer, messages, Sampling(max_new_tokens=50))
    assert reply.num_tokens <= 2
    for length in (CONTEXT, CONTEXT + 40):
        with pytest.raises(RequestError, match=f"{length} tokens long and the model reads 160"):
            reply_to(loaded.model, loaded.tokenizer, chat_of(loaded, length), Sampling())


def test_samples_and_held_out_loss_leave_the_model_as_it_was(random_model: LoadedModel) -> None:
    random_model.model.train()
    try:
        items = sample_replies(random_model, [QUESTION, "And?"], never)
        assert [item["prompt"] for item in items] == [QUESTION, "And?"]
        again = sample_replies(random_model, [QUESTION, "And?"], never)
        assert again == items
        assert all(len(random_model.tokenizer(i["reply"])["input_ids"]) > 1 for i in items)
        assert SAMPLE_TOKENS < CONTEXT
        assert sample_replies(random_model, [QUESTION], lambda: True) == []
        cpu = torch.device("cpu")
        assert held_out_loss(random_model, [], 4, cpu, never) is None
        assert random_model.model.training
    finally:
        random_model.model.eval()
