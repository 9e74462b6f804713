"""The chat client, first against a small worker of our own that misbehaves on request."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.contract.bundled import STARTER
from engine.contract.launch import PROJECT
from qft_gui import chat_process
from qft_gui.chat_client import ChatClient, ChatError
from tests.waiting import until

SAMPLING: dict[str, Any] = {"seed": 0, "temperature": 0.0, "max_new_tokens": 64}

FAKE_WORKER = """
import json, os, queue, sys, threading, time

requests, stopped, loads = queue.Queue(), set(), 0


def send(number, event, **fields):
    print(json.dumps({"id": number, "event": event, **fields}), flush=True)


def read():
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "stop":
            stopped.add(request["target"])
        else:
            requests.put(request)
    if "deaf" not in sys.argv:
        os._exit(0)


def load(number, base):
    global loads
    loads += 1
    if base == "missing":
        send(number, "error", message="There is no such model.", advice="Choose another.")
    else:
        if base == "stray":
            print("a stray line")
            print("[1]")
        send(number, "loading", side="a", name=base, plan="alone", num_bytes=8, expected_s=None)
        send(number, "loaded", different=False, largest_difference=0.0, seconds=float(loads))


def answer(number, side, word, limit):
    if word in ("fail", "lose", "old"):
        there = {"fail": {"loaded": True}, "lose": {"loaded": False}, "old": {}}[word]
        return send(number, "error", message="It is too long.", advice="Clear it.", **there)
    if word == "die":
        sys.exit("0%\\r50%\\rthe disk is on fire")
    if word == "kill":
        os.kill(os.getpid(), 9)
    for count in range(limit):
        if number in stopped:
            break
        send(number, "text", side=side, text=f"{word} ")
        time.sleep(0 if word == "flood" else 0.02)
    send(number, "done", side=side, num_tokens=count, seconds=0.1, first_token_s=0.1,
         stopped="stop" if number in stopped else "length")


sys.stderr.write("The worker starts.\\n")
threading.Thread(target=read, daemon=True).start()
while True:
    request = requests.get()
    if request["op"] == "load":
        load(request["id"], request["a"])
    else:
        for side, messages in request["messages"].items():
            answer(request["id"], side, messages[-1]["content"], request["max_new_tokens"])
        send(request["id"], "end")
