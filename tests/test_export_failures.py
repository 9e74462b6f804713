"""What cannot be exported is told in a sentence, and leaves nothing behind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from engine.commands.parser import main
from engine.contract.errors import ExitCode
from engine.contract.launch import PROJECT
from engine.contract.run_dir import RunDir
from engine.exports.shards import write_shards
from tests.exported import exported_run
from tests.tiny import tiny_model_folder
from tests.workshop import tree

Say = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, chats_file: Path) -> dict[str, RunDir]:
    """One run of each kind of result; tests only read them."""
    folder = tmp_path_factory.mktemp("runs")
    base = tiny_model_folder(folder / "base", hidden_size=64, intermediate_size=128)
    return {
        method: exported_run(folder / "runs", method, base, chats_file, method)[0]
        for method in ("full", "qlora")
    }


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def command(run: RunDir | Path, to: str, out: Path, *more: str, code: int = 0) -> Any:
        capsys.readouterr()
        path = run.path if isinstance(run, RunDir) else run
        assert main(["export", str(path), "--to", to, "--out", str(out), *more]) == code
        said = capsys.readouterr()
        return said.out, said.err

    return command


def test_mistakes_are_one_sentence_and_nothing_is_made(
    runs: dict[str, RunDir], say: Say, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    shutil.copy(runs["full"].spec_path, waiting)
    new, before = tmp_path / "new", tree(tmp_path)
    full = runs["full"]
    cases: list[tuple[list[Any], str]] = [
        ([full, "hf", tmp_path / "full"], f"--out: {tmp_path / 'full'} is not empty."),
        ([full, "hf", tmp_path / "full/file"], "file is no folder."),
        ([full, "hf", tmp_path / "none/new"], f"--out: {tmp_path / 'none'} is no folder."),
        ([full, "hf", full.path / "new"], "lies in the run folder."),
        ([full, "hf", full.export / "new"], "lies in the run folder."),
        ([full, "zip", new], "--to: there is no form 'zip'. Use one of hf, adapter, gguf."),
        ([full, "hf", new, "--type", "f16"], "--type: it is for --to gguf only."),
        ([full, "gguf", new, "--type", "q4"], "--type: there is no type 'q4'."),
        ([full, "adapter", new], "--to: full was tuned with full, which changes every weight"),
        ([waiting, "hf", new], "RUN: waiting has no result yet. Let it finish, or resume it."),
        ([tmp_path / "gone", "hf", new], "run: there is no run"),
        ([full, "hf", Path("\0")], "--out: no folder is named."),
    ]
    for arguments, sentence in cases:
        out, err = say(*arguments, code=ExitCode.BAD_REQUEST)
        assert out == ""
        assert len(err.splitlines()) == 1
        assert sentence in err
    assert tree(tmp_path) == before
    assert not new.exists()


def test_half_a_result_is_told(runs: dict[str, RunDir], say: Say, tmp_path: Path) -> None:
    spoilt: list[tuple[str, Callable[[Path], None], str]] = [
        ("full", lambda folder: (folder / "model.safetensors").unlink(), "no safetensors weights"),
        ("full", lambda folder: cut(folder / "model.safetensors"), "is damaged"),
        ("full", lambda folder: (folder / "config.json").unlink(), "a result that is not whole"),
        ("full", lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        ("full", one_shard_less, "lacks model-00002-of-00002.safetensors"),
        ("qlora", lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no adapter"),
        ("qlora", lambda folder: cut(folder / "adapter_model.safetensors"), "is damaged"),
        ("qlora", lambda folder: cut(folder / "adapter_config.json"), "is damaged"),
    ]
    for number, (kind, spoil, words) in enumerate(spoilt):
        run = RunDir(shutil.copytree(runs[kind].path, tmp_path / f"run-{number}"))
        spoil(run.export)
        for to in ("hf", "gguf"):
            out, err = say(run, to, tmp_path / "new", code=ExitCode.BAD_REQUEST)
            assert (out, len(err.splitlines())) == ("", 1)
            assert err.startswith("RUN: ")
            assert words in err
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def one_shard_less(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half = sum(tensor.nbytes for tensor in weights.values()) * 2 // 3
    write_shards(folder, weights.items(), shard_bytes=half)
    (folder / "model-00002-of-00002.safetensors").unlink()


def test_a_disk_without_room_is_told_before_anything_is_written(
    runs: dict[str, RunDir], say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "engine.exports.new_folder.shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 20)
    )
    for kind in runs:
        _, err = say(runs[kind], "hf", tmp_path / "new", code=ExitCode.BAD_REQUEST)
        assert "--out: the export takes up to 6" in err
        assert "the disk has 1.0 MiB free. Make room" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_disk_that_fails_leaves_nothing(
    runs: dict[str, RunDir], say: Say, tmp_path: Path, to: str
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for kind in runs:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        try:
            _, err = say(runs[kind], to, tmp_path / "new", code=ExitCode.BAD_REQUEST)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        # numpy does not say why it wrote less.
        assert re.search("could not be written: (file too large|the disk is full or fail)", err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_an_interrupt_leaves_nothing_and_an_empty_folder_stays(
    runs: dict[str, RunDir], say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    (tmp_path / "new").mkdir()
    with monkeypatch.context() as patch:
        interrupt_at_the_card(patch)
        for kind in runs:
            say(runs[kind], to, tmp_path / "new", code=ExitCode.STOPPED)
            assert tree(tmp_path) == {}
            assert [path.name for path in tmp_path.iterdir()] == ["new"]
    say(runs["full"], to, tmp_path / "new")
    assert (tmp_path / "new" / "README.md").is_file()


def interrupt_at_the_card(patch: pytest.MonkeyPatch) -> None:
    """When everything else is written already."""

    def interrupt(*_: Any) -> str:
        raise KeyboardInterrupt

    patch.setattr("engine.exports.forms.model_card", interrupt)


def test_a_mistake_costs_no_heavy_import(tmp_path: Path, runs: dict[str, RunDir]) -> None:
    code = (
        "import sys; from engine.commands.parser import main; "
        f"code = main(['export', {str(runs['full'].path)!r}, '--to', 'zip', '--out', 'x']); "
        "sys.exit(10 * code + ('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, check=False
    )
    assert done.returncode == 10 * ExitCode.BAD_REQUEST
