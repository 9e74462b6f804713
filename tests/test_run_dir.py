"""A run folder is there whole or not at all, and has one name and one set of records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from engine.contract import durable
from engine.contract.errors import RequestError
from engine.contract.run_dir import RunDir, create_run, find_run, list_runs
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec

PROJECT = Path(__file__).parents[1]
DOCUMENT = {
    "model": {"source": "starter"},
    "data": {"source": "pirate"},
    "method": {"kind": "qft"},
}
RECORDS = ("launch.json", "owner.json", "result.json", "stop")


@pytest.fixture
def spec() -> RunSpec:
    return validate_spec(DOCUMENT)


@pytest.fixture
def run(tmp_path: Path, spec: RunSpec) -> RunDir:
    return create_run(tmp_path / "runs", spec, "one")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def python(*lines: str, arguments: tuple[str, ...] = ()) -> list[str]:
    imports = (
        "import json, os, resource, sys; from pathlib import Path; import engine.contract as c\n"
        "from engine.contract.run_dir import *; from engine.contract import durable\n"
        "from engine.contract.spec_file import validate_spec\n"
        f"spec = validate_spec({DOCUMENT!r})\n"
    )
    return [sys.executable, "-c", imports + "\n".join(lines), *arguments]


def test_a_new_run_holds_its_spec_and_an_empty_folder_for_checkpoints(run: RunDir) -> None:
    assert names(run.path) == ["checkpoints", "spec.json"]
    assert run.spec() == validate_spec(DOCUMENT)
    assert names(run.path.parent) == ["one"]
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert run.attempt() == 1


def test_default_names_tell_method_and_model(tmp_path: Path) -> None:
    for source, expected in (
        ("starter", "starter"),
        ("/home/me/Mödel v1.2/", "model-v1-2"),
        ("C:\\models\\Big", "big"),
        ("文字", "model"),
        ("a/" + "x" * 100, "x" * 40),
    ):
        spec = validate_spec({**DOCUMENT, "model": {"source": source}})
        name = create_run(tmp_path, spec).name
        assert name[:4].isdigit()
        assert name[15:].startswith(f"-qft-{expected}"), name


def test_runs_of_the_same_second_get_names_of_their_own(tmp_path: Path, spec: RunSpec) -> None:
    made = [create_run(tmp_path, spec).name for _ in range(12)]
    assert len(set(made)) == 12
    assert names(tmp_path) == sorted(made)


def test_a_name_that_is_taken_is_refused_and_nothing_is_left(run: RunDir, spec: RunSpec) -> None:
    with pytest.raises(RequestError, match=r"^name: a run called one exists already\."):
        create_run(run.path.parent, spec, "one")
    (run.path.parent / "file").write_text("", encoding="utf-8")
    with pytest.raises(RequestError, match="name: a run called file exists already"):
        create_run(run.path.parent, spec, "file")
    assert names(run.path.parent) == ["file", "one"]


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/b", "a\\b", "/etc", "-a", ".hidden", "a b", "a\n", "é", "a\x00b"),
        *("CON", "con", "Nul.txt", "com1", "LPT9.log", "end.", "x" * 121, "$(touch x)"),
    ],
)
def test_names_that_some_system_cannot_hold_are_refused(
    tmp_path: Path, spec: RunSpec, name: str
) -> None:
    with pytest.raises(RequestError, match=r"^name: .* cannot name a run"):
        create_run(tmp_path / "runs", spec, name)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "console", "x" * 120, "2026"])
def test_ordinary_names_are_taken_as_they_are(tmp_path: Path, spec: RunSpec, name: str) -> None:
    assert create_run(tmp_path, spec, name).name == name


def test_a_runs_folder_that_cannot_be_written_is_told(tmp_path: Path, spec: RunSpec) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    for runs in (blocked, blocked / "deeper", Path("/proc/runs")):
        with pytest.raises(RequestError, match=r"^runs: .* cannot be written to \(.+\)\."):
            create_run(runs, spec)
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_no_half_run(tmp_path: Path) -> None:
    script = python(
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))",
        "try: create_run(Path(sys.argv[1]), spec, 'one')",
        "except RequestError as error: print(error)",
        arguments=(str(tmp_path),),
    )
    done = subprocess.run(script, cwd=PROJECT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"runs: {tmp_path} cannot be written to (File too large).")
    assert names(tmp_path) == []


@pytest.mark.parametrize("kill_at", ["mkdtemp", "mkdir", "fsync", "rename"])
def test_a_launcher_killed_midway_leaves_no_run(tmp_path: Path, kill_at: str) -> None:
    module = {"mkdtemp": "tempfile", "mkdir": "Path", "fsync": "os", "rename": "Path"}[kill_at]
    script = python(
        "import tempfile",
        f"kept = {module}.{kill_at}",
        "def kill(*a, **k):",
        f"    if {kill_at!r} == 'mkdtemp': kept(*a, **k)",
        "    os.kill(os.getpid(), 9)",
        "Path(sys.argv[1]).mkdir()",
        f"{module}.{kill_at} = kill",
        "create_run(Path(sys.argv[1]), spec, 'one')",
        arguments=(str(tmp_path / "runs"),),
    )
    assert subprocess.run(script, cwd=PROJECT, check=False).returncode == -9
    assert list_runs(tmp_path / "runs") == []
    assert all(name.startswith(".creating-") for name in names(tmp_path / "runs"))
    with pytest.raises(RequestError, match="there is no run one"):
        find_run("one", tmp_path / "runs")
    create_run(tmp_path / "runs", validate_spec(DOCUMENT), "one")
    assert [run.name for run in list_runs(tmp_path / "runs")] == ["one"]


def test_processes_that_create_at_once_get_different_folders(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    runs = tmp_path / "runs"
    script = python(
        "while not Path(sys.argv[2]).exists(): pass",
        "print(json.dumps([create_run(Path(sys.argv[1]), spec).name for _ in range(20)]))",
        arguments=(str(runs), str(gate)),
    )
    children = [
        subprocess.Popen(script, cwd=PROJECT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    time.sleep(1)
    gate.write_text("", encoding="utf-8")
    said = [child.communicate()[0] for child in children]
    made = [name for names_said in said for name in json.loads(names_said)]
    assert len(set(made)) == 60
    assert names(runs) == sorted(made)


def test_a_name_that_is_taken_between_look_and_rename_is_passed_over(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(draft: Path, target: Path) -> None:
        monkeypatch.undo()
        (target / "checkpoints").mkdir(parents=True)
        draft.rename(target)

    monkeypatch.setattr(Path, "rename", rename)
    assert create_run(tmp_path, spec).name.endswith("-qft-starter-2")


def test_an_attempt_takes_exactly_its_records_along(run: RunDir) -> None:
    run.write_launch({"pid": 1})
    run.write_owner({"pid": 2})
    run.write_result({"outcome": "stopped"})
    run.request_stop()
    run.events_path.write_bytes(b"{}\n")
    run.log_path.write_bytes(b"words\n")
    kept = {"attempts", "checkpoints", "engine.log", "events.jsonl", "spec.json"}
    assert run.archive_attempt() == 2
    assert set(names(run.path)) == kept
    assert names(run.path / "attempts" / "1") == sorted(RECORDS)
    assert json.loads((run.path / "attempts/1/owner.json").read_bytes()) == {"pid": 2}
    assert (run.attempt(), run.owner, run.result, run.stop_request()) == (2, None, None, None)
    (run.path / "attempts" / ".DS_Store").write_bytes(b"")
    assert run.archive_attempt() == 3
    assert names(run.path / "attempts" / "2") == []


def test_two_that_resume_at_once_make_one_attempt(run: RunDir) -> None:
    run.write_result({"outcome": "stopped"})
    (run.path / "attempts" / "1").mkdir(parents=True)
    racing = RunDir(run.path)
    racing.attempt = lambda: 1  # pyright: ignore[reportAttributeAccessIssue], as a moment ago
    with pytest.raises(RequestError, match="one is being resumed already"):
        racing.archive_attempt()
    assert run.result == {"outcome": "stopped"}


def test_the_stop_wish_is_keep_unless_it_says_discard(run: RunDir) -> None:
    stop = run.path / "stop"
    assert run.stop_request() is None
    run.request_stop()
    assert run.stop_request() == "keep"
    run.request_stop(discard=True)
    assert run.stop_request() == "discard"
    run.request_stop()
    assert run.stop_request() == "keep"
    for content, wish in (
        (b"", "keep"),
        (b"discard\r\n", "discard"),
        (b"\xff\xfed\x00i\x00s\x00", "keep"),
        (b"\xff", "keep"),
    ):
        stop.write_bytes(content)
        assert run.stop_request() == wish
    stop.unlink()
    stop.mkdir()
    assert run.stop_request() == "keep"


def test_threads_that_write_the_same_record_leave_one_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    faults: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(30):
                durable.write_json(path, {"number": number, "text": "x" * 5000})
        except BaseException as error:  # told to the test below
            faults.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    seen: list[dict[str, Any] | None] = []
    while any(thread.is_alive() for thread in threads):
        seen.append(durable.read_json(path) if path.exists() else {})
    assert faults == []
    assert None not in seen
    assert names(tmp_path) == ["record.json"]


def test_what_a_killed_writer_left_behind_is_in_nobodys_way(run: RunDir) -> None:
    (run.path / f".tmp-result.json-{os.getpid()}").write_bytes(b"half")
    run.write_result({"outcome": "finished"})
    assert run.result == {"outcome": "finished"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_result({"loss": float("nan")})
    assert run.result == {"outcome": "finished"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"pid": 1', b"9" * 5000],
)
def test_unreadable_records_are_as_good_as_none(run: RunDir, content: bytes) -> None:
    for name in RECORDS[:3]:
        (run.path / name).write_bytes(content)
    assert (run.launch, run.owner, run.result) == (None, None, None)


def test_the_list_is_newest_first_and_holds_runs_only(tmp_path: Path, spec: RunSpec) -> None:
    assert list_runs(tmp_path / "absent") == []
    for age, name in enumerate(("b", "a", "c")):
        os.utime(create_run(tmp_path, spec, name).spec_path, (1000 + age, 1000 + age))
    os.utime(create_run(tmp_path, spec, "d").spec_path, (1001, 1001))
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert [run.name for run in list_runs(tmp_path)] == ["c", "d", "a", "b"]


def test_runs_are_found_by_folder_and_by_name(run: RunDir, tmp_path: Path) -> None:
    runs = run.path.parent
    assert find_run("one", runs).path == run.path.resolve()
    assert find_run(str(run.path), tmp_path / "elsewhere").path == run.path.resolve()
    for target in ("two", "", "..", "x" * 5000, "a\x00b", "~no-one-here/x"):
        with pytest.raises(RequestError, match="there is no run"):
            find_run(target, runs)
