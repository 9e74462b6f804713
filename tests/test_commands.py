"""The commands' surface is fixed, their JSON keeps its keys, and nobody sees a traceback."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.commands.parser import build_parser, main
from engine.contract.launch import PROJECT
from engine.contract.method_settings import QFT_PRESETS
from engine.contract.presets import METHOD_CHOICES
from tests.workshop import Workshop, open_workshop, tree

# The public surface: whoever changes this table changes what people's scripts may call.
SURFACE = {
    "run": "SPEC --json --name NAME --runs DIR",
    "launch": "SPEC --json --name NAME --runs DIR",
    "resume": "RUN --json --runs DIR",
    "stop": "RUN --discard --json --runs DIR",
    "status": "RUN --json --runs DIR",
    "list": "--json --runs DIR",
    "estimate": "SPEC --all-methods --fit --gpu-gib N --json --shorten",
    "inspect": "MODEL --json",
    "check": "DATA --columns ROLE=COLUMN --config C --encoding E --eval-percent P "
    "--first-example N --format F --json --max-rows N --model MODEL --num-examples K "
    "--sequence-length N --split S --train-on replies|all",
    "probe": "SPEC --json",
    "measure": "--device D --json",
    "ask": "TARGET PROMPT --base --json --max-new-tokens N --runs DIR --seed N --system TEXT "
    "--temperature T",
    "eval": "TARGET DATA --base --chat-template --device D --harness TASKS --json --max-rows N "
    "--runs DIR --sequence-length N --tasks-folder DIR",
    "export": "RUN --json --out DIR --runs DIR --to hf|adapter|gguf --type f16|q8_0",
    "serve": "TARGET --device D --fresh-token --host H --port N --runs DIR --token T",
    "xray": "TARGET --data SOURCE --json --runs DIR",
    "schema": "--json",
}
STATUS_KEYS = {"run", "status", "step", "steps", "loss_nats", "eta_s", "error"}
ERROR_KEYS = {"class", "message", "field", "advice"}
ESTIMATE_KEYS = {
    *("num_parameters", "states_bytes", "bytes_per_parameter", "terms", "total_bytes"),
    *("low_bytes", "high_bytes", "free_bytes", "fits", "seconds_per_step", "advice"),
}
TERMS = {
    *("weights", "outliers", "residual", "gradients", "moments", "adapters"),
    *("activations", "logits", "transient", "runtime"),
}
SPEC = "model: {source: llama-2-7b}\ndata: {source: pirate}\nmethod: {kind: qft}\n"


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with open_workshop(tmp_path_factory.mktemp("workshop")) as workshop:
        yield workshop


@pytest.fixture(scope="module")
def finished(workshop: Workshop) -> subprocess.CompletedProcess[str]:
    """One real run from the command line, long enough to change what the model says."""
    command = [*workshop.command("tuned", steps=60, learning_rate=1e-2), "--json"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return str(path)


def spec_with(folder: Path, **groups: dict[str, Any]) -> str:
    path = folder / "changed.json"
    start = {"model": {"source": "llama-2-7b"}, "data": {"source": "pirate"}}
    path.write_text(json.dumps({**start, "method": {"kind": "qft"}, **groups}), encoding="utf-8")
    return str(path)


class Terminal:
    """Commands in this process, and what they said."""

    def __init__(self, capture: pytest.CaptureFixture[str], runs: Path) -> None:
        self.capture = capture
        self.runs = ["--runs", str(runs)]

    def say(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        self.capture.readouterr()
        assert main(arguments) == code
        said = self.capture.readouterr()
        return said.out, said.err

    def document(self, *arguments: str, code: int = 0) -> Any:
        """The one JSON document on standard output."""
        out, err = self.say(*arguments, "--json", code=code)
        assert code == 0 or err == ""
        return json.loads(out)


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], workshop: Workshop) -> Terminal:
    return Terminal(capsys, workshop.runs)


def shown(parser: argparse.ArgumentParser) -> str:
    positional: list[str] = []
    options: list[str] = []
    for action in parser._actions:
        if not action.option_strings:
            positional.append(str(action.metavar))
        elif not isinstance(action, argparse._HelpAction):
            name = action.option_strings[-1]
            value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
            options.append(name + value)
    return " ".join([*positional, *sorted(options)])


def test_the_surface_is_what_the_table_says() -> None:
    (commands,) = [
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    assert {name: shown(command) for name, command in commands.choices.items()} == SURFACE


def test_only_what_needs_a_model_loads_torch(tmp_path: Path, spec: str) -> None:
    (tmp_path / "bad.yaml").write_text(SPEC + "train: {step: 5}\n", encoding="utf-8")
    runs = str(tmp_path / "runs")
    calls = [
        ["launch", str(tmp_path / "bad.yaml"), "--runs", runs],
        ["run", str(tmp_path / "absent.yaml"), "--runs", runs],
        ["list", "--runs", runs],
        ["status", "nothing", "--runs", runs],
        ["estimate", spec, "--all-methods"],
        ["inspect", "qwen3-1.7b"],
        ["schema"],
    ]
    script = (
        "import json, sys; from engine.commands.parser import main\n"
        "codes = [int(main(call)) for call in json.loads(sys.argv[1])]\n"
        "print(codes, sorted({'torch', 'transformers', 'gradio', 'numpy'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(calls)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[2, 2, 0, 2, 0, 0, 0] []"
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        "train.step",
        "spec",
        "run",
    ]
    assert not Path(runs).exists()


def test_a_reader_that_goes_away_and_a_poor_locale_leave_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine", "list", "--runs", str(tmp_path / "\u6587\udce9")]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, cwd=PROJECT, env={**buffered, **plain}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().endswith("\\udce9 yet.\n")
    gone = subprocess.Popen(
        command, cwd=PROJECT, env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert gone.stdout
    gone.stdout.close()
    _, err = gone.communicate()
    assert (gone.returncode, err) == (1, b"")


def test_a_run_says_its_folder_and_nothing_else(
    finished: subprocess.CompletedProcess[str], workshop: Workshop
) -> None:
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == {"run": str(workshop.runs / "tuned")}
    *notices, last = finished.stderr.splitlines()
    assert last.startswith("finished: 60 steps in ")
    assert notices == [
        "5 rows (20.8 %) are longer than 64 tokens: what is beyond is cut, replies keep their end.",
        "Only 2 rows are held out: their loss says little.",
    ]


def test_status_and_list_say_the_same(
    finished: subprocess.CompletedProcess[str], terminal: Terminal, workshop: Workshop
) -> None:
    assert finished.returncode == 0
    workshop.create("waiting")
    status = terminal.document("status", "tuned", *terminal.runs)
    assert set(status) == STATUS_KEYS
    assert (status["run"], status["status"], status["step"]) == ("tuned", "finished", 60)
    listed = terminal.document("list", *terminal.runs)
    assert [entry["run"] for entry in listed] == ["waiting", "tuned"]
    assert listed[1] == status
    assert set(listed[0]) == STATUS_KEYS
    out, _ = terminal.say("list", *terminal.runs)
    assert out.splitlines()[0] == "waiting  queued  step 0 of ?"
    assert out.splitlines()[1].startswith("tuned  finished  step 60 of 60  loss ")
    out, _ = terminal.say("list", "--runs", str(workshop.folder / "none"))
    assert out == f"No runs in {workshop.folder / 'none'} yet.\n"
    assert terminal.document("list", "--runs", str(workshop.folder / "none")) == []
    error = terminal.document("status", "nothing", *terminal.runs, code=2)["error"]
    assert set(error) == ERROR_KEYS


def test_a_run_answers_and_so_does_its_base(
    finished: subprocess.CompletedProcess[str], terminal: Terminal, workshop: Workshop
) -> None:
    assert finished.returncode == 0
    before = tree(workshop.runs / "tuned")
    question = "What is Otto number 1 at?"
    few = ["--max-new-tokens", "12"]
    tuned = terminal.document("ask", "tuned", question, *few, *terminal.runs)
    base = terminal.document("ask", "tuned", question, "--base", *few, *terminal.runs)
    assert set(tuned) == {"text", "num_tokens", "seconds", "side"}
    assert (tuned["side"], base["side"]) == ("tuned", "base")
    assert tuned["text"] != base["text"]
    assert 1 <= tuned["num_tokens"] <= 12
    model = terminal.document("ask", str(workshop.folder / "model"), question, *few)
    assert (model["text"], model["side"]) == (base["text"], "base")
    out, _ = terminal.say("ask", str(workshop.runs / "tuned"), question, *few)
    assert out == f"{tuned['text']}\n"
    assert tree(workshop.runs / "tuned") == before


def test_the_seed_decides_what_is_drawn(
    finished: subprocess.CompletedProcess[str], terminal: Terminal
) -> None:
    assert finished.returncode == 0
    draw = ["ask", "tuned", "Hi", "--base", "--temperature", "1.5", "--max-new-tokens", "16"]
    texts = [
        terminal.document(*draw, "--seed", str(seed), *terminal.runs)["text"] for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    plain, told = (
        terminal.document("ask", "tuned", "Hi", "--base", *system, *terminal.runs)["text"]
        for system in ([], ["--system", "Be kind."])
    )
    assert plain != told


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        (["tuned", " \n"], "PROMPT", "the question is empty. Write one."),
        (["tuned", "a\udcff"], "PROMPT", "it is not UTF-8 text."),
        (["tuned", "Hi", "--system", "a\udcff"], "--system", "it is not UTF-8 text."),
        (["tuned", "Hi", "--temperature", "nan"], "--temperature", "must be between 0 and 10"),
        (["tuned", "Hi", "--temperature", "-1"], "--temperature", "must be between 0 and 10"),
        (["tuned", "Hi", "--max-new-tokens", "0"], "--max-new-tokens", "it must be 1 or more."),
        (["tuned", "Hi", "--seed", "-1"], "--seed", "it must be between 0 and"),
        (["tuned", "Hi", "--seed", str(2**63)], "--seed", "it must be between 0 and"),
        (["nothing", "Hi"], "model.source", "there is no folder and no model called 'nothing'."),
        (["x" * 3000, "Hi"], "model.source", "there is no folder and no model called"),
        (
            ["waiting", "Hi"],
            "TARGET",
            "waiting has no result yet. Let it finish, name a checkpoint as RUN@STEP, or ask its "
            "base.",
        ),
        (["tuned", "word " * 200], "messages", "Clear it, or ask something shorter."),
    ],
)
def test_questions_that_cannot_be_asked(
    finished: subprocess.CompletedProcess[str],
    terminal: Terminal,
    workshop: Workshop,
    arguments: list[str],
    field: str,
    words: str,
) -> None:
    assert finished.returncode == 0
    if not (workshop.runs / "waiting").exists():
        workshop.create("waiting")
    out, err = terminal.say("ask", *arguments, *terminal.runs, code=2)
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith(f"{field}: ")
    assert words in err
    error = terminal.document("ask", *arguments, *terminal.runs, code=2)["error"]
    assert set(error) == ERROR_KEYS
    assert error["field"] == field


def test_every_method_and_every_preset_is_estimated(terminal: Terminal, tmp_path: Path) -> None:
    answer = terminal.document("estimate", spec_with(tmp_path), "--all-methods", "--gpu-gib", "24")
    assert set(answer) == {"methods", "refused"}
    rows = {(row["kind"], row["preset"]): row for row in answer["methods"]}
    assert list(rows) == [tuple(choice) for choice in METHOD_CHOICES]
    assert answer["refused"] == []
    for row in rows.values():
        assert set(row) >= ESTIMATE_KEYS
        assert set(row["terms"]) <= TERMS
        assert sum(row["terms"].values()) == row["total_bytes"]
    states = {preset: rows["qft", preset]["states_bytes"] for preset in QFT_PRESETS}
    assert states["lean"] < states["balanced"] < states["quality"]
    assert states["paper"] < rows["full", None]["states_bytes"]


def test_the_rows_of_presets_are_the_presets_own(terminal: Terminal, tmp_path: Path) -> None:
    own = terminal.document("estimate", spec_with(tmp_path), "--all-methods")["methods"]
    method = {"kind": "qft", "preset": "lean", "residual_bits": 8, "update": "adamw"}
    changed = spec_with(tmp_path, method=method)
    rows = terminal.document("estimate", changed, "--all-methods")["methods"]
    assert [row["terms"] for row in rows] == [row["terms"] for row in own]
    alone = terminal.document("estimate", changed)
    assert alone["states_bytes"] > rows[1]["states_bytes"]
    assert "preset" not in alone


def test_what_a_preset_cannot_do_is_said_and_the_rest_is_estimated(
    terminal: Terminal, tmp_path: Path
) -> None:
    train = {"grad_accumulation": 2, "max_grad_norm": 1.0}
    spec = spec_with(tmp_path, method={"kind": "qft", "gradients": "stack"}, train=train)
    answer = terminal.document("estimate", spec, "--all-methods")
    able = [("qft", "paper"), ("qlora", "balanced"), ("qlora", "paper"), ("lora", None)]
    found = [(row["kind"], row["preset"]) for row in answer["methods"]]
    assert found == [*able, ("full", None)]
    refused = [(row["kind"], row["preset"]) for row in answer["refused"]]
    fused = [("qft", preset) for preset in ("balanced", "lean", "quality")]
    assert refused == [*fused, ("lomo", None), ("adalomo", None)]
    for row in answer["refused"]:
        assert set(row) == {"kind", "preset", "errors"}
        fields = [error["field"] for error in row["errors"]]
        assert fields == [f"train.{name}" for name in train][: 1 if row["kind"] == "lomo" else 2]
        assert all(set(error) == ERROR_KEYS for error in row["errors"])
    out, err = terminal.say("estimate", spec, "--all-methods")
    rows = out.splitlines()[2 : 2 + len(METHOD_CHOICES)]  # below the data and the headings
    lines = {" ".join(line.split()[:2]): line for line in rows}
    assert err == ""
    assert len(lines) == len(METHOD_CHOICES)
    for preset in ("balanced", "lean", "quality"):
        assert "Cannot do this. train.grad_accumulation: fused updates" in lines[f"qft {preset}"]
    assert "GiB" in lines["qft paper"]
