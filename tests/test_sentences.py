"""Mistakes as a person reads them: own words begin with a capital, names keep their spelling."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.contract.errors import RequestError
from engine.contract.launch import PROJECT
from engine.sampling import sampling_from
from qft_gui.answers import Settings
from qft_gui.chat_process import ChatError
from qft_gui.view.sentences import OPENINGS, refusal, sentence

# Programs and devices whose names are written small.
NAMES = {"llama", "mps", "transformers"}


def first_words(path: Path) -> Iterator[str]:
    """Of each mistake in a file that does not begin with what is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "RequestError":
            parts = node.args
        elif isinstance(node, ast.Tuple) and path.name == "spec.py":
            parts = node.elts  # a field and what is wrong with it
        told = parts[1] if len(parts) > 1 else None
        if isinstance(told, ast.JoinedStr):
            told = told.values[0]
        if isinstance(told, ast.Constant) and isinstance(told.value, str) and " " in told.value:
            yield re.split(r"\W", told.value)[0]


def test_every_word_that_a_mistake_begins_with_is_known() -> None:
    files = [path for name in ("engine", "qft_gui") for path in (PROJECT / name).rglob("*.py")]
    found = {word for path in files for word in first_words(path) if word[:1].islower()}
    assert {"the", "there", "it", "fused"} <= found
    assert found - NAMES <= OPENINGS


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("pirate was tuned with qft.", "pirate was tuned with qft."),
        ("there is no folder x.", "There is no folder x."),
        ("its tokenizer is lost.", "Its tokenizer is lost."),
        ("theatre has no result yet.", "theatre has no result yet."),
    ],
)
def test_a_run_s_name_is_not_spelt_anew(message: str, told: str) -> None:
    assert sentence(RequestError("run", message)) == told


def test_a_way_out_for_the_command_line_is_one_on_the_page() -> None:
    told = sentence(RequestError("--to", "llama.cpp has no place for it.", "Use --to hf."))
    assert told == "llama.cpp has no place for it. Choose Hugging Face folder."


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ({"temperature": "-1"}, "Temperature: -1 is not a number from 0 to 10."),
        ({"top_p": "0"}, "Top p: it is 0, so"),
        ({"max_new_tokens": "0"}, "Longest answer: 0 is not a whole number from 1 to 1,048,576."),
        ({"seed": "9" * 23}, "Seed: 99,999,999,999,999,999,999,999 is not a whole number"),
    ],
)
def test_a_setting_that_cannot_be_is_called_as_on_the_page(
    typed: dict[str, str], told: str
) -> None:
    with pytest.raises(RequestError) as found:
        sampling_from(vars(Settings.of(typed)))
    error = found.value
    assert refusal(ChatError(error.message, error.advice, error.field)).startswith(told)


@pytest.mark.parametrize("typed", ["9" * 400, "9" * 5000, "nan", "much"])
@pytest.mark.parametrize("name", ["repetition_penalty", "seed"])
def test_what_is_no_number_is_one_sentence(name: str, typed: str) -> None:
    with pytest.raises(RequestError, match=f": {typed[:40]} is not a"):
        Settings.of({name: typed})


def test_a_whole_number_keeps_all_its_digits() -> None:
    typed = Settings.of({"seed": str(2**63 - 1), "top_k": "4.0", "temperature": "0,5"})
    assert (typed.seed, typed.top_k, typed.temperature) == (2**63 - 1, 4, 0.5)
