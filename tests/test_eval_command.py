"""`eval` measures what it says: the same rows before and after, one model in memory at a time."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import judgement
from engine.adapters import switch_to
from engine.checkpoint import Progress, save_checkpoint
from engine.commands.parser import main
from engine.contract.run_dir import RunDir
from engine.evaluate import held_out_loss
from engine.export import export_model
from engine.generate import never
from engine.model import LoadedModel
from engine.preparation import tokenized
from engine.result import load_result
from engine.target import Target
from tests.tiny import chat_rows, prepared, tiny_model_folder, tiny_spec, write_jsonl
from tests.workshop import tree

CPU = torch.device("cpu")
MEASURED = {"loss_nats", "perplexity", "num_target_tokens"}
KEYS = {"target", "side", "data", *MEASURED, "base", "tuned", "difference", "scorer"}
HELD_OUT = 6  # of sixty chats
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and chats; rows of 64 values, so that 4 bits can hold them."""
    folder = tmp_path_factory.mktemp("judged")
    tiny_model_folder(folder / "model", hidden_size=64, intermediate_size=128)
    write_jsonl(folder / "chats.jsonl", chat_rows(60))
    write_jsonl(folder / "others.jsonl", chat_rows(75)[60:])
    return folder


def trained(place: Path, name: str, method: str | dict[str, Any]) -> float:
    """A run of a few large steps, with its result and a checkpoint of step 4: its loss there."""
    one = prepared(tiny_spec(place / "model", place / "chats.jsonl", method), place / "draft")
    (draft,) = (place / "draft").iterdir()
    run = RunDir(draft.rename(place / "runs" / name))
    loss = 0.0
    for step in range(1, 9):
        one.method.step(one.batches(step), 1e-2, step)
        if step == 4:
            save_checkpoint(run, 1, Progress(step=4), one.method.state_dict())
            loss, _ = expected(run, one.loaded)
    export_model(run, one.loaded, one.method)
    return loss


@pytest.fixture(scope="module")
def losses(place: Path) -> dict[str, float]:
    """By run the held-out loss at its checkpoint, as the run itself would report it."""
    (place / "runs").mkdir()
    return {
        name: trained(place, name, name if name == "full" else {"kind": name, "rank": 4})
        for name in ("full", "lora", "qlora")
    }


@pytest.fixture(scope="module")
def runs(place: Path, losses: dict[str, float]) -> Path:
    return place / "runs"


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], runs: Path) -> Ask:
    """The document of `eval`, or its lines."""

    def ask(*arguments: str, code: int = 0, as_json: bool = True) -> Any:
        capsys.readouterr()
        ending = ["--json"] if as_json else []
        common = ["--runs", str(runs), "--device", "cpu"]
        assert main(["eval", *arguments, *common, *ending]) == code
        said = capsys.readouterr()
        if not as_json:
            return said.err if code else said.out.splitlines()
        assert said.err == ""
        return json.loads(said.out)

    return ask


def expected(run: RunDir, loaded: LoadedModel) -> tuple[float, int]:
    """What training would report of the rows that the run held out."""
    data = tokenized(run.spec(), loaded)
    found = held_out_loss(loaded, data.evaluation, 4, CPU, never)
    assert found is not None
    return found[0] / found[1], found[1]


def test_a_run_is_measured_before_and_after(ask: Ask, runs: Path, place: Path) -> None:
    run = RunDir(runs / "full")
    before = tree(runs)
    found = ask("full")
    assert tree(runs) == before
    assert set(found) == KEYS
    assert (found["target"], found["side"], found["scorer"]) == ("full", "tuned", None)
    assert found["data"] == {
        "source": str(place / "chats.jsonl"),
        "part": "held out",
        "num_examples": HELD_OUT,
        "sequence_length": 96,
    }
    for side, folder in (("base", place / "model"), ("tuned", run.export)):
        loss, tokens = expected(run, load_result(folder, CPU))
        assert found[side]["loss_nats"] == pytest.approx(loss, rel=1e-4)
        assert found[side]["num_target_tokens"] == tokens
    assert {key: found[key] for key in MEASURED} == {key: found["tuned"][key] for key in MEASURED}
    difference = found["difference"]
    moved = found["tuned"]["loss_nats"] - found["base"]["loss_nats"]
    assert difference["mean_nats"] == pytest.approx(moved)
    assert difference["low"] <= difference["mean_nats"] <= difference["high"] < 0
    assert difference["num_examples"] == HELD_OUT
    assert ask("full") == found


