"""The harness asks our models: an adapter on its base too, and its figures are the model's own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch

import engine.harness
from engine.commands.parser import main
from engine.contract.launch import PROJECT
from engine.contract.run_dir import RunDir
from engine.export import export_model
from engine.harness import _metrics, split_tasks
from engine.result import load_result
from tests.tiny import chat_rows, prepared, tiny_model_folder, tiny_spec, write_jsonl

HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(
    not HAS_HARNESS and os.environ.get("CI") != "true",
    reason="lm_eval is not installed; requirements-test.txt has it",
)
TASK = """
task: fetched
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
THINGS = (" bread", " a lamp", " the tide", " three boats", " old maps")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a run of QLoRA, and a task of twenty questions with three answers each."""
    folder = tmp_path_factory.mktemp("harness")
    tiny_model_folder(folder / "model", hidden_size=64, intermediate_size=128)
    chats = write_jsonl(folder / "chats.jsonl", chat_rows(24))
    method = {"kind": "qlora", "rank": 4}
    one = prepared(tiny_spec(folder / "model", chats, method), folder / "runs")
    for step in range(1, 7):
        one.method.step(one.batches(step), 3e-2, step)
    (run,) = (folder / "runs").iterdir()
    export_model(RunDir(run), one.loaded, one.method)
    run.rename(folder / "runs" / "tuned")
    (folder / "tasks").mkdir()
    data = write_jsonl(folder / "tasks" / "questions.jsonl", questions())
    (folder / "tasks" / "fetched.yaml").write_text(TASK.format(data=data), encoding="utf-8")
    return folder


def questions() -> list[dict[str, Any]]:
    return [
        {
            "question": f"Mara, number {number}, finds",
            "choices": [THINGS[(number + shift) % 5] for shift in range(3)],
            "answer": number % 3,
        }
        for number in range(20)
    ]


def own_accuracy(folder: Path) -> float:
    """The same by plain transformers calls: the likeliest continuation of each question."""
    loaded = load_result(folder, torch.device("cpu"))
    hits = 0
    for row in questions():
        asked = loaded.tokenizer(row["question"])["input_ids"]
        sums: list[float] = []
        for choice in row["choices"]:
            whole = loaded.tokenizer(row["question"] + choice)["input_ids"]
            model: Any = loaded.model
            with torch.no_grad():
                scores = model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
            places = range(len(asked), len(whole))
            sums.append(sum(float(scores[place - 1, whole[place]]) for place in places))
        hits += sums.index(max(sums)) == row["answer"]
    return hits / 20


def evaluated(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: what the harness imports warns, and keeps state."""
    command = [sys.executable, "-m", "engine", "eval", *arguments, "--device", "cpu"]
    return subprocess.run(
        [*command, "--runs", str(place / "runs"), "--tasks-folder", str(place / "tasks")],
        cwd=PROJECT,
        env={**os.environ, "HF_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_harness
@pytest.mark.timeout(300)
def test_the_figures_are_the_models_own(place: Path) -> None:
    for target, folder, side in (
        ("tuned", place / "runs" / "tuned" / "export", "tuned"),
        (str(place / "model"), place / "model", "base"),
    ):
        done = evaluated(place, target, "--harness", "fetched", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (set(found), found["side"]) == ({"target", "side", "harness"}, side)
        assert found["harness"]["chat_template"] is False
        task = found["harness"]["tasks"]["fetched"]
        assert task["num_examples"] == 20
        (accuracy,) = task["metrics"].values()
        assert accuracy["value"] == pytest.approx(own_accuracy(folder))
        assert accuracy["stderr"] > 0


@pytest.mark.slow
@needs_harness
@pytest.mark.timeout(300)
def test_a_limit_a_template_and_lines_for_people(place: Path) -> None:
    done = evaluated(place, "tuned", "--harness", "fetched", "--max-rows", "5", "--chat-template")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("tuned, lm_eval ")
    assert first.endswith(", with the chat template")
    assert second.startswith("fetched  acc  ")
    assert second.endswith(" (5 questions)")


@pytest.mark.slow
@needs_harness
@pytest.mark.timeout(300)
def test_tasks_that_cannot_be_asked_are_a_sentence(place: Path) -> None:
    done = evaluated(place, "tuned", "--harness", "fetched,nothing_here")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--harness: the harness knows no task nothing_here. Check")
    broken = TASK.format(data=place / "gone.jsonl").replace("fetched", "broken")
    (place / "tasks" / "broken.yaml").write_text(broken, encoding="utf-8")
    try:
        done = evaluated(place, "tuned", "--harness", "broken")
    finally:
        (place / "tasks" / "broken.yaml").unlink()
    assert (done.returncode, done.stdout) == (2, "")
    assert "--harness: the data of broken cannot be had: " in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_harness_it_says_how_to_get_it(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(engine.harness, "version", no_version)
    arguments = ["--harness", "hellaswag", "--runs", str(place / "runs"), "--device", "cpu"]
    assert main(["eval", "tuned", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("--harness: the lm-evaluation-harness is not installed. Install it")
    assert "-r requirements-harness.txt" in said.err
    assert len(said.err.splitlines()) == 1


def test_what_is_tested_is_what_people_install() -> None:
    lines = [
        {line for line in (PROJECT / name).read_text().splitlines() if line.startswith("lm_eval")}
        for name in ("requirements-test.txt", "requirements-harness.txt")
    ]
    assert lines[0] == lines[1] != set()


def test_names_are_split_at_commas() -> None:
    assert split_tasks(" hellaswag, arc_easy,,") == ["hellaswag", "arc_easy"]


def test_what_is_no_number_is_left_out() -> None:
    values = {
        "alias": "fetched",
        "acc,none": 0.5,
        "acc_stderr,none": 0.1,
        "exact,strict": 0.25,
        "exact_stderr,strict": "N/A",
        "lost,none": float("nan"),
        "sample_len": 20,
    }
    assert _metrics(values) == {"acc,none": (0.5, 0.1), "exact,strict": (0.25, None)}
