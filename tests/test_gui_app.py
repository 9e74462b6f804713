"""Starting the window: what is refused in one sentence, and what Gradio may not inherit."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
from engine.contract.errors import ExitCode
from qft_gui.server import Address, plotly_script, prepare_gradio


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_other_computers_need_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--host", "0.0.0.0"]) == ExitCode.BAD_REQUEST
    assert "--allow-host NAME" in capsys.readouterr().err


def test_a_taken_port_that_was_asked_for_is_one_sentence(
    taken_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["--port", str(taken_port)]) == ExitCode.BAD_REQUEST
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_wish_the_next_free_port_is_taken(
    taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "DEFAULT_PORT", taken_port)
    found = app.free_port("127.0.0.1", None)
    assert found is not None
    assert found > taken_port


def test_offline_reaches_every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in app.OFFLINE:
        monkeypatch.setenv(name, "0")  # taken back afterwards, whatever main writes
    monkeypatch.setattr(app, "serve", lambda options, port: None)
    assert app.main(["--offline"]) == ExitCode.DONE
    assert {os.environ[name] for name in app.OFFLINE} == {"1"}


def test_gradio_inherits_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"GRADIO_SHARE": "True", "GRADIO_WATCH_DEMO_PATH": "/x"})
    prepare_gradio(tmp_path / "scratch")
    assert "GRADIO_WATCH_DEMO_PATH" not in os.environ
    assert os.environ["GRADIO_SHARE"] == os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert (tmp_path / "scratch").stat().st_mode & 0o077 == 0


def test_plotly_comes_from_this_computer() -> None:
    assert plotly_script().stat().st_size > 1_000_000


def test_the_address_as_a_browser_takes_it() -> None:
    assert Address("127.0.0.1", 7860).url == "http://127.0.0.1:7860/"
    assert Address("0.0.0.0", 7860, ("lab.local",)).url == "http://lab.local:7860/"
    assert Address("::1", 7860).url == "http://[::1]:7860/"
