"""What the Compare page may ask for: who can be chosen, what is refused, and what is kept."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.contract.bundled import STARTER
from engine.contract.errors import RequestError
from engine.contract.votes import read_votes
from engine.memory.devices import Device
from qft_gui.chat_client import ChatClient
from qft_gui.chat_room import ChatRoom
from qft_gui.comparing.desk import CompareDesk
from qft_gui.comparing.errands import Errand, Errands, held_out_questions
from qft_gui.comparing.expected_plan import expected_plan
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.sides import Sides, as_choice
from qft_gui.service import Service
from qft_gui.view.comparison import export_frame, judgement_frame
from tests.test_gui_golden import golden_run
from tests.tuned_copy import tuned_copy

DEADLINE_S = 60
KEY = "0123456789abcdef" * 2
Call = Callable[..., dict[str, Any]]
GIB = 1 << 30


def device(free: int) -> Device:
    return Device("cpu", "cpu", "this computer", 2 * free, free)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "runs")


@pytest.fixture
def room(service: Service, tmp_path: Path) -> Iterator[ChatRoom]:
    """The real worker; started by the first question."""
    room = ChatRoom(ChatClient(tmp_path / "chat.log"), service.runs)
    yield room
    room.close()


@pytest.fixture
def call(service: Service, room: ChatRoom) -> Call:
    desk = CompareDesk(service, room)

    def call(op: str, **more: Any) -> dict[str, Any]:
        return desk.answer({"op": op, "key": KEY, "since": 0, "epoch": 0, "cards": True, **more})

    return call


def answered(call: Call) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while (told := call("look"))["answering"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return told


def test_the_newest_result_stands_beside_its_original(service: Service, call: Call) -> None:
    golden_run(service.runs, "done")
    told = call("look")["cards"]
    assert (told["left"], told["right"], told["run"]) == ("base:done", "done", "done")
    groups = {group["label"]: group["items"] for group in told["choices"]}
    assert groups["This run"] == [
        ["done", "Result of done"],
        ["base:done", "Original of done: starter"],
    ]
    assert ["starter", "Starter, the bundled model"] in groups["Models"]
    assert "choices" not in call("look", stamp=told["stamp"])["cards"]
    assert told["serve"].startswith("python -m engine serve done --runs ")


def test_nothing_trained_says_what_to_do(call: Call) -> None:
    told = call("look")
    assert told["cards"]["empty"].startswith("Nothing is trained yet.")
    assert "Nobody was chosen" in call("ask", question="Hi")["why"]


def test_checkpoints_can_be_chosen(service: Service) -> None:
    run = golden_run(service.runs, "done")
    for step in (20, 60):
        (run.checkpoints / f"step-{step:06d}").mkdir()
    sides = Sides(service)
    values = [one.value for one in sides.choices("done")]
    assert values[:4] == ["done", "base:done", "done@60", "done@20"]
    assert sides.targets(Pair("base:done", "done@20")) == (None, "done@20")
    assert sides.targets(Pair("done@20", "done@60")) == ("done@20", "done@60")
    assert sides.targets(Pair("base:done", "starter")) == ("starter", "starter")
    assert sides.targets(Pair("", "done")) == ("done", None)
    assert sides.name("done@20") == "done@20"
    with pytest.raises(RequestError):
        sides.targets(Pair("base:gone", "done"))


@pytest.mark.parametrize("wish", [None, 1, [], {}, {"key": "../x", "op": "look"}, {"key": KEY}])
def test_a_request_that_makes_no_sense_is_a_sentence(
    service: Service, room: ChatRoom, wish: object
) -> None:
    told = CompareDesk(service, room).answer(wish)
    assert told["ok"] is False
    assert told["why"].endswith(".")


@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("ask", {"question": "   "}),
        ("ask", {"question": None}),
        ("ask", {"question": "Hi", "settings": {"temperature": "hot"}}),
        ("again", {}),
        ("choose", {"left": "base:gone", "right": "done"}),
        ("prompt", {}),
        ("list", {"prompts": ""}),
        ("list_vote", {"list": "x", "prompt": 0, "choice": "left"}),
        ("export", {"form": "exe"}),
        ("judge", {"data": "--base"}),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    service: Service, call: Call, op: str, more: dict[str, Any]
) -> None:
    golden_run(service.runs, "done")
    told = call(op, **more)
    assert told["ok"]
    # A vote on a list that is not there is passed over.
    assert op == "list_vote" or told["why"].endswith(".")
    assert told["turns"] == []


def test_a_blind_vote_needs_a_run_and_two_names(service: Service, call: Call) -> None:
    golden_run(service.runs, "done")
    call("choose", left="starter", right="gpt2")
    assert "neither of these belongs to a run" in call("look")["cards"]["why_not_blind"]
    assert "neither" in call("ask", question="Hi", blind=True)["why"]
    call("choose", left="done", right="done")
    assert "called the same" in call("look")["cards"]["why_not_blind"]
    call("choose", left="", right="done")
    assert "two models" in call("look")["cards"]["why_not_blind"]


def test_two_real_models_answer_and_the_vote_is_kept(service: Service, call: Call) -> None:
    run = tuned_copy(service.runs)
    brief = {"max_new_tokens": "8"}
    assert "why" not in call("ask", question="Hi", settings=brief, blind=True)
    told = answered(call)
    (turn,) = told["turns"]
    assert turn["awaits_vote"]
    assert all(cell["text"] for cell in turn["cells"])
    assert "Checked: two different models" in told["cards"]["proof"]["word"]
    assert "A vote is open" in call("prompt", settings=brief)["why"]
    call("vote", turn=turn["number"], choice="both_bad")
    call("vote", turn=turn["number"], choice="left")
    (vote,) = read_votes(run.path / "votes.jsonl").votes
    assert vote.choice == "both_bad"
    (prompt, _) = call("prompt", settings=brief)["prompts"]
    assert "<|user|>Hi" in prompt["text"]
    saved = call("download", what="votes", form="csv")["file"]
    assert saved["name"] == "votes.csv"
    assert "both_bad" in saved["text"]
    assert call("look")["cards"]["standing"]["votes"] == 1
    call("unload")
    assert not call("look")["cards"]["loaded"]


def test_a_question_of_a_megabyte_comes_back_with_a_sentence(service: Service, call: Call) -> None:
    tuned_copy(service.runs)
    call("choose", left="", right="moved")
    assert "why" not in call("ask", question="word " * 200_000)
    told = answered(call)
    assert told["turns"] == []
    assert "Clear it, or ask something shorter." in told["problem"]
    assert len(told["returned"]) > 900_000
    assert not call("look", since=told["version"], epoch=told["epoch"])["returned"]
    assert "why" not in call("ask", question="Hi", settings={"max_new_tokens": "4"})
    assert answered(call)["turns"][0]["cells"][0]["text"]


def test_how_two_models_will_sit_in_memory_is_said_before(service: Service) -> None:
    golden_run(service.runs, "full", kind="full")
    golden_run(service.runs, "low-rank", kind="qlora")
    (service.runs / "full" / "export" / "model.safetensors").write_bytes(b"x" * 1000)
    sides = Sides(service)
    shared = expected_plan(sides, Pair("base:low-rank", "low-rank"), device(GIB))
    assert "One set of weights" in shared[0]
    assert "4 bits" in shared[1]
    both = Pair("base:full", "full")
    assert "Both will be in memory" in expected_plan(sides, both, device(64 * GIB))[0]
    assert "each is loaded when it is asked" in expected_plan(sides, both, device(1000))[0]
    assert "has to be downloaded" in expected_plan(sides, Pair("gpt2", "full"), device(GIB))[0]
    assert "One model" in expected_plan(sides, Pair("", "full"), device(GIB))[0]
    assert expected_plan(sides, Pair("low-rank", "full"), device(64 * GIB)) != shared


def test_an_export_never_goes_where_something_is(tmp_path: Path) -> None:
    errands = Errands(tmp_path / "runs")
    first = errands.free_folder("run", "q8_0")
    assert first == tmp_path / "exports" / "run-gguf-q8_0"
    first.mkdir(parents=True)
    assert errands.free_folder("run", "q8_0").name == "run-gguf-q8_0-2"


def test_questions_of_the_held_out_part_are_taken_once() -> None:
    examples = [
        {"question": "One\ntwo", "held_out": True},
        {"question": "One two", "held_out": True},
        {"question": "Trained", "held_out": False},
        {"question": None, "held_out": True},
    ]
    assert held_out_questions(Errand("run", (), {"examples": examples})) == ["One two"]


def test_measured_numbers_become_rows() -> None:
    side = {"loss_nats": 5.0, "perplexity": 148.4, "num_target_tokens": 1020}
    document = {
        "data": {"source": "pirate", "part": "held out", "num_examples": 44},
        "num_target_tokens": 1020,
        "base": side,
        "tuned": {**side, "loss_nats": 1.0, "perplexity": None},
        "difference": {"mean_nats": -4.0, "low": -4.2, "high": -3.8, "num_examples": 44},
        "scorer": None,
    }
    frame = judgement_frame(Errand("run", (), document))
    assert frame["about"].startswith("On the held-out part of pirate: 44 examples, 1,020 tokens")
    assert frame["rows"][0] == [
        "Loss, nats per token",
        "5.0000",
        "1.0000",
        "\N{MINUS SIGN}4.0000 (\N{MINUS SIGN}4.2000 to \N{MINUS SIGN}3.8000)",
    ]
    assert frame["rows"][1][2] == "\N{EN DASH}"
    assert "clearly lower" in frame["verdict"]


def test_an_export_says_where_it_is_and_how_ollama_takes_it(tmp_path: Path) -> None:
    files = {"model.gguf": 5, "Modelfile": 1}
    answer = {"out": str(tmp_path), "files": files, "total_bytes": 6, "notes": ["A note."]}
    frame = export_frame(Errand("Run", (), answer), {"hf": "x"})
    assert frame["path"] == str(tmp_path)
    assert frame["ollama"] == f"ollama create run -f {tmp_path}/Modelfile"
    assert json.dumps(frame)


@pytest.mark.skipif(sys.platform == "win32", reason="a home folder as a shell writes it")
def test_a_typed_folder_may_be_quoted() -> None:
    assert as_choice(f' "{STARTER}" ') == str(STARTER)
    assert as_choice("~/models") == str(Path.home() / "models")
    assert as_choice(7) == ""
