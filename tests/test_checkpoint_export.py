"""A checkpoint is exported as a result is: what answers on the page is what is handed on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file

from engine.adapter_folder import load_adapter
from engine.commands.parser import main
from engine.contract.errors import ExitCode, RequestError
from engine.exports.checkpoint_folder import checkpoint_folder
from engine.result import load_result, load_target
from engine.target import find_target
from tests.talks import Talks, said_by
from tests.workshop import tree

CPU = torch.device("cpu")
Say = Callable[..., dict[str, object]]


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Talks:
    """Runs with a result after six steps and a checkpoint after three; tests only read them."""
    talks = Talks(tmp_path_factory.mktemp("talks"))
    for method in ("full", "qft", "qlora"):
        talks.train(method, method)
    return talks


@pytest.fixture
def say(talks: Talks, capsys: pytest.CaptureFixture[str]) -> Say:
    def export(name: str, to: str, out: Path, *more: str) -> dict[str, object]:
        capsys.readouterr()
        arguments = ["export", name, "--to", to, "--out", str(out), *more]
        assert main([*arguments, "--runs", str(talks.runs), "--json"]) == ExitCode.DONE
        return json.loads(capsys.readouterr().out)

    return export


@pytest.mark.parametrize("method", ["full", "qft"])
def test_a_checkpoint_s_weights_are_exported_not_the_result_s(
    talks: Talks, say: Say, tmp_path: Path, method: str
) -> None:
    before = tree(talks.run(method).path)
    at_three, at_six = tmp_path / "three", tmp_path / "six"
    say(f"{method}@3", "hf", at_three)
    say(method, "hf", at_six)
    ours = load_target(find_target(f"{method}@3", talks.runs), CPU)
    theirs = load_result(at_three, CPU)
    named = dict(theirs.model.named_parameters())
    assert all(torch.equal(named[name], one) for name, one in ours.model.named_parameters())
    assert said_by(ours) == said_by(theirs)
    one, other = (load_file(folder / "model.safetensors") for folder in (at_three, at_six))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert {file.name for file in at_six.iterdir()} - {
        file.name for file in at_three.iterdir()
    } <= {"fingerprint.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["six", "three"]
    assert tree(talks.run(method).path) == before


def test_an_adapter_s_checkpoint_goes_alone_or_merged(
    talks: Talks, say: Say, tmp_path: Path
) -> None:
    say("qlora@3", "adapter", tmp_path / "adapter")
    ours = load_target(find_target("qlora@3", talks.runs), CPU)
    assert said_by(load_adapter(tmp_path / "adapter", CPU)) == said_by(ours)
    assert said_by(ours) != said_by(load_result(talks.run("qlora").export, CPU))
    report = say("qlora@3", "hf", tmp_path / "merged")
    assert report["merge"] is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]


def test_names_and_card_tell_the_step(talks: Talks, say: Say, tmp_path: Path) -> None:
    say("full@3", "gguf", tmp_path / "three", "--type", "f16")
    say("full", "gguf", tmp_path / "six", "--type", "f16")
    assert (tmp_path / "three" / "full-step-3-f16.gguf").is_file()
    assert (tmp_path / "six" / "full-f16.gguf").is_file()
    assert "FROM ./full-step-3-f16.gguf" in (tmp_path / "three" / "Modelfile").read_text("utf-8")
    card = (tmp_path / "three" / "README.md").read_text("utf-8")
    assert "# full-step-3\n" in card
    assert "- Steps: 3\n" in card
    assert "ollama create full-step-3 " in card


@pytest.mark.parametrize(
    ("name", "to", "words"),
    [
        ("full@4", "hf", "full has no checkpoint of step 4. It has 3."),
        ("gone@4", "hf", "there is no run"),
        ("full@3", "adapter", "changes every weight"),
    ],
)
def test_what_is_not_there_is_a_sentence(
    talks: Talks,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    to: str,
    words: str,
) -> None:
    arguments = ["export", name, "--to", to, "--out", str(tmp_path / "new")]
    assert main([*arguments, "--runs", str(talks.runs)]) == ExitCode.BAD_REQUEST
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_not_exported(
    talks: Talks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = copytree(talks.runs, tmp_path / "runs")
    (file,) = (runs / "full" / "checkpoints" / "step-000003").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-9] + b"123456789")
    arguments = ["export", "full@3", "--to", "hf", "--out", str(tmp_path / "new")]
    assert main([*arguments, "--runs", str(runs)]) == ExitCode.BAD_REQUEST
    assert "no whole checkpoint of step 3" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_what_fails_while_it_is_used_is_not_said_of_its_folder(
    talks: Talks, tmp_path: Path
) -> None:
    """Such as a file of llama.cpp's that cannot be read."""
    with (
        pytest.raises(FileNotFoundError),
        checkpoint_folder(talks.run("full"), 3, tmp_path / "out") as written,
    ):
        (written.folder / "not there").read_bytes()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with (
        pytest.raises(RequestError, match="could not be written to"),
        checkpoint_folder(talks.run("full"), 3, tmp_path / "file" / "out"),
    ):
        pass
