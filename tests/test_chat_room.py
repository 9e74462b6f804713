"""Which of the weights in memory are those that a name stands for now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qft_gui.answers import Settings
from qft_gui.chat_room import ChatRoom
from tests.speaker import Speaker


@pytest.fixture
def speaker(tmp_path: Path) -> Iterator[Speaker]:
    speaker = Speaker(tmp_path)
    yield speaker
    speaker.client.close()


@pytest.mark.parametrize(
    ("name", "written"),
    [("otto", "otto/export"), ("otto@50", "otto/checkpoints/step-000050"), ("a@5", "a@5/export")],
)
def test_what_was_written_anew_is_loaded_anew(
    speaker: Speaker, tmp_path: Path, name: str, written: str
) -> None:
    runs = tmp_path / "runs"
    folder = runs / written
    folder.mkdir(parents=True)
    room = ChatRoom(speaker.client, runs)

    def ask() -> None:
        question = [{"role": "user", "content": "say 1 every 0"}]
        *_, last = room.ask(("starter", name), {"b": question}, Settings())
        assert last.replies["b"].is_done

    ask()
    ask()
    assert len(speaker.heard("load")) == 1
    os.utime(folder, ns=(0, 0))
    ask()
    assert len(speaker.heard("load")) == 2