def test_the_runs_own_data_is_its_held_out_part_however_it_is_named(ask: Ask, place: Path) -> None:
    found = ask("full")
    copy = shutil.copy(place / "chats.jsonl", place / "copy.jsonl")
    assert ask("full", str(place / "chats.jsonl")) == found
    assert ask("full", str(copy)) == found


def test_of_another_file_every_row_counts(ask: Ask, place: Path) -> None:
    found = ask("full", str(place / "others.jsonl"))
    assert (found["data"]["part"], found["data"]["num_examples"]) == ("all", 15)
    first = ask("full", str(place / "others.jsonl"), "--max-rows", "4")
    assert first["data"]["num_examples"] == 4
    assert first["num_target_tokens"] < found["num_target_tokens"]
    plain = ask(str(place / "model"), str(place / "others.jsonl"), "--sequence-length", "96")
    assert (plain["side"], plain["tuned"], plain["difference"]) == ("base", None, None)
    assert plain["base"] == found["base"]
    assert plain["loss_nats"] == found["base"]["loss_nats"]


def test_the_base_alone_is_measured_as_before(ask: Ask) -> None:
    found, both = ask("full", "--base"), ask("full")
    assert (found["side"], found["tuned"], found["difference"]) == ("base", None, None)
    assert found["base"] == both["base"]
    assert found["data"] == both["data"]
    assert ask("full@4", "--base") == found


