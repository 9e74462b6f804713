"""Questions of several tabs and of lists: who is answered when, what is stopped, what is hidden."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.contract.durable import write_json
from engine.contract.run_dir import RunDir
from engine.contract.votes import read_votes
from qft_gui.chat_client import ChatClient
from qft_gui.chat_room import ChatRoom
from qft_gui.comparing import lists, talks
from qft_gui.comparing.ballots import Ballots
from qft_gui.comparing.desk import CompareDesk
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.prompt_list import newest_list
from qft_gui.comparing.sides import Sides
from qft_gui.service import Service
from tests.speaker import Speaker
from tests.test_gui_golden import golden_run
from tests.tuned_copy import tuned_copy
from tests.waiting import until

ONE, OTHER = "1" * 32, "2" * 32
# The long one, and whatever is held, outlast every wait.
LONG, SHORT, HELD = "say 100000 every 0.02", "say 3 every 0.01", "hold"
Told = dict[str, Any]


class Tab:
    """A browser tab as the desk sees it."""

    def __init__(self, desk: CompareDesk, key: str) -> None:
        self._desk = desk
        self._key = key

    def __call__(self, op: str, **more: Any) -> Told:
        known = {"key": self._key, "since": 0, "epoch": 0, "cards": True}
        return self._desk.answer({"op": op, **known, **more})

    def ask(self, question: str, **more: Any) -> Told:
        return self("ask", question=question, **more)

    def look(self) -> Told:
        return self("look")

    def writes(self) -> bool:
        return any(cell["text"] for turn in self.look()["turns"] for cell in turn["cells"])

    def answered(self) -> Told:
        return until(lambda: {} if (told := self.look())["answering"] else told)

    def memory(self) -> str:
        return " ".join(self.look()["cards"]["memory"])


@pytest.fixture
def service(tmp_path: Path) -> Service:
    service = Service(tmp_path / "runs")
    for name in ("second", "first"):
        golden_run(service.runs, name, kind="full")
    return service


@pytest.fixture
def speaker(tmp_path: Path) -> Iterator[Speaker]:
    speaker = Speaker(tmp_path)
    yield speaker
    speaker.client.close()


@pytest.fixture
def desk(service: Service, speaker: Speaker) -> CompareDesk:
    return CompareDesk(service, ChatRoom(speaker.client, service.runs))


def tab(desk: CompareDesk, key: str = ONE, run: str = "first") -> Tab:
    found = Tab(desk, key)
    assert "why" not in found("choose", left=f"base:{run}", right=run)
    return found


def swapped(service: Service, folder: Path) -> tuple[Speaker, CompareDesk]:
    speaker = Speaker(folder, "swapped")
    return speaker, CompareDesk(service, ChatRoom(speaker.client, service.runs))


def test_an_answer_that_no_page_asks_for_is_ended_and_says_so(
    desk: CompareDesk, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tab(desk)
    one.ask(LONG)
    until(one.writes)
    monkeypatch.setattr(talks, "UNSEEN_S", 0.2)
    until(lambda: speaker.heard("stop"))
    (turn,) = one.answered()["turns"]
    assert turn["notes"].startswith("Stopped: the page was left for ")
    assert "stopped" in turn["cells"][0]["line"]
    assert turn["cells"][0]["text"]


def test_a_question_that_was_left_unanswered_comes_back(
    desk: CompareDesk, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Tab(desk, ONE)
    one("choose", left="base:first", right="slow")
    one.ask(LONG)
    until(lambda: speaker.heard("load"))
    monkeypatch.setattr(talks, "UNSEEN_S", 0.2)
    until(lambda: speaker.client.pid is None)
    told = one.answered()
    assert (told["turns"], told["returned"]) == ([], LONG)
    assert told["problem"].startswith("Stopped: the page was left for")
    assert one.look()["returned"] == ""


@pytest.mark.parametrize("pair", [("", "slow"), ("base:first", "slow")])
def test_stop_is_heard_while_models_are_loaded(
    desk: CompareDesk, speaker: Speaker, pair: tuple[str, str]
) -> None:
    one = Tab(desk, ONE)
    one("choose", left=pair[0], right=pair[1])
    one.ask(LONG)
    until(lambda: speaker.heard("load"))
    one("stop")
    told = one.answered()
    assert speaker.client.pid is None
    assert (told["problem"], told["returned"]) == ("Stopped before it was answered.", LONG)


def test_stop_is_heard_while_one_takes_the_others_place(service: Service, tmp_path: Path) -> None:
    speaker, desk = swapped(service, tmp_path)
    one = tab(desk)
    one.ask(SHORT)
    until(lambda: one.look()["loading"] == "Loading starter into memory; about 1 s expected.")
    one("stop")
    told = one.answered()
    assert speaker.client.pid is None
    (turn,) = told["turns"]
    # The one that was in memory answered first.
    assert [cell["text"] for cell in turn["cells"]] == ["", "B0 B1 B2 "]
    assert told["problem"] == "Stopped before it was answered."
    speaker.client.close()


def test_stop_leaves_models_in_memory_once_both_are_there(service: Service, tmp_path: Path) -> None:
    speaker, desk = swapped(service, tmp_path)
    one = tab(desk)
    one.ask(f"read {SHORT}")
    until(lambda: one.look()["loading"].startswith("Loading starter into memory"))
    speaker.go_on()
    worker = speaker.client.pid
    until(lambda: one.look()["loading"] == "")
    one("stop")
    assert one.answered()["problem"] == ""
    assert speaker.client.pid == worker
    speaker.client.close()


TIGHT = """
import time
from engine import chat_models, chat_worker
load, loads = chat_models.load_target, []
def slow_load(*given):
    loads.append(1)
    if len(loads) > 2:
        time.sleep(600)
    return load(*given)
