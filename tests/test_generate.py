"""Replies come piece by piece, whole letters only, and stop where they should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import engine.generate
from engine.contract.errors import RequestError
from engine.conversation import checked_messages, fitting_prompt
from engine.data.chat import ChatEncoder
from engine.evaluate import SAMPLE_TOKENS, held_out_loss, sample_replies
from engine.generate import Reply, Sampling, end_tokens, never, reply_to
from engine.model import LoadedModel, load_model
from engine.pieces import TimedPieces
from engine.sampling import sampling_from
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
    pieces: list[str] = []
    sampling = Sampling(max_new_tokens=100)
    reply = reply_to(
        taught.model, taught.tokenizer, ASK, sampling, pieces.append, lambda: len(pieces) >= 3
    )
    assert reply.stopped == "stop"
    assert len(pieces) == 3
    assert "".join(pieces) == reply.text
    assert LEARNED.startswith(reply.text)
    assert not any(module._forward_pre_hooks for module in taught.model.modules())


@pytest.mark.parametrize("layers", range(3))
def test_it_stops_before_a_layer_of_the_prompt(taught: LoadedModel, layers: int) -> None:
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > layers

    reply, pieces = ask(taught, Sampling(max_new_tokens=100), stop)
    assert (reply.stopped, reply.num_tokens, reply.text, pieces) == ("stop", 0, "", [])
    assert len(asked) == layers + 1
    assert ask(taught, Sampling(max_new_tokens=100))[0].text == LEARNED


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


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2", "gpt2", "mixtral"])
def test_a_prompt_in_parts_is_read_as_a_whole_one(
    tiny_folder: Callable[[str], Path], architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(tiny_folder(architecture), torch.float32)
    messages, sampling = chat_of(loaded, 100), Sampling(max_new_tokens=12)
    whole = reply_to(loaded.model, loaded.tokenizer, messages, sampling)
    monkeypatch.setattr(engine.generate, "PROMPT_PART", 16)
    parts = reply_to(loaded.model, loaded.tokenizer, messages, sampling)
    assert parts.text == whole.text
    assert parts.prompt_tokens == whole.prompt_tokens == 100


def turns(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(contents)]


def test_the_oldest_turns_are_left_out_and_counted(random_model: LoadedModel) -> None:
    tokenizer = random_model.tokenizer
    system = {"role": "system", "content": "Be kind."}
    talk = turns(*(letter * 20 for letter in "ABCDEFG"))
    whole = fitting_prompt(tokenizer, [system, *talk], None, 10)
    assert (whole.dropped_turns, whole.room) == (0, 10)
    for context in range(len(whole.tokens) + 10, 60, -1):
        prompt = fitting_prompt(tokenizer, [system, *talk], context, 10)
        assert "Be kind." in prompt.text
        assert prompt.dropped_turns % 2 == 0
        kept = talk[prompt.dropped_turns :]
        assert all(one["content"] in prompt.text for one in kept)
        assert not any(one["content"] in prompt.text for one in talk[: prompt.dropped_turns])
        assert len(prompt.tokens) + prompt.room <= context
        if prompt.dropped_turns < 6:
            assert prompt.room == 10
        if prompt.dropped_turns:
            more = fitting_prompt(tokenizer, [system, *talk[prompt.dropped_turns - 2 :]], None, 10)
            assert len(more.tokens) + 10 > context
    assert fitting_prompt(tokenizer, [system, *talk], 90, 10).dropped_turns == 6
    with pytest.raises(RequestError, match="tokens long and the model reads 30"):
        fitting_prompt(tokenizer, [system, *talk], 30, 10)
    system = {"role": "system", "content": "Be kind. " * 500}
    with pytest.raises(RequestError, match=r"most of it the system prompt, .* reads 30") as found:
        fitting_prompt(tokenizer, [system, *talk], 30, 10)
    assert found.value.advice == "Shorten the system prompt."


def test_a_reply_says_how_much_of_the_conversation_was_read(random_model: LoadedModel) -> None:
    talk = turns(*("Q" * 40 for _ in range(7)))
    reply = reply_to(random_model.model, random_model.tokenizer, talk, Sampling(max_new_tokens=8))
    assert reply.dropped_turns > 0
    assert reply.prompt_tokens <= CONTEXT - 8


def test_fewer_words_to_draw_from(random_model: LoadedModel) -> None:
    likeliest = ask(random_model, Sampling(max_new_tokens=12))[0].text
    for narrow in (Sampling(3, 5.0, 12, top_k=1), Sampling(3, 5.0, 12, top_p=1e-6)):
        assert ask(random_model, narrow)[0].text == likeliest
    free = ask(random_model, Sampling(3, 5.0, 12, top_k=0, top_p=1.0))[0].text
    assert free != likeliest
    punished = ask(random_model, Sampling(max_new_tokens=12, repetition_penalty=9.0))[0]
    assert punished.text != likeliest


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"temperature": float("nan")}, "nan is not a number from 0 to 10"),
        ({"temperature": "hot"}, "hot is not a number"),
        ({"temperature": True}, "True is not a number"),
        ({"temperature": -1}, "-1 is not a number"),
        ({"top_p": 0}, "no word is left"),
        ({"top_p": 1.5}, "1.5 is not a number from 0 to 1"),
        ({"top_k": -1}, "-1 is not a whole number"),
        ({"top_k": 2.5}, "2.5 is not a whole number"),
        ({"repetition_penalty": 0}, "0.01 or more"),
        ({"temperature": 1e-38}, "nothing but the likeliest word"),
        ({"repetition_penalty": float("inf")}, "inf is not a number"),
        ({"temperature": -1.0}, "-1 is not a number from 0 to 10."),
        ({"max_new_tokens": 0}, "0 is not a whole number from 1 to 1,048,576."),
        ({"seed": 10**22}, "10,000,000,000,000,000,000,000 is not a whole number from 0 to 9,223,"),
        ({"max_new_tokens": 10**30}, "is not a whole number"),
        ({"seed": -3}, "-3 is not a whole number from 0"),
        ({"seed": [1]}, "is not a whole number"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(request_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError) as found:
        sampling_from(request_)
    assert sentence in found.value.message
    assert found.value.field == next(iter(request_))


def test_settings_that_are_missing_are_the_usual_ones() -> None:
    assert sampling_from({"temperature": None, "messages": []}) == Sampling()
    asked = {"seed": 3.0, "temperature": 1, "max_new_tokens": 7, "top_p": 0.5, "top_k": 0}
    assert sampling_from(asked) == Sampling(3, 1.0, 7, 0.5, 0)


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([], "the question is empty"),
        (turns(" \n"), "the question is empty"),
        (turns("A", "B"), "the question is empty"),
        ("Hello", "no list of objects"),
        ([["user", "Hi"]], "no list of objects"),
        ([{"role": "user", "content": ["Hi"]}], "no text of"),
        ([{"role": "tool", "content": "Hi"}], "no text of"),
        (turns("\ud800"), "not UTF-8"),
    ],
)
def test_messages_that_cannot_be_are_one_sentence(messages: Any, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        checked_messages(messages)


def test_the_system_message_comes_first() -> None:
    asked = turns("Hi")
    assert checked_messages(asked, " ") == asked
    assert checked_messages(asked, "Be kind.")[0] == {"role": "system", "content": "Be kind."}


def test_pieces_are_told_together() -> None:
    told: list[str] = []
    pieces = TimedPieces(told.append, every_s=60)
    for word in ("One ", "two ", "three"):
        pieces.add(word)
    assert told == ["One "]
    pieces.flush()
    pieces.flush()
    assert told == ["One ", "two three"]
    pieces = TimedPieces(told.append, every_s=0)
    pieces.add("four")
    assert told[-1] == "four"
