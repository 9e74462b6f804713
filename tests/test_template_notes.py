"""In which chat templates two models are asked is said where it matters."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from qft_gui.answers import SIDES, Proof
from qft_gui.chat_room import _proof_in
from qft_gui.view.chat import memory_lines
from tests.talks import Caller
from tests.tiny import tiny_model_folder

OTHER = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
DIFFERENT = "The two are asked in different chat templates, each in its own."


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three models: one as it is, one with another template, one with none."""
    root = tmp_path_factory.mktemp("models")
    found = {"own": tiny_model_folder(root / "own")}
    for name, template in (("other", OTHER), ("bare", None)):
        found[name] = shutil.copytree(found["own"], root / name)
        tokenizer = AutoTokenizer.from_pretrained(found[name])
        tokenizer.chat_template = template
        (found[name] / "chat_template.jinja").unlink(missing_ok=True)
        tokenizer.save_pretrained(found[name])
    return found


def lines(folders: dict[str, Path], a: str, b: str, **options: object) -> list[str]:
    """What the page says of memory and notes once both are loaded."""
    caller = Caller(folders["own"].parent, **options)
    loaded = caller.load(a=str(folders[a]), b=str(folders[b]))
    assert loaded["event"] == "loaded", loaded
    proof: Proof = _proof_in(loaded)
    return memory_lines(proof, dict.fromkeys(SIDES, "it"))


def test_two_templates_are_said(folders: dict[str, Path]) -> None:
    assert DIFFERENT in lines(folders, "own", "other")
    assert DIFFERENT in lines(folders, "own", "other", free_bytes=lambda device: 0)


def test_one_template_says_nothing(folders: dict[str, Path]) -> None:
    assert not any("template" in line for line in lines(folders, "own", "own"))


def test_a_template_that_was_added_is_said(folders: dict[str, Path]) -> None:
    said = lines(folders, "bare", "own")
    assert "bare has no chat template of its own and is asked in a plain one." in said
    assert DIFFERENT in said