chat_models.load_target = slow_load
class Tight(chat_worker.ChatWorker):
    def __init__(self, output):
        super().__init__(output, free_bytes=lambda device: 0)
chat_worker.ChatWorker = Tight
chat_worker.main()
"""


def test_the_real_worker_stops_while_one_takes_the_others_place(tmp_path: Path) -> None:
    service = Service(tmp_path / "runs")
    tuned_copy(service.runs)
    client = ChatClient(tmp_path / "chat.log", command=[sys.executable, "-c", TIGHT])
    one = tab(CompareDesk(service, ChatRoom(client, service.runs)), run="moved")
    one.ask("Hi", settings={"max_new_tokens": "4"})
    until(lambda: one.look()["loading"].startswith("Loading starter into memory"))
    one("stop")
    told = one.answered()
    assert client.loaded is client.pid is None
    assert told["turns"][0]["cells"][1]["text"]


def test_stop_before_an_answer_has_begun_is_not_lost(desk: CompareDesk) -> None:
    one = tab(desk)
    one.ask(LONG)
    one("stop")
    one.answered()


def test_a_refused_question_loads_nothing_anew(desk: CompareDesk, speaker: Speaker) -> None:
    one = tab(desk)
    for question in (SHORT, "refuse", SHORT):
        one.ask(question)
        told = one.answered()
    assert len(told["turns"]) == 2
    assert len(speaker.heard("load")) == 1


def test_a_question_refused_at_once_comes_back_when_the_page_looks(
    desk: CompareDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talks.Talks, "_answer", talks.Talks._work)
    one = tab(desk)
    told = one.ask("refuse")
    # The page has it in its field still, and empties that.
    assert (told["answering"], told["returned"]) == (False, "")
    assert (one.look()["returned"], one.look()["returned"]) == ("refuse", "")


def test_an_edited_question_and_a_conversation_put_away(desk: CompareDesk) -> None:
    one = tab(desk)
    for question in (SHORT, f"{SHORT}1"):
        one.ask(question)
        first = one.answered()["turns"][0]
    told = one.ask(f"{SHORT}2", instead_of=first["number"])
    assert [turn["question"] for turn in told["turns"]] == [f"{SHORT}2"]
    assert not one.answered()["can_be_brought_back"]
    told = one("choose", left="", right="first")
    assert (told["turns"], told["can_be_brought_back"]) == ([], True)
    told = one("bring_back")
    assert [turn["question"] for turn in told["turns"]] == [f"{SHORT}2"]
    assert (told["cards"]["left"], told["can_be_brought_back"]) == ("base:first", False)


def test_the_tick_belongs_to_what_is_in_memory(desk: CompareDesk, speaker: Speaker) -> None:
    one, other = tab(desk), tab(desk, OTHER, "second")
    one.ask(SHORT)
    assert one.answered()["cards"]["proof"] is not None
    assert other.look()["cards"]["proof"] is None
    assert "In memory for another tab: starter and first. A question here unloads them." in (
        other.memory()
    )
    other.ask(SHORT)
    assert other.answered()["cards"]["proof"] is not None
    assert "In memory" not in other.memory()
    assert one.look()["cards"]["proof"] is None
    assert "Your models left memory; a question loads them again." in one.memory()
    assert "In memory for another tab: starter and second." in one.memory()
    other("unload")
    assert "In memory for" not in one.memory()
    one.ask(SHORT)
    assert one.answered()["cards"]["proof"] is not None
    assert len(speaker.heard("load")) == 3


def test_what_is_written_anew_is_not_lost_to_a_busy_room(desk: CompareDesk) -> None:
    one, other = tab(desk), tab(desk, OTHER)
    one.ask(SHORT)
    before = [cell["text"] for cell in one.answered()["turns"][0]["cells"]]
    other.ask(LONG)
    until(other.writes)
    one("again", side="both", settings={"temperature": "1"})
    assert until(lambda: one.look()["loading"]) == "Another tab is being answered; wait for it."
    one("stop")
    told = one.answered()
    assert [cell["text"] for cell in told["turns"][0]["cells"]] == before
    assert other.look()["answering"]
    other("stop")
    other.answered()


def test_tabs_are_answered_in_the_order_in_which_they_asked(
    desk: CompareDesk, speaker: Speaker
) -> None:
    tabs = [tab(desk, str(number) * 32) for number in range(4)]
    tabs[0].ask(HELD)
    until(lambda: speaker.heard("ask"))
    for number, one in enumerate(tabs[1:], 1):
        one.ask(f"say {number} every 0")
        until(lambda one=one: one.look()["loading"].startswith("Another tab"))
    speaker.go_on()
    assert [one.answered()["problem"] for one in tabs] == [""] * 4
    asked = [one["messages"]["a"][-1]["content"] for one in speaker.heard("ask")]
    assert asked == [HELD, *(f"say {number} every 0" for number in (1, 2, 3))]


def test_greedy_answers_are_not_written_anew(desk: CompareDesk) -> None:
    one = tab(desk)
    one.ask(SHORT)
    one.answered()
    assert "the same answer would come again" in one("again", side="both")["why"]
    assert "why" not in one("again", side="a", settings={"max_new_tokens": "9"})
    assert "seed" not in one.answered()["turns"][0]["cells"][0]["line"]
    one("again", side="b", settings={"temperature": "1", "seed": "4"})
    lines = [cell["line"] for cell in one.answered()["turns"][0]["cells"]]
    assert ["seed 6" in line for line in lines] == [False, True]
    one.ask(LONG)
    until(one.writes)
    one("stop")
    one.answered()
    assert "why" not in one("again", side="both")  # it was stopped, so there is more to say
    one("stop")
    one.answered()


def begin_list(one: Tab, *prompts: str) -> None:
    assert "why" not in one("list", prompts="\n".join(prompts))


def test_a_list_lets_a_question_go_first(
    desk: CompareDesk, speaker: Speaker, service: Service
) -> None:
    one, other = tab(desk), tab(desk, OTHER, "second")
    # The first answer is held; what is done meanwhile comes before the second.
    begin_list(one, HELD, *(f"say {number} every 0.01" for number in range(2, 6)))
    until(lambda: speaker.heard("ask"))
    in_memory = "In memory for a list of prompts: starter and first. "
    assert f"{in_memory}A question here is answered in between." in other.memory()
    assert "A list of prompts is being answered, " in other("unload")["why"]
    other.ask(SHORT)
    waiting = until(lambda: other.look()["loading"])
    assert waiting.endswith(" of 10 answers so far; questions come in between.")
    speaker.go_on()
    told = other.answered()
    assert (told["problem"], len(told["turns"])) == ("", 1)
    asked = [next(iter(one["messages"].values()))[-1]["content"] for one in speaker.heard("ask")]
    assert asked.index(SHORT) == 1
    until(lambda: one.look()["cards"]["list"]["state"].startswith("All 5"))
    assert newest_list(service.runs / "first") is not None
    until(lambda: f"{in_memory}A question here unloads them." in other.memory())


def test_whoever_stops_stops_only_their_own(desk: CompareDesk, speaker: Speaker) -> None:
    one, other = tab(desk), tab(desk, OTHER)
    begin_list(one, SHORT, HELD)
    until(lambda: len(speaker.heard("ask")) > 2)
    other.ask(LONG)
    assert until(lambda: other.look()["loading"]).startswith("A list of prompts is being answered")
    other("stop")
    assert other.answered()["returned"] == LONG
    assert one.look()["cards"]["list"]["at_work"]
    assert not speaker.heard("stop")
    other.ask(LONG)
    until(lambda: other.look()["loading"])
    speaker.go_on()
    until(other.writes)
    assert "why" not in one("list_cancel")
    until(lambda: not one.look()["cards"]["list"]["at_work"])
    assert other.look()["answering"]
    assert not speaker.heard("stop")
    assert not one.look()["cards"]["list"]["problem"]
    elsewhere = tab(desk, "3" * 32, "second")
    one("list_go_on")
    elsewhere("list_cancel")
    elsewhere("stop")
    assert one.look()["cards"]["list"]["at_work"]
    other("stop")
    other.answered()
    until(lambda: not one.look()["cards"]["list"]["at_work"])
    assert one.look()["cards"]["list"]["state"].startswith("All 2")


SECRETS = ("tokens", '"a"', '"b"', "left out", "first", "starter", "stop", "expected")


def test_nothing_tells_who_is_who_before_the_vote(service: Service, tmp_path: Path) -> None:
    speaker, desk = swapped(service, tmp_path)
    one = tab(desk)
    fetched: list[list[str]] = []
    for number in range(1, 9):
        one.ask(SHORT, blind=True)
        looks = [one.look()]
        while looks[-1]["answering"]:
            if looks[-1]["loading"].startswith("Loading the other"):
                speaker.go_on()
            looks.append(until(one.look))
        speaker.hold()
        lines = dict.fromkeys(look["loading"] for look in looks)
        fetched.append([line for line in lines if line and "weights" not in line])
        turns = [one for look in looks for one in look["turns"] if one["number"] == number]
        assert len(turns) == len(looks)
        for turn, look in zip(turns, looks, strict=True):
            said = json.dumps({**turn, "question": "", "loading": look["loading"]})
            assert not any(word in said for word in SECRETS), said
            texts = [cell["text"] for cell in turn["cells"]]
            assert texts == ["", ""] or all(texts)
        assert turns[-1]["awaits_vote"]
        cards = [look["cards"] for look in looks if look["cards"]["proof"]]
        assert len({json.dumps([one["memory"], one["proof"]]) for one in cards}) == 1
        text = one("download", what="conversation", form="jsonl")["file"]["text"]
        line = json.loads(text.splitlines()[-1])
        hidden = ("model", "stopped", "dropped_turns", "seconds", "tokens_per_s", "num_tokens")
        assert [line[name] for name in hidden] == [None] * len(hidden)
        one("vote", turn=number, choice="tie")
    # Each time one of the two has to be fetched, whoever is shown first, and which is not said.
    assert fetched == [["Loading the other model into memory."]] * 8
    asked = [list(one["messages"]) for one in speaker.heard("ask")]
    assert asked == [["b", "a"], ["a", "b"]] * 4
    speaker.client.close()


def test_a_stopped_blind_turn_is_shown_without_a_vote(
    desk: CompareDesk, speaker: Speaker, service: Service
) -> None:
    one = tab(desk)
    one.ask(LONG, blind=True)
    until(lambda: speaker.heard("ask"))
    one("stop")
    (turn,) = one.answered()["turns"]
    assert (turn["awaits_vote"], turn["can_be_revealed"]) == (False, True)
    assert {cell["name"] for cell in turn["cells"]} == {"A", "B"}
    (turn,) = one("reveal", turn=turn["number"])["turns"]
    assert {cell["name"] for cell in turn["cells"]} == {"starter", "first"}
    assert not read_votes(service.runs / "first" / "votes.jsonl").votes


def recorded(run: RunDir, tokens: int) -> None:
    write_json(run.export / "fingerprint.json", {"format": 1, "result": {"tokens": tokens}})


def test_a_vote_knows_the_weights_that_answered(desk: CompareDesk, service: Service) -> None:
    run = RunDir(service.runs / "first")
    recorded(run, 1)
    one = tab(desk)
    begin_list(one, SHORT)
    until(lambda: one.look()["cards"]["list"]["number"] == 0)
    one.ask(SHORT, blind=True)
    (turn,) = one.answered()["turns"]
    recorded(run, 2)
    one("vote", turn=turn["number"], choice="tie")
    one.ask(SHORT, blind=True)
    turn = one.answered()["turns"][-1]
    one("vote", turn=turn["number"], choice="tie")
    told = one("list_vote", list=newest_of(run).id, prompt=0, choice="tie")
    assert "why" not in told
    votes = read_votes(run.path / "votes.jsonl").votes
    prints = [
        next(side.fingerprint for side in (vote.left, vote.right) if side.model == "first")
        for vote in votes
    ]
    assert prints[0] == prints[2] != prints[1]
    assert None not in prints


def test_weights_are_told_by_their_files_and_not_by_the_run(service: Service) -> None:
    ballots = Ballots(service, Sides(service))
    first, second = (RunDir(service.runs / name) for name in ("first", "second"))
    base = {"files": "abc", "log_probabilities": [1.0]}
    first.write_fingerprint({"format": 2, "base": base})
    beside = {"files": "abc", "log_probabilities": [2.0]}
    second.write_fingerprint(
        {"format": 2, "base": {**base, "log_probabilities": [1.1]}, "base_as_trained": beside}
    )
    step = first.checkpoints / "step-000020"
    step.mkdir()
    write_json(step / "fingerprint.json", {"format": 2, "result": {"files": "def"}})
    prints = [ballots.prints(Pair(f"base:{one.path.name}", "first@20")) for one in (first, second)]
    assert prints[0] == prints[1]
    assert None not in prints[0].values()
    assert prints[0]["a"] != prints[0]["b"]
    assert ballots.prints(Pair("starter", "first")) == {"a": None, "b": None}


def newest_of(run: RunDir) -> Any:
    found = newest_list(run.path)
    assert found is not None
    return found


def test_a_prompt_of_a_list_is_voted_on_once(
    service: Service, speaker: Speaker, desk: CompareDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(service.runs / "first")
    one = tab(desk)
    begin_list(one, SHORT, "say 2 every 0")
    until(lambda: one.look()["cards"]["list"]["state"].startswith("All 2"))
    wish = {"list": newest_of(run).id, "prompt": 0}
    told: list[Told] = []
    threads = [
        threading.Thread(target=lambda: told.append(one("list_vote", **wish, choice="left")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("why" in one for one in told) == 7
    # The list loses its line of the vote, as in a crash, and is opened by another window.
    path = newest_of(run).path
    kept = [line for line in path.read_text().splitlines() if '"vote"' not in line]
    path.write_text("\n".join(kept) + "\n")
    again = tab(CompareDesk(service, ChatRoom(speaker.client, service.runs)))
    assert again.look()["cards"]["list"]["number"] == 0
    why = again("list_vote", **wish, choice="right")["why"]
    assert "Prompt 1 was voted on before; that vote counts." in why
    assert [vote.choice for vote in read_votes(run.path / "votes.jsonl").votes] == ["left"]
    assert newest_of(run).votes == {0: "left"}
    assert again.look()["cards"]["list"]["number"] == 1
    assert "another list" in again("list_vote", list="x", prompt=1, choice="left")["why"]
    why = again("list_vote", list=path.stem, prompt=2, choice="left")["why"]
    assert "nothing to vote on" in why


def test_votes_say_between_whom_they_are(desk: CompareDesk) -> None:
    one = tab(desk)
    standing = lambda: one.look()["cards"]["standing"]["sentence"]  # noqa: E731
    assert standing() == "No votes yet."
    one.ask(SHORT, blind=True)
    (turn,) = one.answered()["turns"]
    one("vote", turn=turn["number"], choice="both_bad")
    assert standing() == "No vote has preferred one of the two yet (0 ties, 1 with both bad)."
    one("choose", left="", right="first")
    assert "1 vote was cast on models that began like this one." in standing()
    one("choose", left="base:second", right="second")
    assert standing().startswith("No votes between these two yet; 1 vote was cast on others")


def test_a_list_ends_with_its_own_problem(desk: CompareDesk) -> None:
    one = tab(desk)
    begin_list(one, SHORT, "refuse", SHORT + "0")
    until(lambda: one.look()["cards"]["list"]["problem"])
    told = one.look()["cards"]["list"]
    assert "It is too hot. Cool it." in told["problem"]
    assert (told["at_work"], told["can_go_on"], told["number"]) == (False, True, 0)


def test_of_two_lists_at_once_one_is_begun(
    desk: CompareDesk, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tab(desk), tab(desk, OTHER)
    begin, racing, told = lists.begin_list, list[threading.Thread](), list[Told]()

    def begin_slowly(*given: Any) -> Any:
        if not racing:
            race = threading.Thread(target=lambda: told.append(other("list", prompts=HELD)))
            racing.append(race)
            race.start()
            race.join(0.5)
        return begin(*given)

    monkeypatch.setattr(lists, "begin_list", begin_slowly)
    begin_list(one, HELD)
    racing[0].join()
    assert told[0]["why"] == "A list is being answered. Wait for it, or cancel it."
    assert len(list((service.runs / "first" / "comparisons").iterdir())) == 1
    one("list_cancel")
    until(lambda: not one.look()["cards"]["list"]["at_work"])
