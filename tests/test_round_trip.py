"""What is exported says in plain transformers, word for word, what the app says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.commands.parser import main
from engine.contract.bundled import STARTER, heldout_path, sample_datasets
from engine.contract.method_settings import METHOD_KINDS
from engine.contract.run_dir import RunDir
from engine.generate import Sampling, reply_to
from engine.result import load_result
from tests.exported import exported_run
from tests.tiny import chat_rows, write_jsonl

CPU = torch.device("cpu")
NUM_PROMPTS = 20
TOKENS = 12
ADAPTERS = ("qlora", "lora")
# Nothing of ours: isolated from this folder, and from what the environment adds.
PLAIN = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
logging.disable_progress_bar()
torch.set_num_threads(1)
job = json.load(sys.stdin)
said = {}
for name, one in job["folders"].items():
    tokenizer = AutoTokenizer.from_pretrained(one["folder"], local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        one["folder"], dtype=one["dtype"], local_files_only=True
    )
    said[name] = []
    for prompt in job["prompts"]:
        chat = [{"role": "user", "content": prompt}]
        tokens = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        reply = model.generate(**tokens, max_new_tokens=job["tokens"], do_sample=False)
        new = reply[0, tokens["input_ids"].shape[1] :]
        said[name].append(tokenizer.decode(new, skip_special_tokens=True))
assert not [name for name in sys.modules if name.partition(".")[0] in ("engine", "qft_gui")]
print(json.dumps(said))
"""


def questions() -> list[str]:
    rows = [
        json.loads(line)
        for name in sample_datasets()
        for line in heldout_path(name).read_text(encoding="utf-8").splitlines()[:9]
    ]
    return list(dict.fromkeys(str(row["prompt"]) for row in rows))[:NUM_PROMPTS]


@dataclass
class Trip:
    """Runs, what was exported of each, and what plain transformers says with it."""

    runs: dict[str, RunDir]
    reports: dict[str, dict[str, Any]]
    said: dict[str, list[str]]


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    folder = tmp_path_factory.mktemp("trip")
    data = write_jsonl(folder / "chats.jsonl", chat_rows(24))
    trip = Trip({}, {}, {})
    job: dict[str, Any] = {"prompts": questions(), "tokens": TOKENS, "folders": {}}
    for method in METHOD_KINDS:
        run, _ = exported_run(
            folder / "runs", method, STARTER, data, method, steps=2, learning_rate=2e-3
        )
        out = folder / f"{method}-hf"
        trip.runs[method] = run
        trip.reports[method] = exported(run, out, folder / f"{method}.json")
        # An adapter's products are computed in float32 on a CPU; a whole model's as it is stored.
        dtype = "float32" if method in ADAPTERS else "auto"
        job["folders"][method] = {"folder": str(out), "dtype": dtype}
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trip.said = json.loads(done.stdout)
    return trip


def exported(run: RunDir, out: Path, report: Path) -> dict[str, Any]:
    """By the command line; what it printed."""
    with report.open("w", encoding="utf-8") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        assert main(["export", str(run.path), "--to", "hf", "--out", str(out), "--json"]) == 0
    return json.loads(report.read_text(encoding="utf-8"))


def test_there_are_twenty_different_questions() -> None:
    assert len(set(questions())) == NUM_PROMPTS


@pytest.mark.parametrize("method", METHOD_KINDS)
def test_plain_transformers_says_word_for_word_what_the_app_says(trip: Trip, method: str) -> None:
    loaded = load_result(trip.runs[method].export, CPU)
    sampling = Sampling(max_new_tokens=TOKENS)
    expected = [
        reply_to(
            loaded.model, loaded.tokenizer, [{"role": "user", "content": question}], sampling
        ).text
        for question in questions()
    ]
    assert trip.said[method] == expected
    assert all(expected)
    assert len(set(expected)) > NUM_PROMPTS / 2


def test_ask_says_the_same(trip: Trip, capsys: pytest.CaptureFixture[str]) -> None:
    question = questions()[3]
    run = str(trip.runs["qlora"].path)
    assert main(["ask", run, question, "--max-new-tokens", str(TOKENS), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == trip.said["qlora"][3]


@pytest.mark.parametrize("method", METHOD_KINDS)
def test_what_merging_changed_is_told_and_small(trip: Trip, method: str) -> None:
    merge = trip.reports[method]["merge"]
    if method not in ADAPTERS:
        assert merge is None
        return
    assert merge["num_prompts"] == 4
    assert 0 < merge["largest_difference"] < 0.01 * merge["largest_logit"]
    assert merge["same_next_word"] > 0.98
