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
from qft_gui.answers import Proof
from qft_gui.chat_client import ChatClient
from qft_gui.chat_room import ChatRoom
from qft_gui.comparing.desk import CompareDesk
from qft_gui.comparing.errands import Errand, Errands, held_out_questions
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.sides import Sides, as_choice
from qft_gui.server import Address
from qft_gui.service import Service
from qft_gui.view.chat import side_name
from qft_gui.view.comparison import export_frame, judgement_frame
from tests.test_gui_golden import golden_run
from tests.tuned_copy import tuned_copy

DEADLINE_S = 60
KEY = "0123456789abcdef" * 2
Call = Callable[..., dict[str, Any]]


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
    # By the run, which knows the commit that its base was pinned to, and what that scored.
    assert sides.targets(Pair("base:done", "starter")) == ("done@base", "starter")
    assert sides.targets(Pair("", "done")) == ("done", None)
    assert sides.name("done@20") == "done@20"
    with pytest.raises(RequestError):
        sides.targets(Pair("base:gone", "done"))
    assert sides.made_of("done@60").is_tuned
    golden_run(service.runs, "other")
    for value, words in (("done@7", "step 7: it has 20, 60"), ("other@7", "step 7: it has none")):
        with pytest.raises(RequestError, match=f"has no checkpoint of {words}."):
            sides.made_of(value)


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
    assert told["why"].endswith(".")
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


def test_an_export_never_goes_where_something_is(tmp_path: Path) -> None:
    errands = Errands(tmp_path / "runs")
    first = errands.free_folder("run", "q8_0")
    assert first == tmp_path / "exports" / "run-gguf-q8_0"
    first.mkdir(parents=True)
    assert errands.free_folder("run", "q8_0").name == "run-gguf-q8_0-2"


def test_an_exports_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    errands = Errands(tmp_path / "runs")
    errands.exports.write_text("A file of that name.")
    with pytest.raises(RequestError, match="could not be made: File exists"):
        errands.export("run", "hf", "")


def test_what_stands_on_the_right_is_judged_and_exported(service: Service, call: Call) -> None:
    run = golden_run(service.runs, "done")
    golden_run(service.runs, "other")
    (run.checkpoints / "step-000020").mkdir()
    for left, right, subject in (
        ("done@20", "other", "other"),
        ("done@20", "starter", "done@20"),
        ("base:done", "done", "done"),
        ("done", "done@20", "done@20"),
    ):
        told = call("choose", left=left, right=right)["cards"]
        assert told["subject"] == subject
        name = subject.replace("@", "-step-")
        usual = told["exported"]["usual"]
        assert Path(usual["hf"]) == service.runs.parent / "exports" / f"{name}-hf"
    # The engine is asked for that very step, of which there is nothing whole here.
    for op in ("judge", "export"):
        assert "why" not in call(op, form="hf")
    for card in ("judged", "exported"):
        deadline = time.monotonic() + DEADLINE_S
        while (told := call("look")["cards"][card])["state"] == "at work":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "has no whole checkpoint of step 20." in told["text"]
    call("choose", left="", right="base:done")
    for op in ("judge", "export"):
        assert "Choose one on the right." in call(op, form="hf")["why"]
    assert "serve done@base --runs " in call("look")["cards"]["serve"]


def test_a_page_for_others_writes_to_no_folder_that_was_typed(
    service: Service, room: ChatRoom, tmp_path: Path
) -> None:
    golden_run(service.runs, "done")
    for is_for_others in (True, False):
        desk = CompareDesk(service, room, is_for_others=is_for_others)
        wish = {"op": "export", "key": KEY, "form": "exe", "folder": str(tmp_path / "mine")}
        assert "There is no such form" in desk.answer(wish)["why"]
        told = desk.answer({**wish, "form": "hf"})
        assert told["cards"]["exported"]["may_type"] is not is_for_others
        if is_for_others:
            assert "writes to no folder that is typed" in told["why"]
            assert f"into {service.runs.parent / 'exports'}." in told["why"]
        else:
            assert "why" not in told
            desk.answer({**wish, "op": "cancel", "what": "export"})
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("host", "names", "expected"),
    [
        ("127.0.0.1", (), False),
        ("localhost", (), False),
        ("::1", (), False),
        ("0.0.0.0", ("box",), True),
        ("192.168.1.5", (), True),
        # A proxy on this computer shows it under that name.
        ("127.0.0.1", ("box",), True),
    ],
)
def test_who_can_reach_the_page(host: str, names: tuple[str, ...], expected: bool) -> None:
    assert Address(host, 7860, names).is_for_others is expected


def test_a_side_is_called_by_what_it_is() -> None:
    proof = Proof(True, 1.0, forms={"a": "4-bit", "b": "4-bit"}, adapters=frozenset({"a"}))
    assert side_name("mara", "a", proof) == "mara (adapter on a 4-bit base)"
    assert side_name("starter", "b", proof) == "starter (4-bit base)"
    assert side_name("starter", "b", Proof(True, 1.0, forms={"b": "bfloat16"})) == "starter"
    both = Proof(True, 1.0, forms={"a": "4-bit", "b": "4-bit"}, adapters=frozenset({"a", "b"}))
    assert side_name("lin", "b", both) == "lin (adapter on a 4-bit base)"


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
