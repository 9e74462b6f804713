"""What a killed writer left behind goes with the next one, and nothing else does. Real kills."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.contract.drafts import commit_draft, draft_folder, remove_leftovers
from engine.contract.identity import current_identity
from engine.contract.launch import PROJECT, engine_environment
from qft_gui.comparing.errands import Errand, Errands
from tests.tuned_copy import tuned_copy
from tests.workshop import tree, wait_until

WRITE = (
    "import sys; from pathlib import Path; from engine.contract.drafts import draft_folder\n"
    "with draft_folder(Path(sys.argv[1]), 'model') as draft:\n"
    "    (draft / 'part').write_text('half'); print(draft, flush=True); sys.stdin.read()"
)


@contextmanager
def another_writer(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that writes a draft until it is ended, and the draft."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder)],
        cwd=PROJECT,
        env=engine_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        draft = Path(process.stdout.readline().strip())
        try:
            yield process, draft
        finally:
            process.kill()


def test_a_killed_writer_s_draft_goes_and_a_living_one_s_stays(tmp_path: Path) -> None:
    with another_writer(tmp_path) as (living, kept), another_writer(tmp_path) as (dead, left):
        dead.kill()
        dead.wait()
        assert (left / "part").read_text() == "half"
        with draft_folder(tmp_path, "other") as draft:
            (draft / "part").touch()
            assert not left.exists()
            commit_draft(draft, tmp_path / "other")
        assert kept.is_dir()
        assert living.poll() is None
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["part"]


def test_the_draft_of_one_that_is_killed_while_it_gives_the_name_goes_too(tmp_path: Path) -> None:
    naming = (
        "import os; from engine.contract.drafts import commit_draft\n"
        "Path.rename = lambda *_: os._exit(9)\n"
        f"{WRITE}; commit_draft(draft, Path(sys.argv[1], 'model'))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path\n{naming}", str(tmp_path)],
        cwd=PROJECT,
        env=engine_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert killed.returncode == 9
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_writer_on_record_is_nobody_s_to_remove(tmp_path: Path) -> None:
    mine = tmp_path / ".mine-new-1"
    mine.mkdir()
    (mine / "thesis").write_text("years")
    elsewhere = tmp_path / ".far-new-2"
    elsewhere.mkdir()
    far = {**current_identity().as_json(), "pid": 999_999_999, "host": "another computer"}
    (elsewhere / ".writer.json").write_text(json.dumps(far))
    before = tree(tmp_path)
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "not there")
    assert tree(tmp_path) == before


@pytest.fixture
def errands(tmp_path: Path) -> Errands:
    return Errands(tmp_path / "runs")


def being_exported(errands: Errands) -> tuple[Errand, Path]:
    """An export on its way, and what it has written so far."""
    errands.export("moved", "f16", "")
    errand = errands.of("export", "moved")
    assert errand is not None
    wait_until(lambda: errand.is_over or list(errands.exports.glob(".*-new-*/.writer.json")))
    assert not errand.is_over, errand.error
    return errand, next(errands.exports.glob(".*-new-*"))


def test_a_cancelled_export_leaves_nothing(tmp_path: Path, errands: Errands) -> None:
    run = tuned_copy(tmp_path / "runs")
    before = tree(run.path)
    errand, draft = being_exported(errands)
    errands.cancel("export", "moved")
    assert errand.is_cancelled
    assert errands.of("export", "moved") is None
    wait_until(lambda: not draft.exists())
    assert list(errands.exports.iterdir()) == []
    assert tree(run.path) == before
    # And the next one may begin.
    errand, _ = being_exported(errands)
    wait_until(lambda: errand.is_over)
    assert errand.error is None
    assert [one.name for one in errands.exports.iterdir()] == ["moved-gguf-f16"]


def test_a_killed_export_goes_with_the_next(tmp_path: Path) -> None:
    run = tuned_copy(tmp_path / "runs")
    out = tmp_path / "out"
    out.mkdir()
    export = [sys.executable, "-m", "engine", "export", str(run.path), "--to", "gguf"]
    with subprocess.Popen(
        [*export, "--out", str(out / "first")], cwd=PROJECT, env=engine_environment()
    ) as process:
        wait_until(lambda: list(out.glob(".first-new-*/.writer.json")))
        process.kill()
    (left,) = out.iterdir()
    assert left.name.startswith(".first-new-")
    subprocess.run(
        [*export, "--out", str(out / "second")], cwd=PROJECT, env=engine_environment(), check=True
    )
    assert [one.name for one in out.iterdir()] == ["second"]
