"""A checkpoint is whole or absent, whatever happens while it is saved and afterwards."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.checkpoint import (
    Progress,
    clean_up,
    committed,
    prune,
    restore_newest,
    save_checkpoint,
    verify,
)
from engine.contract.run_dir import RunDir
from tests.tiny import before_call, in_child, needs_fork

FILES = ("state.safetensors", "progress.json", "manifest.json")
# What Python tells before it calls the system; fsync is counted by itself.
CALLS = {
    "os.fsync",
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
}


def state_of(step: int) -> dict[str, Tensor]:
    return {
        "a/weight.codes": torch.full((40, 50), step % 100, dtype=torch.int8),
        "b/weight.values": torch.arange(4000, dtype=torch.float32) * step,
    }


def save(run: RunDir, step: int) -> Path:
    return save_checkpoint(run, 1, Progress(step, 100 * step, 0.5 * step, 2.5), state_of(step))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """With checkpoints of the steps 1 and 2."""
    run = RunDir(tmp_path / "a-run")
    run.checkpoints.mkdir(parents=True)
    for step in (1, 2):
        save(run, step)
    return run


def restored_step(run: RunDir) -> tuple[int, list[tuple[str, str]]]:
    """Step of the restored checkpoint, 0 for none, and what was told of bad ones."""
    told: list[tuple[str, str]] = []
    found = restore_newest(run, lambda name, problem: told.append((name, problem)))
    if found is None:
        return 0, told
    step = found.progress.step
    assert found.progress == Progress(step, 100 * step, 0.5 * step, 2.5)
    assert found.state.keys() == state_of(step).keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state_of(step).items())
    return step, told


def each_call(run: RunDir, act: Callable[[], None]) -> Iterator[tuple[RunDir, int]]:
    """Save step 3 with `act` before the first call, then before the second, until none is left."""
    for number in range(1, 200):
        copy = RunDir(run.path.parent / str(number) / run.name)
        shutil.copytree(run.path, copy.path)

        def work(copy: RunDir = copy, number: int = number) -> None:
            before_call(number, act, CALLS)
            save(copy, 3)
            committed(copy)  # one call more: where this is hit, every one of the save was

        code = in_child(work)
        yield copy, code
        if code == 0:
            return
    raise AssertionError("the save never came to its end")


@needs_fork
def test_killed_before_every_call_the_newest_checkpoint_is_whole(run: RunDir) -> None:
    steps = []
    for copy, code in each_call(run, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        assert code in (0, -signal.SIGKILL)
        clean_up(copy)
        assert all(entry.name.startswith("step-") for entry in copy.checkpoints.iterdir())
        assert all(verify(copy, folder) is None for folder in committed(copy))
        step, told = restored_step(copy)
        assert told == []
        steps.append(step)
        if len(steps) % 4 == 0:  # what was killed is done again
            save(copy, 3)
            assert restored_step(copy) == (3, [])
    assert len(steps) > 30
    assert steps == sorted(steps)
    assert set(steps) == {2, 3}


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@needs_fork
def test_failing_at_every_call_a_save_fails_cleanly_or_succeeds(run: RunDir) -> None:
    codes = []
    for copy, code in each_call(run, no_space):
        assert code in (0, errno.ENOSPC)
        codes.append(code)
        names = {entry.name for entry in copy.checkpoints.iterdir()}
        assert not any(name.startswith(".tmp-") for name in names)
        assert {"step-000002"} <= names
        assert restored_step(copy) == (3 if "step-000003" in names else 2, [])
        assert ("step-000001" if code else "step-000003") in names
    assert codes.count(errno.ENOSPC) > 15


@needs_fork
@pytest.mark.parametrize("limit", [0, 100, 10_000])
@pytest.mark.parametrize("deadly", [False, True])
def test_a_save_cut_short_amid_the_tensors(run: RunDir, limit: int, deadly: bool) -> None:
    def work() -> None:
        import resource

        if deadly:  # the system ends the process in the middle of its write
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        save(run, 3)

    assert in_child(work) == (-signal.SIGXFSZ if deadly else errno.EFBIG)
    if deadly:
        clean_up(run)
    assert {entry.name for entry in run.checkpoints.iterdir()} == {"step-000001", "step-000002"}
    assert restored_step(run) == (2, [])


def test_a_flipped_bit_is_never_loaded(run: RunDir) -> None:
    folder, dice = committed(run)[0], random.Random(8)
    for _ in range(50):
        file = folder / dice.choice(FILES[:2])
        data = bytearray(file.read_bytes())
        place, bit = dice.randrange(len(data)), 1 << dice.randrange(8)
        data[place] ^= bit
        file.write_bytes(data)
        assert verify(run, folder) == f"{file.name} was altered"
        data[place] ^= bit
        file.write_bytes(data)
    assert verify(run, folder) is None


def test_a_flipped_bit_in_the_manifest_loads_nothing_wrong(run: RunDir) -> None:
    file, dice = committed(run)[0] / "manifest.json", random.Random(9)
    good = file.read_bytes()
    refused = 0
    for _ in range(50):
        data = bytearray(good)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        file.write_bytes(data)
        refused += verify(run, file.parent) is not None
    assert refused >= 48, "nothing but the number of the attempt may differ"


def write_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}), encoding="utf-8")


def into_link(folder: Path) -> None:
    (folder / "progress.json").rename(folder.parent / "elsewhere.json")
    (folder / "progress.json").symlink_to(folder.parent / "elsewhere.json")


def into_folder(folder: Path) -> None:
    (folder / "progress.json").unlink()
    (folder / "progress.json").mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{
        f"{name} missing": (lambda folder, name=name: (folder / name).unlink(), "missing")
        for name in FILES
    },
    "extra file": (lambda folder: (folder / "more.json").write_text("{}"), "were added"),
    "a link": (into_link, "progress.json was altered"),
    "a folder": (into_folder, "progress.json was altered"),
    "another run": (lambda folder: write_manifest(folder, run="other"), "belongs to the run other"),
    "another step": (lambda folder: write_manifest(folder, step=1), "manifest"),
    "the future": (lambda folder: write_manifest(folder, format=99), "format 99"),
    "no list": (lambda folder: write_manifest(folder, files=None), "manifest"),
    "a wrong list": (lambda folder: write_manifest(folder, files=[*FILES[:2]]), "manifest"),
    "a number": (lambda folder: (folder / "manifest.json").write_text("7"), "manifest"),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.write_text("x")), "manifest"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_told(run: RunDir, damage: str) -> None:
    spoil, problem = DAMAGES[damage]
    spoil(run.checkpoints / "step-000002")
    step, told = restored_step(run)
    assert step == 1
    assert [name for name, _ in told] == ["step-000002"]
    assert problem in told[0][1]
    assert committed(run) == [run.checkpoints / "step-000001"]
    assert [entry.name for entry in run.checkpoints.glob(".bad-step-000002-*")]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", ["0", "1", "half", "all but one"])
def test_a_cut_file_is_set_aside(run: RunDir, name: str, share: str) -> None:
    file = run.checkpoints / "step-000002" / name
    size = file.stat().st_size
    os.truncate(file, {"0": 0, "1": 1, "half": size // 2, "all but one": size - 1}[share])
    step, told = restored_step(run)
    assert step == 1
    assert len(told) == 1


def test_with_every_checkpoint_bad_there_is_none(run: RunDir) -> None:
    for folder in committed(run):
        os.truncate(folder / "state.safetensors", 10)
    step, told = restored_step(run)
    assert (step, [name for name, _ in told]) == (0, ["step-000002", "step-000001"])
    save(run, 2)
    assert restored_step(run) == (2, [])


def test_the_newest_two_are_kept(run: RunDir) -> None:
    for step in (3, 20, 1_000_000):
        save(run, step)
        kept = [int(folder.name.removeprefix("step-")) for folder in committed(run)]
        assert kept == {3: [3, 2], 20: [20, 3], 1_000_000: [1_000_000, 20]}[step]
    assert len(list(run.checkpoints.iterdir())) == 2
    prune(run, 1, keep=0)
    assert list(run.checkpoints.iterdir()) == []
    assert restored_step(run) == (0, [])


def test_only_leftovers_of_our_own_are_removed(run: RunDir) -> None:
    for name in (".tmp-3-1-77", ".del-1-2-77"):
        (run.checkpoints / name).mkdir()
        (run.checkpoints / name / "state.safetensors").write_bytes(b"half")
    others = {".tmp-3-1", ".tmp-a-1-77", "tmp-3-1-77", ".bad-step-000001-77", "notes"}
    for name in others:
        (run.checkpoints / name).mkdir()
    target = run.path / "precious"
    target.mkdir()
    (run.checkpoints / ".tmp-4-1-77").symlink_to(target)
    (run.checkpoints / ".tmp-5-1-77").write_text("a file")
    clean_up(run)
    left = {entry.name for entry in run.checkpoints.iterdir()}
    assert left == others | {".tmp-4-1-77", ".tmp-5-1-77", "step-000001", "step-000002"}
    assert target.is_dir()
