"""Who is answered now, while others ask and stop."""

from __future__ import annotations

import threading

from qft_gui.chat_floor import Asker, Floor
from tests.waiting import until


def test_those_who_wait_are_let_in_one_after_the_other() -> None:
    floor, askers = Floor(), [Asker() for _ in range(3)]
    assert [floor.take(one) for one in askers] == [True, False, False]
    floor.leave(askers[0])
    assert not floor.take(askers[2])
    assert floor.take(askers[1])
    assert floor.holder is askers[1]


def test_nobody_is_let_in_while_an_answer_is_ended_and_nobody_is_held_up() -> None:
    floor, one, other = Floor(), Asker(), Asker()
    assert floor.take(one)
    is_ending, may_end = threading.Event(), threading.Event()

    def end() -> None:
        is_ending.set()
        may_end.wait()

    stopping = threading.Thread(target=floor.stop, args=(one, end), daemon=True)
    stopping.start()
    is_ending.wait()
    # The floor answers though the end takes long.
    floor.leave(one)
    assert not floor.take(other)
    assert floor.holder is None
    may_end.set()
    stopping.join()
    assert floor.take(other)


def test_only_an_answer_that_is_given_is_ended() -> None:
    floor, one, other = Floor(), Asker(), Asker()
    ended: list[Asker] = []
    assert floor.take(one)
    assert not floor.take(other)
    floor.stop(other, lambda: ended.append(other))
    assert other.is_stopped
    floor.stop(one, lambda: ended.append(one))
    assert ended == [one]


def test_whoever_waits_is_woken_by_their_own_stop() -> None:
    floor, one, other = Floor(), Asker(), Asker()
    assert floor.take(one)
    taken: list[bool] = []
    waiting = threading.Thread(target=lambda: taken.append(floor.take(other, 3600)), daemon=True)
    waiting.start()
    floor.stop(other, lambda: None)
    assert until(lambda: taken) == [False]