@pytest.mark.parametrize(("name", "form"), [("lora", "bfloat16"), ("qlora", "4-bit")])
def test_an_adapter_is_switched_on_one_base(
    ask: Ask, runs: Path, name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = judgement.load_target

    def counted(target: Target, device: torch.device) -> LoadedModel:
        loads.append(target.name)
        return load(target, device)

    monkeypatch.setattr(judgement, "load_target", counted)
    found = ask(name)
    assert loads == [name]
    assert (found["base"]["form"], found["tuned"]["form"]) == (form, form)
    run = RunDir(runs / name)
    loaded = load_result(run.export, CPU)
    tuned, _ = expected(run, loaded)
    switch_to(loaded.model, None)
    base, _ = expected(run, loaded)
    assert found["tuned"]["loss_nats"] == pytest.approx(tuned, rel=1e-4)
    assert found["base"]["loss_nats"] == pytest.approx(base, rel=1e-4)
    assert tuned < base
    # The files of the base are another model than its bfloat16 or its 4 bits.
    plain = ask(name, "--base")
    assert plain["base"]["form"] == "as stored"
    assert plain["loss_nats"] == pytest.approx(base, rel=0.02)


@pytest.mark.parametrize("name", ["full", "lora", "qlora"])
def test_a_checkpoint_is_measured_as_the_run_was_there(
    ask: Ask, losses: dict[str, float], name: str
) -> None:
    found, result = ask(f"{name}@4"), ask(name)
    assert found["target"] == f"{name}@4"
    assert found["base"] == result["base"]
    assert found["loss_nats"] == pytest.approx(losses[name], rel=1e-3)
    assert found["loss_nats"] != result["loss_nats"]


def test_one_model_is_in_memory_at_a_time(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    load = judgement.load_target

    def watched(target: Target, device: torch.device) -> LoadedModel:
        gc.collect()
        assert [one() for one in alive if one() is not None] == []
        loaded = load(target, device)
        alive.append(weakref.ref(loaded.model))
        return loaded

    monkeypatch.setattr(judgement, "load_target", watched)
    ask("full")
    assert len(alive) == 2


def test_a_sample_is_scored_too_and_told_in_four_lines(ask: Ask, place: Path) -> None:
    arguments = ("full", "pirate", "--max-rows", "5")
    found = ask(*arguments)
    assert found["data"]["part"] == "held out"
    scorer = found["scorer"]
    assert set(scorer) == {
        *("name", "num_prompts", "hits_before", "hits_after", "before", "after"),
        *("difference", "low", "high"),
    }
    assert (scorer["name"], scorer["num_prompts"]) == ("pirate", 5)
    assert scorer["low"] <= scorer["difference"] <= scorer["high"]
    lines = ask(*arguments, as_json=False)
    assert len(lines) == 4
    assert lines[0].startswith("full on the held-out part of pirate: 5 examples of at most 96")
    assert lines[1] == (
        f"loss {found['base']['loss_nats']:.4f} before, {found['tuned']['loss_nats']:.4f} after "
        f"nats per token, perplexity {found['base']['perplexity']:.2f} before, "
        f"{found['tuned']['perplexity']:.2f} after"
    )
    assert lines[2].startswith(f"difference {found['difference']['mean_nats']:+.4f} nats, with 95")
    assert lines[3].startswith("scorer pirate: 0 of 5 prompts before, 0 after; +0.0 points")
    alone = ask(str(place / "model"), "pirate", "--max-rows", "5", as_json=False)
    assert len(alone) == 3
    assert alone[2] == "scorer pirate: 0 of 5 prompts"


@pytest.mark.parametrize("rows", [1, 4])
def test_of_few_rows_there_is_no_interval(ask: Ask, rows: int) -> None:
    found = ask("full", "--max-rows", str(rows))
    assert found["data"]["num_examples"] == found["difference"]["num_rows"] == rows
    assert (found["difference"]["low"], found["difference"]["high"]) == (None, None)
    lines = ask("full", "--max-rows", str(rows), as_json=False)
    assert lines[2].endswith("nats; of fewer than 5 rows there is no interval")


def test_copies_and_pieces_of_a_row_are_no_further_evidence(ask: Ask, place: Path) -> None:
    """The difference of six texts is as sure when each stands there four times, or is cut."""
    rows = chat_rows(75)[60:66]
    texts = [{"text": " ".join(turn["content"] for turn in row["messages"]) * 8} for row in rows]
    found = {
        name: ask("full", str(write_jsonl(place / f"{name}.jsonl", several)), *length)["difference"]
        for name, several, length in (
            ("once", texts, ("--sequence-length", "96")),
            ("copies", texts * 4, ("--sequence-length", "96")),
            ("pieces", texts, ("--sequence-length", "24")),
        )
    }
    assert {one["num_rows"] for one in found.values()} == {6}
    assert found["copies"]["num_examples"] == 4 * found["once"]["num_examples"]
    assert found["pieces"]["num_examples"] > 3 * found["once"]["num_examples"]
    bounds = [[found[name][end] for end in ("low", "high")] for name in ("once", "copies")]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        (["MODEL"], "DATA", "it is missing. Name a sample, a file or a hub dataset."),
        (["full", "nowhere.jsonl"], "data.source", "there is no file nowhere.jsonl."),
        (["nothing", "pirate"], "model.source", "there is no folder and no model called"),
        (["full", "--max-rows", "0"], "--max-rows", "it must be 1 or more."),
        (["full", "--sequence-length", "7"], "--sequence-length", "it must be 8 or more."),
        (["full", "--device", "tpu"], "--device", "tpu is no device. Use auto, cpu or cuda:0."),
        (["full", "--device", "cuda:x"], "--device", "cuda:x is no device."),
        (["full", "--tasks-folder", "x"], "--tasks-folder", "it belongs to --harness."),
        (["full", "--chat-template"], "--chat-template", "it belongs to --harness."),
        (["full", "pirate", "--harness", "x"], "DATA", "the tasks of --harness have their own."),
        (["full", "--harness", " , "], "--harness", "no task is named."),
        (["full", "EMPTY"], "data.source", "is empty."),
    ],
)
def test_what_cannot_be_judged_is_a_sentence(
    capsys: pytest.CaptureFixture[str],
    runs: Path,
    place: Path,
    arguments: list[str],
    field: str,
    words: str,
) -> None:
    (place / "empty.jsonl").write_text("", encoding="utf-8")
    known = {"MODEL": str(place / "model"), "EMPTY": str(place / "empty.jsonl")}
    given = [known.get(word, word) for word in arguments]
    assert main(["eval", *given, "--runs", str(runs)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith(f"{field}: ")
    assert words in said.err


def test_a_run_that_held_nothing_out_says_so(ask: Ask, runs: Path) -> None:
    spec = json.loads((runs / "full" / "spec.json").read_text(encoding="utf-8"))
    spec["data"]["eval_percent"] = 0.0
    other = shutil.copytree(runs / "full", runs / "greedy")
    (other / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    error = ask("greedy", code=2)["error"]
    assert (error["field"], error["advice"]) == ("DATA", "Name a file of other rows.")
    assert error["message"].endswith("was held out.")
