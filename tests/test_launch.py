"""An engine lives on its own: launchers, signals and kills cost at most the steps since a save."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from engine.commands.parser import main
from engine.contract.events import EventReader
from engine.contract.run_dir import RunDir
from engine.contract.status import RunStatus, read_status
from tests.workshop import (
    DEADLINE_S,
    STEPS,
    Workshop,
    checkpoints_of,
    ended,
    engine_process,
    events_of,
    history_of,
    open_workshop,
    signal_engine,
    tree,
    wait_for_step,
    wait_until,
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with open_workshop(tmp_path_factory.mktemp("workshop")) as workshop:
        yield workshop


@dataclass
class Story:
    """What was seen while one run went through three attempts."""

    run: RunDir
    step_at_launchers_death: int = 0
    frozen: str = ""
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    second: tuple[int, str] = (0, "")
    ends: list[RunStatus] = field(default_factory=list)
    checkpoints: list[list[str]] = field(default_factory=list)
    exit_code: int | None = None

    def note_end(self) -> None:
        self.ends.append(ended(self.run))
        self.checkpoints.append(checkpoints_of(self.run))


@pytest.fixture(scope="module")
def story(workshop: Workshop) -> Story:
    run = workshop.run_dir("story")
    story = Story(run)
    # The launcher and its group are killed; the engine goes on.
    launcher = workshop.start("story")
    wait_until(run.spec_path.is_file)
    wait_for_step(run, 3)
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.communicate()
    story.step_at_launchers_death = history_of(run).last_step
    wait_for_step(run, story.step_at_launchers_death + 12)
    # A second engine comes while the first holds still.
    signal_engine(run, signal.SIGSTOP)
    story.frozen, story.before = read_status(run).status, tree(run.path)
    second = engine_process(run)
    _, words = second.communicate(timeout=DEADLINE_S)
    story.second, story.after = (second.returncode, words), tree(run.path)
    # The first is killed; another attempt goes on from its checkpoint and is terminated.
    signal_engine(run, signal.SIGKILL)
    story.note_end()
    run.archive_attempt()
    terminated = engine_process(run)
    wait_for_step(run, story.ends[0].step + 15, attempt=2)
    terminated.send_signal(signal.SIGTERM)
    terminated.communicate(timeout=DEADLINE_S)
    story.exit_code = terminated.returncode
    story.note_end()
    assert main(["resume", "story", "--runs", str(workshop.runs)]) == 0
    story.note_end()
    return story


def newest_of(checkpoints: list[str]) -> int:
    return max(int(name[5:]) for name in checkpoints if name.startswith("step-"))


def test_an_engine_survives_its_launcher_and_its_group(story: Story) -> None:
    assert story.step_at_launchers_death >= 3
    assert story.ends[0].step >= story.step_at_launchers_death + 12


def test_a_second_engine_leaves_without_a_trace(story: Story) -> None:
    assert story.frozen in ("running", "saving")
    assert story.second == (2, "")
    assert story.after == story.before


def test_a_killed_engine_is_interrupted_and_its_checkpoints_stay(story: Story) -> None:
    killed = story.ends[0]
    assert killed.status == "interrupted"
    assert killed.error
    assert killed.error["class"] == "interrupted"
    assert killed.error["advice"] == "Resume continues from the last checkpoint."
    assert killed.steps == STEPS
    # It may have died while it saved: then the newest is the one before.
    assert killed.step - 20 < newest_of(story.checkpoints[0]) <= killed.step


def test_a_signal_ends_the_step_saves_it_and_stops(story: Story) -> None:
    end = story.ends[1]
    assert story.exit_code == 3
    assert (end.status, end.error, end.eta_s) == ("stopped", None, None)
    assert story.checkpoints[1][-1] == f"step-{end.step:06d}"
    events = [event for event in events_of(story.run) if event["attempt"] == 2]
    assert [event["step"] for event in events if event["kind"] == "step"][-1] == end.step
    assert events[-1]["phase"] == "done"


def test_after_all_attempts_the_curve_has_no_gap_and_no_double(story: Story) -> None:
    assert [end.status for end in story.ends] == ["interrupted", "stopped", "finished"]
    history = history_of(story.run)
    assert sorted(history.steps) == list(range(1, STEPS + 1))
    assert [history.steps[step]["attempt"] for step in (1, STEPS)] == [1, 3]
    resumed = [
        (event["attempt"], event["resumed_at"])
        for event in events_of(story.run)
        if event.get("resumed_at") is not None
    ]
    assert resumed == [
        (1, 0),
        (2, newest_of(story.checkpoints[0])),
        (3, newest_of(story.checkpoints[1])),
    ]
    for attempt, start in resumed:
        assert history.steps[start + 1]["attempt"] == attempt
    assert [(key, value) for key, value in history.evals.items() if key] == [
        (STEPS, history.evals[STEPS])
    ]


def test_every_event_is_readable_and_numbered_within_its_attempt(story: Story) -> None:
    reader = EventReader(story.run.events_path)
    events = reader.read()
    assert reader.bad_lines == 0
    for attempt in (1, 2, 3):
        numbers = [event["seq"] for event in events if event["attempt"] == attempt]
        assert numbers == list(range(1, len(numbers) + 1))


def test_each_attempt_keeps_its_records(story: Story) -> None:
    attempts = story.run.path / "attempts"
    records = [RunDir(attempts / "1"), RunDir(attempts / "2"), story.run]
    owners = [record.owner or {} for record in records]
    assert [owner["attempt"] for owner in owners] == [1, 2, 3]
    assert len({owner["pid"] for owner in owners}) == 3
    results = [record.result or {} for record in records]
    assert [result.get("outcome") for result in results] == [None, "stopped", "finished"]
    assert results[2]["steps_done"] == STEPS
    assert {"torch", "transformers", "python"} <= set((story.run.owner or {})["versions"])


def test_a_finished_run_is_whole_and_cannot_be_resumed_or_stopped(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (story.run.export / "config.json").is_file()
    assert not any(path.name.startswith(".") for path in story.run.path.rglob("*"))
    before = tree(story.run.path)
    for command, words in (
        ("resume", "run: story is finished, so there is nothing to resume. It is done."),
        ("stop", "run: story is finished already. Nothing was changed."),
    ):
        assert main([command, str(story.run.path)]) == 2
        assert capsys.readouterr().err == f"{words}\n"
    assert tree(story.run.path) == before
