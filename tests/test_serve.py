"""OpenAI's own client talks to a model that `serve` serves, over a real socket."""

from __future__ import annotations

import gc
import http.client
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import openai
import pytest
import torch

import engine.serving.answerer
from engine.commands.parser import main
from engine.commands.serve import answering
from engine.contract.bundled import STARTER
from engine.contract.device_lock import DeviceBusyError, claim_device, holder_of
from engine.contract.run_dir import default_runs
from engine.generate import Reply, Sampling, reply_to
from engine.model import LoadedModel, load_model
from engine.serving.answerer import Answerer
from engine.serving.wire import StopText
from engine.target import find_target
from tests.serving import HELLO, TOKEN, WAITING, asked, client_of, command_serving, raw, served
from tests.workshop import wait_until

KEY = "GPU-00000000-serve"


@pytest.fixture(scope="module")
def starter() -> LoadedModel:
    return load_model(STARTER)


@pytest.fixture(scope="module")
def port(starter: LoadedModel) -> Iterator[int]:
    with served(starter) as port:
        yield port


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[openai.OpenAI]:
    with client_of(port) as client:
        yield client


def expected_reply(starter: LoadedModel, **sampling: Any) -> Reply:
    sampling = {"max_new_tokens": 24, **sampling}
    return reply_to(starter.model, starter.tokenizer, HELLO, Sampling(**sampling))


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["starter"]
    assert client.models.retrieve("starter").owned_by == "qft-workbench"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4' here"):
        client.models.retrieve("gpt-4")


def test_it_answers_as_ask_does(client: openai.OpenAI, starter: LoadedModel) -> None:
    expected = expected_reply(starter)
    answer = asked(client)
    (choice,) = answer.choices
    assert choice.message.content == expected.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == ("length" if expected.stopped == "length" else "stop")
    assert answer.usage.prompt_tokens == expected.prompt_tokens
    assert answer.usage.completion_tokens == expected.num_tokens
    assert answer.usage.total_tokens == expected.prompt_tokens + expected.num_tokens
    assert answer.model == "starter"
    assert answer.id.startswith("chatcmpl-")


def test_streamed_it_is_the_same(client: openai.OpenAI, starter: LoadedModel) -> None:
    chunks = list(asked(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    expected = expected_reply(starter)
    assert text == expected.text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    assert reasons[-1] in ("stop", "length")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == expected.num_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len(reasons) > 5


def test_settings_reach_the_model(client: openai.OpenAI, starter: LoadedModel) -> None:
    hot: dict[str, Any] = {"temperature": 1.5, "seed": 5, "top_p": 0.9}
    expected = expected_reply(starter, **hot)
    assert [asked(client, **hot).choices[0].message.content for _ in range(2)] == [
        expected.text,
        expected.text,
    ]
    assert asked(client, max_tokens=3).usage.completion_tokens == 3
    assert asked(client, max_tokens=3).choices[0].finish_reason == "length"
    newer = client.chat.completions.create(
        model="starter", messages=HELLO, max_completion_tokens=2, temperature=0
    )
    assert newer.usage is not None
    assert newer.usage.completion_tokens == 2
    without_seed: set[str | None] = set()
    for _ in range(60):  # one answer is likely, so that a few may well be alike
        without_seed.add(asked(client, temperature=1.5).choices[0].message.content)
        if len(without_seed) > 1:
            break
    assert len(without_seed) > 1


def test_a_stop_text_ends_it_and_is_no_part_of_it(
    client: openai.OpenAI, starter: LoadedModel
) -> None:
    whole = expected_reply(starter).text
    middle = whole[len(whole) // 2 : len(whole) // 2 + 3]
    before = whole.partition(middle)[0]
    answer = asked(client, stop=["~never~", middle])
    assert answer.choices[0].message.content == before
    assert answer.choices[0].finish_reason == "stop"
    chunks = asked(client, stop=middle, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == before


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_text_before_a_stop_is_passed_on_whatever_its_pieces(size: int) -> None:
    text = "abcabcabdabXYZ rest"
    for stops, expected in (
        (("abd",), "abcabc"),
        (("zzz", "XYZ"), "abcabcabdab"),
        (("rests",), text),
        ((), text),
    ):
        stop_text = StopText(stops)
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert "".join(map(stop_text.take, pieces)) + stop_text.rest() == expected


def test_messages_in_parts_and_a_developer(client: openai.OpenAI, starter: LoadedModel) -> None:
    parts: list[Any] = [
        {"role": "developer", "content": "Be kind."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}],
        },
    ]
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello!"}]
    sampling = Sampling(max_new_tokens=24)
    expected = reply_to(starter.model, starter.tokenizer, messages, sampling).text
    assert asked(client, messages=parts).choices[0].message.content == expected


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"messages": []}, "the question is empty"),
        ({"messages": [{"role": "user", "content": " "}]}, "the question is empty"),
        ({"messages": [{"role": "user", "content": "x" * 1_000_000}]}, "tokens long and"),
        ({"top_p": 0}, "no word is left to choose"),
        ({"temperature": 11}, "11 is not a number from 0 to 10"),
        ({"max_tokens": 0}, "0 is not a whole number"),
        ({"n": 2}, "this server does not do that"),
        ({"logprobs": True}, "this server does not do that"),
        ({"web_search_options": {}}, "this server does not do that"),
        ({"stop": ["a"] * 5}, "not one to four texts"),
        ({"stop": [""]}, "not one to four texts"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "a part of one is no text",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_is_one_sentence(
    client: openai.OpenAI, settings: dict[str, Any], sentence: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError, match=sentence) as found:
        asked(client, stream=stream, **settings)
    assert found.value.param == next(iter(settings)) or found.value.param == "max_new_tokens"
    assert asked(client, max_tokens=1).choices


def test_another_model_is_not_pretended(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4o' here, but 'starter'"):
        client.chat.completions.create(model="gpt-4o", messages=HELLO)


class Hung:
    """A model that thinks until it is told to stop, and says when it begins and ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: str = "Well, ") -> None:
        self.begun, self.ended = 0, 0
        self._first = first
        monkeypatch.setattr(engine.serving.answerer, "reply_to", self)

    def __call__(self, *arguments: Any) -> Reply:
        on_text, stop = arguments[4], arguments[5]
        self.begun += 1
        on_text(self._first)
        deadline = time.monotonic() + 30
        while not stop():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.ended += 1
        return Reply("Well, ", 2, 0.1, 0.1, "stop")


@contextmanager
def asking(port: int, stream: bool = False) -> Iterator[http.client.HTTPConnection]:
    """A connection on which a question has been sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"messages": HELLO, "stream": stream}).encode()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    try:
        yield connection
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("stream", "first"),
    [(False, "Well, "), (True, "Well, "), (True, "")],
    ids=["whole", "streamed", "streamed, before its first piece"],
)
def test_a_client_that_goes_away_stops_its_answer(
    port: int, monkeypatch: pytest.MonkeyPatch, stream: bool, first: str
) -> None:
    hung = Hung(monkeypatch, first)
    with asking(port, stream) as connection:
        wait_until(lambda: hung.begun)
        if stream and first:
            with connection.getresponse() as answer:
                assert answer.readline().startswith(b"data: ")
        assert not hung.ended
    wait_until(lambda: hung.ended)  # it would think for longer than this waits


