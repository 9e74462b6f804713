"""The service: everything from the run folders, one run per click, nothing outside the folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.contract.events import EventWriter
from engine.contract.identity import current_identity
from qft_gui import engine_commands
from qft_gui import service as service_module
from qft_gui.service import Service
from tests.test_gui_golden import golden_run, result


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Specs that were launched; no engine is started."""
    specs: list[dict[str, Any]] = []

    def launch(document: dict[str, Any], runs: Path, name: str | None) -> str:
        specs.append(document)
        return golden_run(runs, name or f"run-{len(specs)}").name

    monkeypatch.setattr(engine_commands, "launch", launch)
    return specs


def test_a_double_click_makes_one_run(tmp_path: Path, launched: list[dict[str, Any]]) -> None:
    service = Service(tmp_path)
    names: list[str] = []
    clicks = [
        threading.Thread(target=lambda: names.append(service.start({"model": "a"})))
        for _ in range(4)
    ]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    assert len(set(names)) == len(launched) == 1


def test_another_request_makes_another_run(tmp_path: Path, launched: list[dict[str, Any]]) -> None:
    service = Service(tmp_path)
    assert service.start({"model": "a"}) != service.start({"model": "b"})
    assert len(launched) == 2


def test_a_new_service_shows_the_same_run(tmp_path: Path) -> None:
    golden_run(tmp_path)
    request = {"run": "golden"}
    first, second = Service(tmp_path).points(request), Service(tmp_path).points(request)
    assert first == second
    assert first["reset"]
    assert first["loss"]["x"] == list(range(1, 61))
    assert first["limits"] == {"total": 1000, "low": 900, "high": 1100, "free": 5000}


def test_points_go_on_from_the_cursor(tmp_path: Path) -> None:
    run = golden_run(tmp_path, done=30, outcome="interrupted")
    service = Service(tmp_path)
    first = service.points({"run": "golden"})
    with EventWriter(run.events_path, 1) as log:
        log.emit("step", step=31, loss_nats=1.0, num_target_tokens=9, step_s=0.5)
    more = service.points({"run": "golden", "attempt": first["attempt"], "since": first["next"]})
    assert not more["reset"]
    assert more["loss"]["x"] == [31]


def test_a_new_attempt_resets_the_plots(tmp_path: Path) -> None:
    run = golden_run(tmp_path, done=30, outcome="interrupted")
    service = Service(tmp_path)
    first = service.points({"run": "golden"})
    with EventWriter(run.events_path, 2) as log:
        log.emit("phase", phase="training", steps=60, resumed_at=20)
    again = service.points({"run": "golden", "attempt": 1, "since": first["next"]})
    assert again["reset"]
    assert again["loss"]["x"][-1] == 20


@pytest.mark.parametrize(
    "request_",
    [
        None,
        [],
        "golden",
        {},
        {"run": None},
        {"run": 7},
        {"run": "../golden"},
        {"run": "golden/../golden"},
        {"run": ".scratch"},
        {"run": "/etc"},
        {"run": "golden\x00"},
        {"run": "gone"},
    ],
)
def test_a_request_that_makes_no_sense_gets_a_reason(tmp_path: Path, request_: object) -> None:
    golden_run(tmp_path)
    answer = Service(tmp_path).points(request_)
    assert not answer["ok"]
    assert answer["why"]


@pytest.mark.parametrize("since", [-5, 10**9, "3", None])
def test_a_cursor_that_makes_no_sense_starts_over(tmp_path: Path, since: object) -> None:
    golden_run(tmp_path)
    answer = Service(tmp_path).points({"run": "golden", "attempt": 1, "since": since})
    assert answer["reset"]


def test_the_live_run_is_found_among_others(tmp_path: Path) -> None:
    golden_run(tmp_path, "over")
    live = golden_run(tmp_path, "live", done=3, outcome=None)
    live.write_owner(current_identity().as_json())
    service = Service(tmp_path)
    assert service.live_run() == "live"
    assert service.snapshot("live").status.status == "running"
    service.stop("live")
    assert service.snapshot("live").status.status == "stopping"


def test_stop_leaves_a_finished_run_alone(tmp_path: Path) -> None:
    run = golden_run(tmp_path)
    Service(tmp_path).stop("golden")
    assert run.stop_request() is None


def test_a_finished_run_is_deleted_at_once(tmp_path: Path) -> None:
    run = golden_run(tmp_path)
    service = Service(tmp_path)
    service.snapshot("golden")
    service.discard("golden")
    assert not run.path.exists()
    assert service.names() == []


def test_a_live_run_is_deleted_when_it_is_over(tmp_path: Path) -> None:
    run = golden_run(tmp_path, done=3, outcome=None)
    run.write_owner(current_identity().as_json())
    Service(tmp_path).discard("golden")
    assert run.stop_request() == "discard"
    assert run.path.exists()
    run.write_result(result("stopped", 3))
    deadline = time.monotonic() + 60
    while run.path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not run.path.exists()


@pytest.fixture
def undeletable(monkeypatch: pytest.MonkeyPatch) -> None:
    def rmtree(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(service_module.shutil, "rmtree", rmtree)


@pytest.mark.usefixtures("undeletable")
def test_a_folder_that_cannot_be_deleted_is_a_sentence(tmp_path: Path) -> None:
    golden_run(tmp_path)
    with pytest.raises(RequestError, match="could not be deleted: Permission denied"):
        Service(tmp_path).discard("golden")


def notice_of(service: Service) -> str:
    deadline = time.monotonic() + 60
    while not service.snapshot("golden").notice and time.monotonic() < deadline:
        time.sleep(0.05)
    return service.snapshot("golden").notice


@pytest.mark.usefixtures("undeletable")
def test_a_late_failure_to_delete_stands_on_the_page(tmp_path: Path) -> None:
    run = golden_run(tmp_path, done=3, outcome=None)
    run.write_owner(current_identity().as_json())
    service = Service(tmp_path)
    service.discard("golden")
    run.write_result(result("stopped", 3))
    assert "could not be deleted" in notice_of(service)


def test_an_engine_that_does_not_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "DISCARD_PATIENCE_S", 0.1)
    run = golden_run(tmp_path, done=3, outcome=None)
    run.write_owner(current_identity().as_json())
    service = Service(tmp_path)
    service.discard("golden")
    assert "did not end within" in notice_of(service)
    assert run.path.exists()


def test_a_link_out_of_the_folder_is_no_run(tmp_path: Path) -> None:
    outside = golden_run(tmp_path / "elsewhere")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(outside.path)
    service = Service(tmp_path / "runs")
    with pytest.raises(RequestError):
        service.discard("link")
    assert outside.path.exists()


def test_what_can_be_compared(tmp_path: Path) -> None:
    run = golden_run(tmp_path)
    golden_run(tmp_path, "killed", done=3, outcome="interrupted")
    service = Service(tmp_path)
    assert service.export_of("golden") == ("starter", str(run.export.resolve()))
    with pytest.raises(RequestError, match="no tuned model"):
        service.export_of("killed")
