"""Steps that are tried, and rates that are measured: real engines, which end with the window."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.contract.launch import PROJECT, engine_environment
from engine.memory.devices import choose_device
from engine.memory.machine_rates import rates_of
from qft_gui.forecasts import Forecasts
from qft_gui.form import Form
from qft_gui.lately import Lately
from qft_gui.surroundings import Surroundings
from qft_gui.trials import RatesTaker, Trials
from qft_gui.view.times import time_card

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]
WINDOW = """
import sys
from qft_gui.trials import Trials
trials = Trials()
trials.begin({"model": {"source": "starter"}, "data": {"source": "pirate"},
              "method": {"kind": "lora"}, "train": {"device": "cpu"}})
print("begun", flush=True)
sys.stdin.read()
"""


def document(**values: Any) -> dict[str, Any]:
    return Form(device="cpu", batch_size=2, sequence_length=64).with_values(values).document()


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def engines_of(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children()
    return [child for child in children if "qft_gui.tethered" in " ".join(child.cmdline())]


def test_two_steps_of_exactly_these_settings_are_tried_once_at_a_time() -> None:
    surroundings = Surroundings(lambda: None)
    wish = document()
    surroundings.try_steps(wish)
    trial = surroundings.trials.of(wish)
    assert trial is not None
    assert not surroundings.trials.begin(wish)  # a second click
    assert not surroundings.trials.begin(document(seed=1))
    device = choose_device("cpu")
    assert surroundings.at(device, wish).trial is trial
    other = surroundings.at(device, document(seed=1))
    assert other.trial is None
    assert other.is_trying_another
    wait_for(lambda: trial.is_over)
    assert trial.error is None
    report = Forecasts().report(wish)
    card = time_card(report, surroundings.at(device, wish))
    assert "a step" in card["tried"]["time"]
    assert trial.answer is not None
    assert abs(trial.answer.forecast_bytes / trial.answer.measured_peak_bytes - 1) < 0.25
    assert time_card(report, surroundings.at(device, document(seed=1)))["tried"] is None
    assert surroundings.trials.begin(wish)  # a person asks again
    surroundings.trials.cancel()


def test_a_request_that_the_engine_refuses_says_why() -> None:
    trials, wish = Trials(), {**document(), "model": {"source": "/nowhere/at/all"}}
    trials.begin(wish)
    wait_for(lambda: trials.under_way() is None)
    trial = trials.of(wish)
    assert trial is not None
    assert trial.error is not None
    assert trial.error.field == "model.source"


def test_cancelling_ends_the_engine_and_keeps_nothing() -> None:
    trials, wish = Trials(), document()
    trials.begin(wish)
    wait_for(lambda: engines_of(os.getpid()))
    (engine,) = engines_of(os.getpid())
    trials.cancel()
    assert trials.of(wish) is None
    wait_for(lambda: not psutil.pid_exists(engine.pid), 10)
    assert trials.begin(wish)
    trials.cancel()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that kill")
def test_an_engine_that_a_signal_ended_is_a_plain_sentence() -> None:
    trials, wish = Trials(), document()
    trials.begin(wish)
    wait_for(lambda: engines_of(os.getpid()))
    engines_of(os.getpid())[0].send_signal(signal.SIGKILL)
    wait_for(lambda: trials.under_way() is None)
    trial = trials.of(wish)
    assert trial is not None
    assert trial.error is not None
    assert trial.error.message == "The system ended it, most likely for lack of memory."


def test_the_engine_ends_with_a_window_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WINDOW],
        cwd=PROJECT,
        env=engine_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as window:
        assert window.stdout is not None
        assert window.stdout.readline() == "begun\n"
        wait_for(lambda: engines_of(window.pid))
        (engine,) = engines_of(window.pid)
        time.sleep(1)
        assert engine.is_running()
        window.kill()
        wait_for(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE, 10)


def test_nothing_is_tried_or_measured_while_a_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    surroundings = Surroundings(lambda: "otto")
    device = choose_device("cpu")
    surroundings.try_steps(document())
    assert surroundings.trials.under_way() is None
    wait_for(lambda: surroundings.at(device, document()).run == "otto", 10)
    wait_for(lambda: not surroundings.at(device, document()).is_measuring, 10)
    assert not engines_of(os.getpid())
    assert rates_of(device) is None


def test_rates_are_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    taker, device = RatesTaker(lambda: False), choose_device("cpu")
    taker.measure(device)
    assert taker.is_measuring(device)
    wait_for(lambda: not taker.is_measuring(device))
    assert taker.failure(device) is None
    assert rates_of(device) is not None
    taker.measure(device)
    assert not taker.is_measuring(device)


def test_rates_that_cannot_be_kept_are_tried_for_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    taker, device = RatesTaker(lambda: False), choose_device("cpu")
    taker.measure(device)
    wait_for(lambda: not taker.is_measuring(device))
    failure = taker.failure(device)
    assert failure is not None
    assert failure.message.startswith("the rates cannot be kept")
    taker.measure(device)
    assert not taker.is_measuring(device)


def test_nobody_waits_for_an_answer_that_takes_its_time() -> None:
    asked: list[str] = []

    def slow(question: str) -> str:
        asked.append(question)
        time.sleep(0.2)
        return question.upper()

    lately = Lately(slow, str, seconds=60)
    began = time.monotonic()
    assert lately.get("a") is None
    assert lately.get("a") is None
    assert time.monotonic() - began < 0.1
    wait_for(lambda: lately.get("a") == "A", 5)
    assert asked == ["a"]
    assert lately.get("b") is None  # another question has another answer
    wait_for(lambda: lately.get("b") == "B", 5)
    assert asked == ["a", "b"]


def test_the_window_has_no_torch_whatever_it_forecasts_and_tries() -> None:
    code = (
        "import sys\n"
        "import qft_gui.setup_frames, qft_gui.trials, qft_gui.prospects, qft_gui.tethered\n"
        "from qft_gui.forecasts import Forecasts\n"
        "from qft_gui.form import Form\n"
        "from qft_gui.surroundings import Surroundings\n"
        "around = Surroundings(lambda: None)\n"
        "form = Form(model='llama-2-13b', batch_size=64)\n"
        "page = qft_gui.setup_frames.setup_frames(form, Forecasts(), surroundings=around)\n"
        "assert 'GiB' in page.fit\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'gradio'} & {*sys.modules}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=engine_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "[]"
