"""Conversations: what each side reads, what a page is sent, what a blind turn keeps to itself."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contract.errors import RequestError
from qft_gui.answers import Answer, Proof, Reply, Settings, Side
from qft_gui.comparing.ballots import ballot_of
from qft_gui.comparing.conversation import Conversation
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.transcripts import conversation_file
from qft_gui.comparing.turn import Turn, drawn_order
from qft_gui.view.chat import (
    loading_line,
    memory_lines,
    proof_mark,
    reply_line,
    side_name,
    turn_frame,
)

NAMES: dict[Side, str] = {"a": "starter", "b": "pirate-run"}
BOTH: tuple[Side, ...] = ("a", "b")
DONE = {"seconds": 2.0, "first_token_s": 0.25, "num_tokens": 4, "tokens_per_s": 2.5}


def replied(**texts: str) -> Answer:
    return Answer({side: Reply(text, **DONE, is_done=True) for side, text in texts.items()})


def begin(talk: Conversation, question: str, *, is_blind: bool = False) -> Turn:
    turn, _ = talk.begin(question, BOTH, Settings(), NAMES, is_blind=is_blind)
    return turn


def told(talk: Conversation, question: str, **texts: str) -> Turn:
    turn = begin(talk, question)
    talk.update(turn, replied(**texts), "")
    talk.finish(turn)
    return turn


def test_each_side_reads_its_own_replies() -> None:
    talk = Conversation()
    told(talk, "Who are you?", a="I am Pip.", b="Arr, I be Pip.")
    told(talk, "Only one answers.", b="Aye.")
    _, messages = talk.begin("And now?", BOTH, Settings(), NAMES, is_blind=False)
    assert [one["content"] for one in messages["a"]] == ["Who are you?", "I am Pip.", "And now?"]
    assert [one["role"] for one in messages["b"]] == ["user", "assistant"] * 2 + ["user"]
    assert messages["b"][3]["content"] == "Aye."


@given(
    st.lists(st.text(max_size=20), max_size=12), st.lists(st.booleans(), min_size=12, max_size=12)
)
def test_pieces_put_together_are_the_reply(pieces: list[str], looks: list[bool]) -> None:
    talk = Conversation()
    turn = begin(talk, "Hi")
    shown, version, said = ["", ""], 0, ""
    for piece, looks_now in zip([*pieces, ""], [*looks[: len(pieces)], True], strict=True):
        said += piece
        talk.update(turn, Answer({"a": Reply(said), "b": Reply(f"B{said}")}), "")
        if not looks_now:
            continue
        held = tuple(len(text) for text in shown)
        version, changed = talk.changed_since(version)
        for one in changed:
            for place, cell in enumerate(turn_frame(one, None, held)["cells"]):
                assert cell["from"] == len(shown[place])
                shown[place] += cell["text"]
    assert shown == [said, f"B{said}"]


def test_what_did_not_change_is_not_sent_again() -> None:
    talk = Conversation()
    for number in range(3):
        told(talk, f"Question {number}", a="x" * 100, b="y" * 100)
    version, turns = talk.changed_since(0)
    assert len(turns) == 3
    turn = begin(talk, "Hi")
    talk.update(turn, Answer({"a": Reply("Hel"), "b": Reply()}), "")
    version, turns = talk.changed_since(version)
    assert [one.question for one in turns] == ["Hi"]
    talk.update(turn, Answer({"a": Reply("Hello"), "b": Reply()}), "")
    _, turns = talk.changed_since(version)
    (frame,) = [turn_frame(one, None, (3, 0)) for one in turns]
    assert [(cell["from"], cell["text"]) for cell in frame["cells"]] == [(3, "lo"), (0, "")]


def test_an_open_vote_tells_nothing() -> None:
    talk = Conversation()
    turn = begin(talk, "Hi", is_blind=True)
    talk.update(turn, Answer({"a": Reply("I am"), "b": Reply()}, proof=Proof(True, 1.5)), "")
    frame = turn_frame(turn, talk.proof)
    # Who writes first, or faster, would tell who it is.
    assert [cell["text"] for cell in frame["cells"]] == ["", ""]
    talk.update(turn, replied(a="I am small.", b="Arr."), "")
    talk.finish(turn)
    frame = turn_frame(turn, talk.proof)
    assert frame["awaits_vote"]
    assert sorted(cell["text"] for cell in frame["cells"]) == ["Arr.", "I am small."]
    sent = json.dumps(frame)
    for secret in ("starter", "pirate-run", "tokens", "250 ms", '"a"', '"b"'):
        assert secret not in sent
    assert [cell["name"] for cell in frame["cells"]] == ["A", "B"]
    assert talk.vote(turn.number, "left") is turn
    shown = turn_frame(turn, talk.proof)
    assert [cell["name"] for cell in shown["cells"]] == [NAMES[side] for side in turn.order]
    assert "tokens/s" in shown["cells"][0]["line"]
    assert talk.vote(turn.number, "right") is None


def test_sides_are_drawn_for_each_turn_and_answer_in_that_order() -> None:
    talk, orders = Conversation(), set[tuple[Side, ...]]()
    for number in range(40):
        turn, messages = talk.begin(f"{number}", BOTH, Settings(), NAMES, is_blind=True)
        assert tuple(messages) == turn.order
        orders.add(turn.order)
        talk.finish(turn)
    assert orders == {("a", "b"), ("b", "a")}


def test_the_lot_is_fair_and_hangs_on_the_secret() -> None:
    drawn = [drawn_order(b"secret", str(number)) for number in range(1000)]
    assert 420 < drawn.count(("a", "b")) < 580
    assert drawn == [drawn_order(b"secret", str(number)) for number in range(1000)]
    assert drawn != [drawn_order(b"another", str(number)) for number in range(1000)]


def test_an_edited_question_takes_what_came_after_it_away() -> None:
    talk = Conversation()
    first = told(talk, "One", a="1", b="1")
    second = told(talk, "Two", a="2", b="2")
    for turn, left in ((second, ["One", "Two!"]), (first, ["One!"])):
        before, epoch = list(talk.turns), talk.epoch
        for problem in ("It is too hot.", ""):
            question = f"{turn.question}!"
            new, messages = talk.begin(
                *(question, BOTH, Settings(), NAMES), is_blind=False, instead_of=turn.number
            )
            assert [one.question for one in talk.turns] == left
            assert messages["a"][-1]["content"] == question
            assert talk.epoch > epoch
            if not problem:
                talk.update(new, replied(a="3", b="3"), "")
            talk.finish(new, problem)
            # One that was refused takes nothing away.
            assert (talk.turns == before) is bool(problem)


def test_only_the_last_question_is_voted_on() -> None:
    talk = Conversation()
    first = begin(talk, "One", is_blind=True)
    talk.update(first, replied(a="1", b="1"), "")
    talk.finish(first)
    refused = begin(talk, "Two", is_blind=True)
    assert talk.vote(first.number, "left") is None
    talk.finish(refused, "It is too hot.")
    assert turn_frame(first, None)["awaits_vote"]
    assert not turn_frame(first, None)["notes"]
    second = begin(talk, "Three", is_blind=True)
    talk.update(second, replied(a="2", b="2"), "")
    version = talk.version
    talk.finish(second)
    assert first in talk.changed_since(version)[1]
    frame = turn_frame(first, None)
    assert (frame["awaits_vote"], frame["notes"]) == (False, "You did not vote.")
    assert [cell["name"] for cell in frame["cells"]] == [NAMES[side] for side in first.order]
    assert talk.vote(first.number, "left") is None
    assert talk.vote(second.number, "left") is second


@pytest.mark.parametrize("act", ["clear", "choose"])
def test_what_was_put_away_can_be_brought_back_until_more_is_answered(act: str) -> None:
    talk = Conversation()
    turn = told(talk, "One", a="1", b="1")
    assert not talk.can_be_brought_back
    for is_answered in (False, True):
        (talk.clear if act == "clear" else lambda: talk.choose(Pair("x", "y")))()
        assert (talk.turns, talk.can_be_brought_back) == ([], True)
        talk.choose(Pair("x", "z"))
        refused = begin(talk, "Refused")
        assert not talk.can_be_brought_back
        talk.finish(refused, "It is too hot.")
        if is_answered:
            turn = told(talk, "Two", a="2", b="2")
        epoch, pair = talk.epoch, talk.pair
        talk.bring_back()
        assert (talk.turns, talk.can_be_brought_back) == ([turn], False)
        assert (talk.pair, talk.epoch > epoch) == ((pair, False) if is_answered else (Pair(), True))
        # The whole turn is sent to a page that begins anew.
        assert talk.changed_since(0)[1] == [turn]


def test_nothing_is_cut_cleared_or_exchanged_while_an_answer_is_written() -> None:
    talk = Conversation()
    turn = begin(talk, "One")
    talk.clear()
    talk.choose(Pair("x", "y"))
    talk.bring_back()
    assert (talk.turns, talk.pair) == ([turn], Pair())
    talk.finish(turn)
    talk.choose(Pair("x", "y"))
    assert (talk.turns, talk.pair) == ([], Pair("x", "y"))


def test_a_reply_is_written_anew_on_one_side() -> None:
    talk = Conversation()
    turn = told(talk, "One", a="first", b="second")
    again, messages = talk.begin_again(("b",), Settings(seed=3, temperature=0.5))
    assert again is turn
    assert list(messages) == ["b"]
    assert turn.replies["a"].text == "first"
    assert "b" not in turn.replies
    talk.update(turn, replied(b="third"), "")
    talk.finish(turn)
    assert [turn.replies[side].text for side in BOTH] == ["first", "third"]
    assert turn_frame(turn, None)["generation"] == 1
    assert "seed 4" in reply_line(turn, "b")
    # What the other was asked with is what it was.
    assert "seed" not in reply_line(turn, "a")
    rows = [json.loads(line) for line in conversation_file(talk, "jsonl").splitlines()]
    assert [(row["model"], row["seed"]) for row in rows] == [("starter", 0), ("pirate-run", 4)]


@pytest.mark.parametrize("is_blind", [False, True])
def test_what_is_not_written_anew_stays(is_blind: bool) -> None:
    talk = Conversation()
    turn = begin(talk, "One", is_blind=is_blind)
    talk.update(turn, replied(a="first", b="second"), "")
    talk.finish(turn)
    if is_blind:
        talk.vote(turn.number, "left")
    kept = (dict(turn.replies), dict(turn.asked), turn.order, turn.vote)
    for answer in (Answer(problem="busy"), Answer({"a": Reply("torn"), "b": Reply()})):
        talk.begin_again(BOTH, Settings(seed=9, temperature=1.0))
        talk.update(turn, answer, "")
        talk.finish(turn)
        assert (turn.replies, turn.asked, turn.order, turn.vote) == kept
        assert talk.turns == [turn]
    talk.begin_again(BOTH, Settings(temperature=1.0))
    assert turn.is_hidden == is_blind
    half = {"a": Reply("third", is_done=True), "b": Reply()}
    talk.update(turn, Answer(half), "")
    talk.finish(turn)
    assert turn.replies["b"].text == "second"
    # Two replies to a vote are of one time.
    assert turn.replies["a"].text == ("first" if is_blind else "third")


@pytest.mark.parametrize("is_blind", [False, True])
def test_a_page_shows_no_mixture_of_what_was_brought_back(is_blind: bool) -> None:
    talk = Conversation()
    turn = begin(talk, "One", is_blind=is_blind)
    talk.update(turn, replied(a="the first reply", b="the second reply"), "")
    talk.finish(turn)
    if is_blind:
        talk.vote(turn.number, "tie")
    shown, generation = ["", ""], -1

    def look() -> dict[str, Any]:
        nonlocal generation
        lengths = tuple(len(text) for text in shown) if generation == turn.generation else None
        frame = turn_frame(turn, None, lengths)
        generation = frame["generation"]
        for place, cell in enumerate(frame["cells"]):
            shown[place] = shown[place][: cell["from"]] + cell["text"]
        return frame

    before, texts = look(), list(shown)
    talk.begin_again(BOTH, Settings(temperature=1.0))
    talk.update(turn, Answer({"a": Reply("torn"), "b": Reply("it")}), "")
    look()
    talk.finish(turn)
    after = look()
    assert shown == texts
    assert [one["line"] for one in after["cells"]] == [one["line"] for one in before["cells"]]
    # What came to nothing uses up no seed.
    talk.begin_again(("a",), Settings(seed=4, temperature=1.0))
    talk.update(turn, replied(a="third"), "")
    talk.finish(turn)
    assert turn.asked["a"].seed == 5


def test_whoever_asks_is_there() -> None:
    talk = Conversation()
    talk.seen = 0.0
    turn = told(talk, "One", a="first", b="second")
    assert talk.seen > 0
    talk.seen = 0.0
    talk.begin_again(BOTH, Settings())
    talk.finish(turn)
    assert talk.seen > 0
    talk.seen = 0.0
    talk.changed_since(0)
    assert talk.seen > 0


def test_a_vote_holds_what_each_side_read() -> None:
    talk = Conversation()
    told(talk, "Nobody answers this.", a=" ", b="")
    told(talk, "Only one answers.", b="Aye.")
    told(talk, "Who are you?", a="I am Pip.", b="Arr, I be Pip.")
    last = begin(talk, "And now?")
    talk.update(last, replied(a="So.", b="Arr."), "")
    ballot = ballot_of(talk, last)
    assert ballot.questions == ("Only one answers.", "Who are you?", "And now?")
    assert ballot.earlier == {"a": ("", "I am Pip."), "b": ("Aye.", "Arr, I be Pip.")}
    assert (talk.prompt_messages("a") or [])[0]["content"] == "Who are you?"


def test_a_blind_turn_that_was_stopped_can_be_shown_without_a_vote() -> None:
    talk = Conversation()
    turn = begin(talk, "Hi", is_blind=True)
    assert not turn_frame(turn, None)["can_be_revealed"]
    said = turn.order[0]
    talk.update(turn, Answer({said: Reply("Only I.", stopped="stop", is_done=True)}), "")
    talk.finish(turn)
    frame = turn_frame(turn, None)
    assert (frame["awaits_vote"], frame["can_be_revealed"]) == (False, True)
    # Who answered alone would tell which of the two was there.
    assert [cell["text"] for cell in frame["cells"]] == ["", ""]
    assert talk.vote(turn.number, "left") is None
    hidden = conversation_file(talk, "jsonl")
    assert "Only I." not in hidden
    assert "starter" not in hidden
    assert "pirate-run" not in hidden
    talk.reveal(turn.number)
    frame = turn_frame(turn, None)
    assert [cell["name"] for cell in frame["cells"]] == [NAMES[side] for side in turn.order]
    assert frame["cells"][0]["text"] == "Only I."
    assert (frame["vote"], frame["can_be_revealed"]) == (None, False)
    assert talk.vote(turn.number, "left") is None
    _, messages = talk.begin_again(BOTH, Settings())
    assert turn.is_hidden
    assert set(messages) == {"a", "b"}


def test_a_question_that_nobody_answered_comes_back() -> None:
    talk = Conversation()
    turn = begin(talk, "Are you there?")
    talk.update(turn, Answer(problem="There is not enough memory."), "")
    talk.finish(turn)
    assert (talk.turns, talk.returned) == ([], "Are you there?")
    assert talk.problem == "There is not enough memory."
    assert (talk.take_returned(), talk.take_returned()) == ("Are you there?", "")


@pytest.mark.parametrize("act", ["begin", "clear", "choose"])
def test_what_came_back_is_forgotten_when_the_page_goes_on(act: str) -> None:
    talk = Conversation()
    talk.finish(begin(talk, "Are you there?"), "There is not enough memory.")
    assert talk.returned
    if act == "begin":
        begin(talk, "And now?")
    elif act == "clear":
        talk.clear()
    else:
        talk.choose(Pair("x", "y"))
    assert (talk.returned, talk.problem) == ("", "")


ONE: dict[Side, str] = {"a": "float32"}


@pytest.mark.parametrize(
    ("proof", "words", "tone"),
    [
        (
            Proof(True, 5.114, True, recorded=BOTH),
            "Checked: two different models, both as on record; they differ by up to 5.11 nats",
            "good",
        ),
        # What one side is known by says nothing of the other.
        (
            Proof(True, 5.114, None, recorded=("a",)),
            "Two different models: the left one is as on record, of the right one there is no "
            "record; they differ by up to 5.11 nats",
            "",
        ),
        (
            Proof(True, None, None, recorded=("b",)),
            "Two different models: the right one is as on record, of the left one there is no "
            "record; their words differ",
            "",
        ),
        (
            Proof(True, None),
            "Two different models, of which there is no record; their words differ",
            "",
        ),
        (
            Proof(True, 0.0002, None),
            "Two different models, of which there is no record; they differ by less than 0.01 nats",
            "",
        ),
        (Proof(False, 0.0, None, verdict="alike"), "Both sides answer alike", "warn"),
        (
            Proof(False, 0.0, True, recorded=BOTH, verdict="unchanged"),
            "Both sides answer alike, and on record they are the same",
            "warn",
        ),
        (
            Proof(False, 0.02, None, verdict="unclear"),
            "Not told apart: they differ by no more than rounding does",
            "warn",
        ),
        (Proof(False, 0.0, True, forms=ONE), "Checked: it is the model that was recorded", "good"),
        (Proof(False, 0.0, None, forms=ONE), "No record to compare it with", ""),
    ],
)
def test_the_tick_says_what_was_found(proof: Proof, words: str, tone: str) -> None:
    mark = proof_mark(proof)
    assert (mark.word, mark.tone) == (words, tone)
    assert (mark.shape == "ok") == (proof.same_as_recorded is True and proof.verdict == "")


def test_a_base_in_four_bits_is_called_so() -> None:
    forms: dict[Side, str] = {"a": "4-bit", "b": "4-bit"}
    right: frozenset[Side] = frozenset({"b"})
    proof = Proof(True, 1.0, plan="shared", forms=forms, adapters=right, base_difference=0.31)
    assert side_name("starter", "a", proof) == "starter (4-bit base)"
    assert side_name("run", "b", proof) == "run (adapter on a 4-bit base)"
    left: frozenset[Side] = frozenset({"a"})
    turned = Proof(True, 1.0, plan="shared", forms=forms, adapters=left)
    assert side_name("run", "a", turned) == "run (adapter on a 4-bit base)"
    assert side_name("starter", "b", turned) == "starter (4-bit base)"
    lines = memory_lines(proof, NAMES)
    assert any("One set of weights" in line for line in lines)
    assert any("0.31 nats" in line for line in lines)


def test_models_that_take_turns_say_how_long() -> None:
    waits: dict[Side, float | None] = {"a": 4.2, "b": None}
    proof = Proof(True, 1.0, plan="swapped", waits_s=waits, notes=("A note.",))
    assert memory_lines(proof, NAMES) == [
        "Both do not fit into memory together: each is loaded when it is asked.",
        "starter takes about 4 s to load.",
        "A note.",
    ]


@pytest.mark.parametrize(
    ("seconds", "expected_s", "line"),
    [
        (1, None, "1 s so far."),
        (0, 0.3, "0 s so far."),
        (0, 1.9, "0 s so far."),
        (3, 8.0, "3 s so far; about 8 s expected."),
        (8, 8.4, "8 s so far."),
    ],
)
def test_a_wait_is_told_as_long_as_it_lies_ahead(
    seconds: int, expected_s: float | None, line: str
) -> None:
    assert loading_line(seconds, expected_s) == f"Loading weights into memory, {line}"


def test_dropped_turns_are_said() -> None:
    talk = Conversation()
    turn = begin(talk, "Hi")
    talk.update(turn, Answer({"a": Reply("x", dropped_turns=2, is_done=True)}), "")
    assert "the 2 oldest messages were left out" in turn_frame(turn, None)["notes"]


@pytest.mark.parametrize(
    ("values", "field"),
    [({"top_k": "2.5"}, "top_k"), ({"temperature": "NaN"}, "temperature"), ({"seed": "x"}, "seed")],
)
def test_a_setting_that_is_no_number_is_a_sentence(values: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        Settings.of(values)
    assert caught.value.field == field


def test_empty_settings_are_the_models_own() -> None:
    settings = Settings.of({"top_p": "", "temperature": "0,7", "system": "Be brief."})
    assert (settings.top_p, settings.temperature, settings.system) == (None, 0.7, "Be brief.")
    assert "top_p" not in settings.as_json()


def test_versions_only_rise() -> None:
    talk, seen = Conversation(), list[int]()
    turn = begin(talk, "Hi")
    for text in ("a", "ab", "ab", "abc"):
        talk.update(turn, Answer({"a": Reply(text)}), "")
        seen.append(talk.version)
    assert all(before <= after for before, after in pairwise(seen))
    assert seen[1] == seen[2]
