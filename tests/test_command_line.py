"""A mistake on the command line is one line with its way out, or one JSON document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.commands.parser import main
from engine.contract.launch import PROJECT
from tests.tiny import chat_rows, write_jsonl

SPEC = "model: {{source: {model}}}\ndata: {{source: {data}}}\nmethod: {{kind: qft}}\n"
ENGINE = "`python -m engine"
SHOWS = "--help` shows what it takes."


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ("", [f"COMMAND: it is missing. {ENGINE} {SHOWS}"]),
        ("estimate", [f"SPEC: it is missing. {ENGINE} estimate {SHOWS}"]),
        ("stop", [f"RUN: it is missing. {ENGINE} stop {SHOWS}"]),
        (
            "ask",
            [
                f"TARGET: it is missing. {ENGINE} ask {SHOWS}",
                f"PROMPT: it is missing. {ENGINE} ask {SHOWS}",
            ],
        ),
        ("ask a b --seed abc", ["--seed: it is no whole number: 'abc'. Use a whole number."]),
        ("estimate a --gpu-gib x", ["--gpu-gib: it is no number: 'x'. Use a number."]),
        ("list --old", [f"--old: it is not known here. {ENGINE} {SHOWS}"]),
        ("ask a b --seed", [f"--seed: expected one argument. {ENGINE} ask {SHOWS}"]),
        (
            "ask a b --max-new-tokens 0",
            ["--max-new-tokens: it must be 1 or more. Use a whole number."],
        ),
        (
            "ask a b --temperature 11",
            ["--temperature: it must be between 0 and 10. Use a number from 0 to 10."],
        ),
    ],
)
def test_each_mistake_is_one_line_or_one_document(
    capsys: pytest.CaptureFixture[str], arguments: str, lines: list[str]
) -> None:
    assert main(arguments.split()) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()) == ("", lines)
    assert main([*arguments.split(), "--json"]) == 2
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert said.err == ""
    assert [f"{e['field']}: {e['message']} {e['advice']}" for e in document["errors"]] == lines
    assert document["error"] == document["errors"][0]


def test_an_unknown_command_is_told_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("COMMAND: invalid choice: 'tune' (choose from ")
    assert "estimate" in line


def test_the_schema_is_json_either_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == main(["schema", "--json"]) == 0
    out = capsys.readouterr().out
    half = len(out) // 2
    assert out[:half] == out[half:]
    assert json.loads(out[:half])["title"] == "RunSpec"


def spec_of(folder: Path, model: str = "starter", data: str = "pirate") -> str:
    path = folder / "spec.yaml"
    path.write_text(SPEC.format(model=model, data=data), encoding="utf-8")
    return str(path)


def test_an_estimate_says_what_the_data_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(tmp_path / "chats.jsonl", [*chat_rows(5), {"messages": []}])
    assert main(["estimate", spec_of(tmp_path, data=str(data)), "--json"]) == 0
    found = {"rows": 5, "refused": 1, "format": "messages"}
    assert json.loads(capsys.readouterr().out)["data"] == found
    assert main(["estimate", spec_of(tmp_path), "--all-methods", "--json"]) == 0
    methods = json.loads(capsys.readouterr().out)["methods"]
    assert {method["data"]["rows"] for method in methods} == {444}
    assert main(["estimate", spec_of(tmp_path, data=str(data))]) == 0
    assert capsys.readouterr().out.startswith("data: 5 rows as messages, 1 refused\n")


def test_an_estimate_refuses_what_a_run_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(tmp_path, model="no model", data="nosuch.jsonl")
    said: list[str] = []
    for command in (["estimate"], ["estimate", "--all-methods"], ["launch", "--runs", "x"]):
        assert main([command[0], spec, *command[1:]]) == 2
        said.append(capsys.readouterr().err)
    assert [line.split(":")[0] for line in said[0].splitlines()] == ["model.source", "data.source"]
    assert said[0] == said[1] == said[2]


def test_the_check_of_everything_takes_a_missing_browser_for_a_failure(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    for path in (tools, tmp_path / ".ci"):
        path.mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((PROJECT / ".ci" / "run").read_bytes())
    (tmp_path / "start.py").write_text("import os; print(os.environ['CI'])", encoding="utf-8")
    (tools / "chromium").write_text("#!/bin/sh\n", encoding="utf-8")
    (tools / "chromium").chmod(0o755)
    (tools / "python3").symlink_to(sys.executable)
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "true\n"