"""


def workers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and any("fake_worker" in word or "engine.chat_worker" in word for word in child.cmdline())
    ]


def ask(
    client: ChatClient, word: str, *sides: str, **sampling: Any
) -> Generator[dict[str, Any], None, None]:
    messages: Any = {side: [{"role": "user", "content": word}] for side in sides or ("a",)}
    return client.ask(messages, **{**SAMPLING, **sampling})


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "fake_worker.py"
    script.write_text(FAKE_WORKER)
    return [sys.executable, "-S", str(script)]


@pytest.fixture
def client(tmp_path: Path, command: list[str]) -> Iterator[ChatClient]:
    client = ChatClient(tmp_path / "logs" / "chat.log", command=command)
    yield client
    client.close()
    assert not workers()


def test_a_pair_is_loaded_once(client: ChatClient) -> None:
    assert client.loaded is None
    first = client.load("a", "b")
    assert first == {"different": False, "largest_difference": 0.0, "seconds": 1.0}
    assert client.load("a", "b") == first
    told: list[dict[str, Any]] = []
    client.load("a", "c", on_loading=told.append)
    assert [(event["event"], event["name"]) for event in told] == [("loading", "a")]
    assert client.load("a", "b")["seconds"] == 3.0
    assert client.loaded == ("a", "b")
    assert client.load("a", None)["seconds"] == 4.0
    assert client.loaded == ("a", None)
    assert len(workers()) == 1


def test_stray_output_and_errors_go_to_the_log(client: ChatClient, tmp_path: Path) -> None:
    client.load("stray", None)
    log = (tmp_path / "logs" / "chat.log").read_text()
    assert "The worker starts." in log
    assert "not understood: a stray line" in log


def test_a_model_that_cannot_be_loaded(client: ChatClient) -> None:
    client.load("a", None)
    with pytest.raises(ChatError) as caught:
        client.load("missing", None)
    assert (caught.value.message, caught.value.advice) == (
        "There is no such model.",
        "Choose another.",
    )
    assert client.loaded is None
    assert not client.busy


def test_both_sides_answer(client: ChatClient) -> None:
    client.load("a", "b")
    events = list(ask(client, "hi", "a", "b", max_new_tokens=3))
    kinds = [(event["event"], event["side"]) for event in events]
    assert kinds == [
        *[("text", "a")] * 3,
        ("done", "a"),
        *[("text", "b")] * 3,
        ("done", "b"),
    ]
    assert not any("id" in event for event in events)
    assert not client.busy


def test_nothing_is_asked_before_something_is_loaded(client: ChatClient) -> None:
    with pytest.raises(ChatError, match="No model is loaded"):
        next(ask(client, "hi"))
    assert not client.busy


def test_one_request_at_a_time(client: ChatClient) -> None:
    client.load("a", None)
    answer = ask(client, "hi", max_new_tokens=10)
    next(answer)
    assert client.busy
    with pytest.raises(ChatError, match=r"The chat is busy\."):
        next(ask(client, "hi"))
    with pytest.raises(ChatError, match=r"The chat is busy\."):
        client.load("a", None)
    assert [event["event"] for event in answer][-1] == "done"


def test_stop_ends_the_answer(client: ChatClient) -> None:
    client.load("a", None)
    answer = ask(client, "hi", max_new_tokens=10_000)
    next(answer)
    threading.Timer(0.1, client.stop).start()
    assert list(answer)[-1]["stopped"] == "stop"
    client.stop()


def test_closing_the_answer_stops_the_worker(client: ChatClient) -> None:
    client.load("a", None)
    answer = ask(client, "hi", max_new_tokens=10_000)
    next(answer)
    answer.close()
    assert len(list(ask(client, "again", max_new_tokens=2))) == 3
    assert not client.busy


def test_an_answer_that_is_never_begun_holds_nothing(client: ChatClient) -> None:
    client.load("a", None)
    unread = ask(client, "hi")
    assert not client.busy
    assert len(list(ask(client, "hi", max_new_tokens=2))) == 3
    del unread


def test_the_worker_is_drained_though_nobody_reads(client: ChatClient) -> None:
    client.load("a", None)
    answer = ask(client, "flood", max_new_tokens=5_000)
    next(answer)
    until(lambda: not client.busy)
    assert len(list(answer)) == 5_000


def test_a_question_that_is_refused_leaves_the_models_where_they_are(client: ChatClient) -> None:
    client.load("a", None)
    with pytest.raises(ChatError) as caught:
        list(ask(client, "fail"))
    assert caught.value.advice == "Clear it."
    assert client.loaded == ("a", None)
    assert client.load("a", None)["seconds"] == 1.0
    assert len(list(ask(client, "hi", max_new_tokens=2))) == 3


@pytest.mark.parametrize("word", ["lose", "old"])
def test_an_error_that_took_the_models_has_them_loaded_again(client: ChatClient, word: str) -> None:
    client.load("a", None)
    with pytest.raises(ChatError):
        list(ask(client, word))
    assert client.loaded is None
    assert client.load("a", None)["seconds"] == 2.0


def test_a_conversation_longer_than_the_worker_reads(client: ChatClient) -> None:
    client.load("a", None)
    with pytest.raises(ChatError, match="too long"):
        next(ask(client, "x" * 5_000_000))
    assert not client.busy


@pytest.mark.parametrize("word", ["\ud800", "\0", "\u2028\r\n", "é 👋🏽 שלום"])
def test_any_text_arrives_whole(client: ChatClient, word: str) -> None:
    client.load("a", None)
    (text, _) = ask(client, word, max_new_tokens=1)
    assert text["text"] == f"{word} "


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("kill", "most likely for lack of memory. Its last words: The worker starts."),
        ("die", "with code 1. Its last words: the disk is on fire"),
    ],
)
def test_a_worker_that_dies_is_named_and_replaced(
    client: ChatClient, word: str, sentence: str
) -> None:
    client.load("a", None)
    with pytest.raises(ChatError) as caught:
        list(ask(client, word))
    assert caught.value.message.endswith(sentence)
    assert client.loaded is None
    assert not client.busy
    assert client.load("a", None)["seconds"] == 1.0
    assert len(list(ask(client, "hi", max_new_tokens=1))) == 2


def test_a_worker_that_cannot_start(tmp_path: Path) -> None:
    client = ChatClient(tmp_path / "chat.log", command=[str(tmp_path / "absent")])
    with pytest.raises(ChatError, match="did not start"):
        client.load("a", None)
    (tmp_path / "chat.log").write_text("words of an earlier worker\n")
    client = ChatClient(tmp_path / "chat.log", command=[sys.executable, "-S", "-c", ""])
    with pytest.raises(ChatError, match=r"with code 0\. Load"):
        client.load("a", None)
    assert not client.busy


def test_close_ends_the_answer_and_a_load_starts_again(client: ChatClient) -> None:
    client.load("a", None)
    answer = ask(client, "hi", max_new_tokens=10_000)
    next(answer)
    client.close()
    with pytest.raises(ChatError, match="unloaded"):
        list(answer)
    assert not workers()
    client.close()
    assert client.load("a", None)["seconds"] == 1.0


def test_a_deaf_worker_is_killed_in_time(tmp_path: Path, command: list[str]) -> None:
    client = ChatClient(tmp_path / "chat.log", command=[*command, "deaf"])
    client.load("a", None)
    client.close()
    assert not workers()


def test_a_worker_that_even_a_kill_does_not_end_holds_up_nobody(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_process, "KILL_PATIENCE_S", 0.1)
    client = ChatClient(tmp_path / "chat.log", command=[*command, "deaf"])
    client.load("a", None)
    (stuck,) = workers()
    with monkeypatch.context() as patch:
        # As a driver that hangs keeps it.
        patch.setattr(subprocess.Popen, "kill", lambda process: None)
        client.close()
        assert (client.pid, client.loaded) == (None, None)
    assert client.load("a", None)["seconds"] == 1.0
    assert client.pid not in (None, stuck.pid)
    stuck.kill()
    client.close()
    until(lambda: not workers())


def test_the_worker_ends_with_its_window(tmp_path: Path, command: list[str]) -> None:
    window = (
        "import pathlib, time; from qft_gui.chat_client import ChatClient;"
        f"client = ChatClient(pathlib.Path({str(tmp_path / 'log')!r}), command={command!r});"
        "client.load('a', None); print('loaded', flush=True); time.sleep(60)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", window], stdout=pipe, cwd=PROJECT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loaded\n"
        (worker,) = psutil.Process(process.pid).children()
        process.kill()
        until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatClient]:
    """The real worker with the starter model on both sides."""
    client = ChatClient(tmp_path_factory.mktemp("chat") / "chat.log")
    verdict = client.load("starter", str(STARTER))
    assert verdict["different"] is False
    assert verdict["largest_difference"] == 0
    yield client
    client.close()


def text_of(events: list[dict[str, Any]], side: str) -> str:
    return "".join(
        event["text"] for event in events if event["event"] == "text" and event["side"] == side
    )


def test_equal_models_give_equal_answers(chat: ChatClient) -> None:
    events = list(ask(chat, "Hello! Who are you?", "a", "b", temperature=0.8))
    assert text_of(events, "a")
    assert text_of(events, "a") == text_of(events, "b")
    done = [event for event in events if event["event"] == "done"]
    assert [event["side"] for event in done] == ["a", "b"]
    assert all(event["num_tokens"] > 0 for event in done)


def test_the_real_worker_stops_at_once(chat: ChatClient) -> None:
    answer = ask(chat, "Tell me a story.", "a", "b", max_new_tokens=400)
    assert next(answer)["event"] == "text"
    chat.stop()
    assert list(answer)[-1]["stopped"] == "stop"


def test_a_killed_worker_is_replaced(chat: ChatClient) -> None:
    answer = ask(chat, "Tell me a story.", "a", "b", max_new_tokens=400)
    next(answer)
    (worker,) = workers()
    worker.kill()
    with pytest.raises(ChatError, match="lack of memory"):
        list(answer)
    assert chat.loaded is None
    assert chat.load("starter", None)["different"] is False
    assert list(islice(ask(chat, "Hello!"), 1))


def test_the_real_worker_ends_with_its_input(chat: ChatClient) -> None:
    chat.load("starter", None)
    (worker,) = workers()
    chat.close()
    assert not worker.is_running()