def fill(port: int, answerer: Answerer, stack: ExitStack, count: int) -> None:
    """Questions that wait, and are there."""
    before = answerer.num_waiting
    for _ in range(count):
        stack.enter_context(asking(port))
    wait_until(lambda: answerer.num_waiting == before + count)


def test_a_full_queue_says_so(starter: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = Hung(monkeypatch)
    answerer = Answerer(starter, WAITING)
    with served(starter, answerer=answerer) as port, ExitStack() as stack:
        stack.enter_context(asking(port))
        wait_until(lambda: hung.begun)
        with ExitStack() as waiting:
            fill(port, answerer, waiting, WAITING)
            with client_of(port) as client, pytest.raises(openai.RateLimitError, match="Too many"):
                asked(client)
        # Who went away leaves its place, though nothing has been answered meanwhile.
        wait_until(lambda: answerer.num_waiting == 0)
        fill(port, answerer, stack, WAITING)
        assert (hung.begun, hung.ended) == (1, 0)
        stack.close()
        wait_until(lambda: hung.ended == hung.begun)
        monkeypatch.undo()
        assert raw(port)[0] == 200


def test_a_model_that_fails_is_told_and_the_server_lives(
    port: int, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Reply:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine.serving.answerer, "reply_to", fail)
        with pytest.raises(openai.InternalServerError, match="not enough memory"):
            asked(client)
        with pytest.raises(openai.InternalServerError, match="not enough memory"):
            asked(client, stream=True)
    assert asked(client, max_tokens=1).choices


@pytest.mark.parametrize("early", [True, False])
def test_how_a_model_failed_is_for_the_server_alone(
    client: openai.OpenAI,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    early: bool,
) -> None:
    def fail(*arguments: Any) -> Reply:
        if not early:
            arguments[4]("Well, ")
        raise OSError(2, "No such file", "/home/somebody/secret.bin")

    with monkeypatch.context() as patch:
        patch.setattr(engine.serving.answerer, "reply_to", fail)
        with pytest.raises(openai.APIError, match="The model failed") as found:
            list(asked(client, stream=True))
    assert "secret" not in str(found.value)
    assert "/home/somebody/secret.bin" in capfd.readouterr().err
    assert asked(client, max_tokens=1).choices


@pytest.mark.parametrize(
    ("arguments", "field", "sentence"),
    [
        (["--host", "0.0.0.0"], "--token", "others can reach 0.0.0.0, so a token is needed."),
        (["--token", ""], "--token", "it is empty"),
        (["--token", "a b"], "--token", "characters that no header has"),
        (["--token", TOKEN[:15]], "--token", "it has 15 letters, and fewer than 16 can be guessed"),
        (["--token", TOKEN, "--fresh-token"], "--fresh-token", "a token is named too"),
        (["--port", "70000"], "--port", "70000 is no port."),
        (
            ["--host", "256.1.1.1", "--token", TOKEN],
            "--port",
            "256.1.1.1:8000 cannot be listened on",
        ),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    arguments: list[str], field: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "starter", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{field}: ")
    assert sentence in error


def test_a_port_that_is_taken_is_one_sentence(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "starter", "--port", str(port)]) == 2
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err


def test_the_command_serves_a_model_until_ctrl_c() -> None:
    with command_serving(QFT_SERVE_TOKEN=TOKEN) as (process, port):
        with client_of(port, TOKEN) as client:
            assert asked(client, max_tokens=2).choices
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 3
        assert b"Traceback" not in said
        assert b"not encrypted" not in said


def test_the_device_is_held_until_the_server_ends() -> None:
    target = find_target("starter", default_runs())
    with answering(target, "cpu", key_of=lambda device: KEY):
        gc.collect()
        with pytest.raises(DeviceBusyError):
            claim_device(KEY, "chat", "another")
        holder = holder_of(KEY)
        assert holder is not None
        assert holder.purpose == "serving"
    assert holder_of(KEY) is None
