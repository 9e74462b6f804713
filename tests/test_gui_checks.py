"""Checks in the background: one at a time, none twice, and late answers overwrite nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qft_gui import checks as checks_module
from qft_gui.checks import Checks, Look
from qft_gui.data_wish import DataWish
from tests.tiny import chat_rows, write_jsonl

RIGHT: dict[str, Any] = {"rows": 5, "usable": 5, "num_examples": 60}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_module, "DEBOUNCE_S", 0.05)


class Engine:
    """Answers when it is let, and counts how many questions it has at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[DataWish, int]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.most = self._now = 0

    def __call__(
        self, wish: DataWish, first: int, is_unwanted: Callable[[], bool]
    ) -> dict[str, Any] | None:
        self._now += 1
        self.most = max(self.most, self._now)
        self.asked.append((wish, first))
        try:
            while not self.go_on.wait(0.01):
                if is_unwanted():
                    return None
            return self.answer(wish, first)
        finally:
            self._now -= 1

    def answer(self, wish: DataWish, first: int) -> dict[str, Any]:
        examples = [
            {
                "number": number,
                "row": number,
                "held_out": False,
                "tokens": 3,
                "trained": 1,
                "cut": False,
                "pieces": [],
            }
            for number in range(first, min(first + 25, 61))
        ]
        return {**RIGHT, "sequence_length": wish.limit, "examples": examples}


def wish(file: Path, length: int = 256, model: str = "starter") -> DataWish:
    return DataWish(str(file), model, (("sequence_length", str(length)),))


def until(look: Callable[[], Look], done: Callable[[Look], bool]) -> Look:
    deadline = time.monotonic() + 100
    while not done(now := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("{}\n")
    return path


def test_a_file_is_checked_once_per_state(file: Path) -> None:
    engine = Engine()
    checks = Checks(engine)
    first = checks.look(wish(file))
    assert first.is_checking
    assert first.check is None
    now = until(lambda: checks.look(wish(file)), lambda now: now.is_current)
    assert now.check is not None
    assert now.check.usable == 5
    assert not now.is_checking
    checks.look(wish(file))
    time.sleep(0.2)
    assert len(engine.asked) == 1
    file.write_text("{}\n{}\n")
    changed = checks.look(wish(file))
    assert changed.is_checking
    assert not changed.is_current
    until(lambda: checks.look(wish(file)), lambda now: now.is_current)
    assert len(engine.asked) == 2


def test_what_is_typed_is_asked_once_it_stands_still(file: Path) -> None:
    engine = Engine()
    checks = Checks(engine)
    until(lambda: checks.look(wish(file, 8)), lambda now: now.is_current)
    engine.go_on.clear()
    for length in (16, 160, 1600):
        checks.look(wish(file, length))
    stale = checks.look(wish(file, 1600))
    assert stale.check is not None, "what is known of the file stays"
    assert not stale.is_current
    assert stale.limit == 1600
    assert stale.rows == 5
    engine.go_on.set()
    until(lambda: checks.look(wish(file, 1600)), lambda now: now.is_current)
    assert [asked.limit for asked, _ in engine.asked] == [8, 1600]
    assert engine.most == 1


def test_a_late_answer_is_not_taken_for_a_newer_question(file: Path) -> None:
    engine = Engine()
    engine.go_on.clear()
    checks = Checks(engine)
    checks.look(wish(file, 64))
    until(lambda: checks.look(wish(file, 64)), lambda _: bool(engine.asked))
    checks.look(wish(file, 128))
    engine.go_on.set()
    now = until(lambda: checks.look(wish(file, 128)), lambda now: now.is_current)
    assert now.check is not None
    assert now.check.sequence_length == 128
    assert engine.most == 1


def test_what_nobody_asks_for_any_more_makes_way(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks_module, "FORGOTTEN_S", 0.2)
    engine = Engine()
    engine.go_on.clear()
    checks = Checks(engine)
    until(lambda: checks.look(wish(file, 64)), lambda _: bool(engine.asked))
    until(lambda: checks.look(wish(file, 128)), lambda _: len(engine.asked) == 2)
    engine.go_on.set()
    until(lambda: checks.look(wish(file, 128)), lambda now: now.is_current)
    again = checks.look(wish(file, 64), may_ask=False)
    assert not again.is_current


def test_a_check_that_was_ended_stays_ended_until_somebody_wants_it(file: Path) -> None:
    engine = Engine()
    engine.go_on.clear()
    checks = Checks(engine)
    until(lambda: checks.look(wish(file)), lambda _: bool(engine.asked))
    checks.cancel()
    now = until(lambda: checks.look(wish(file)), lambda now: not now.is_checking)
    assert now.is_cancelled
    engine.go_on.set()
    checks.again(wish(file))
    until(lambda: checks.look(wish(file)), lambda now: now.is_current)
    assert len(engine.asked) == 2


def test_examples_are_asked_for_by_the_page(file: Path) -> None:
    engine = Engine()
    checks = Checks(engine)
    until(lambda: checks.look(wish(file)), lambda now: now.is_current)
    assert checks.look(wish(file), 25).example is not None
    far = checks.look(wish(file), 40)
    assert far.is_current
    assert far.is_checking
    assert far.example is None
    now = until(lambda: checks.look(wish(file), 40), lambda now: now.example is not None)
    assert now.example is not None
    assert now.example.number == 40
    assert [first for _, first in engine.asked] == [1, 26]
    assert checks.look(wish(file), 2).example is not None


def test_a_model_that_is_not_here_is_stood_in_for(file: Path) -> None:
    engine = Engine()

    def answer(asked: DataWish, first: int, is_unwanted: Callable[[], bool]) -> Any:
        if asked.model != "starter":
            return {"error": {"field": "model.source", "message": "gpt2 is not here."}}
        return engine(asked, first, is_unwanted)

    checks = Checks(answer)
    now = until(lambda: checks.look(wish(file, model="gpt2")), lambda now: now.is_current)
    assert now.is_stand_in
    assert now.check is not None
    assert not now.errors


@pytest.mark.parametrize(
    ("field", "is_of_the_data"),
    [("data.source", True), ("data.columns", True), ("train.sequence_length", True), ("x", False)],
)
def test_only_mistakes_of_the_data_are_its_errors(
    file: Path, field: str, is_of_the_data: bool
) -> None:
    answer = {"error": {"field": field, "message": "it is wrong.", "advice": "Mend it."}}
    checks = Checks(lambda *_: answer)
    now = until(lambda: checks.look(wish(file)), lambda now: now.is_current)
    assert bool(now.errors) is is_of_the_data
    assert bool(now.problem) is not is_of_the_data


def test_an_answer_that_is_none_is_a_problem(file: Path) -> None:
    checks = Checks(lambda *_: {"rows": "many"})
    now = until(lambda: checks.look(wish(file)), lambda now: now.is_current)
    assert now.problem == "The engine's answer could not be read."
    assert not now.errors


@pytest.mark.timeout(120)
def test_the_engine_is_asked_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    write_jsonl(path, chat_rows(24))
    checks = Checks()
    deadline = time.monotonic() + 100
    while not (now := checks.look(wish(path))).is_current and time.monotonic() < deadline:
        time.sleep(0.1)
    assert now.check is not None, now.problem
    assert now.check.usable == 24
    assert now.example is not None
    assert any(piece.trained for piece in now.example.pieces)
    assert now.check.training_rows + now.check.held_out_rows == 24
