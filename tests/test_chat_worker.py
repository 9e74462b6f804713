"""The chat worker: sides on one set of weights, on two, or in turns; proofs, limits, mistakes."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import engine.generate
from engine.adapter_folder import load_base
from engine.adapter_parts import read_adapter
from engine.contract.device_lock import holder_of
from engine.fingerprint import TOLERANCE
from engine.preparation import Prepared
from engine.result import load_result
from tests.talks import HELLO, Caller, Talks, changed_weights, said_by
from tests.test_device_lock import another_process
from tests.tiny import CONTEXT, tiny_model_folder

CPU = torch.device("cpu")
KEY = "GPU-00000000-chat-worker"


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Talks:
    return Talks(tmp_path_factory.mktemp("talks"))


@pytest.fixture(scope="module")
def runs(talks: Talks) -> dict[str, Prepared]:
    return {
        "lora": talks.train("lora", "lora"),
        "lora-2": talks.train("lora-2", {"kind": "lora", "rank": 4}, rate=3e-2),
        "qlora": talks.train("qlora", "qlora"),
        "lomo": talks.train("lomo", "lomo", rate=3e-2),
    }


@pytest.fixture
def caller(talks: Talks, runs: dict[str, Prepared]) -> Caller:
    return Caller(talks.runs)


@pytest.mark.parametrize(("name", "form"), [("lora", "bfloat16"), ("qlora", "4-bit")])
def test_an_adapter_and_its_base_are_one_set_of_weights(
    caller: Caller, talks: Talks, name: str, form: str
) -> None:
    loaded = caller.load(a=str(talks.base), b=name)
    assert (loaded["event"], loaded["plan"], loaded["base_form"]) == ("loaded", "shared", form)
    assert {side["form"] for side in loaded["sides"].values()} == {form}
    assert loaded["proof"]["same_as_recorded"] is True
    assert loaded["different"] is True
    assert loaded["largest_difference"] > 0.1
    # What rounding to 4 bits does to the base is told, and is no mismatch.
    assert loaded["base_difference"] is not None
    assert any("4 bits" in note for note in loaded["notes"]) == (form == "4-bit")
    sides = caller.models.sides
    assert sides["a"].loaded is not None
    assert sides["b"].loaded is not None
    assert sides["a"].loaded.model is sides["b"].loaded.model
    tuned = said_by(load_result(talks.run(name).export, CPU))
    base = said_by(load_base(read_adapter(talks.run(name).export), CPU))
    assert tuned != base
    for _ in range(2):
        assert caller.text("b") == tuned
        assert caller.text("a") == base


def test_two_adapters_beside_one_base_are_one_set_of_weights(caller: Caller, talks: Talks) -> None:
    loaded = caller.load(a="lora", b="lora-2")
    assert loaded["plan"] == "shared"
    assert loaded["proof"]["sides"]["a"]["same_as_recorded"] is True
    assert loaded["proof"]["sides"]["b"]["same_as_recorded"] is True
    said = {name: said_by(load_result(talks.run(name).export, CPU)) for name in ("lora", "lora-2")}
    assert said["lora"] != said["lora-2"]
    assert [caller.text(side) for side in ("a", "b", "a")] == [
        *(said["lora"], said["lora-2"], said["lora"])
    ]
    assert caller.load(a="lora@3", b="lora")["plan"] == "shared"
    assert caller.text("b") == said["lora"]


def test_adapters_beside_different_forms_of_a_base_are_two_models(caller: Caller) -> None:
    loaded = caller.load(a="lora", b="qlora")
    assert loaded["plan"] == "resident"
    assert [loaded["sides"][side]["form"] for side in "ab"] == ["bfloat16", "4-bit"]
    assert loaded["base_form"] is None


def test_the_base_of_a_run_is_found(caller: Caller, talks: Talks) -> None:
    loaded = caller.load(a=None, b="lomo")
    assert loaded["plan"] == "resident"
    assert loaded["sides"]["a"]["name"] == "base"
    assert loaded["proof"]["sides"]["a"]["same_as_recorded"] is True
    assert caller.text("a") == said_by(load_result(talks.base, CPU))
    assert caller.text("b") == said_by(load_result(talks.run("lomo").export, CPU))


def test_what_does_not_fit_together_takes_turns(talks: Talks, runs: dict[str, Prepared]) -> None:
    caller = Caller(talks.runs, free_bytes=lambda device: 0)
    events = caller.send("load", a=None, b="lomo", runs=str(talks.runs), device="cpu")
    assert [event["event"] for event in events] == ["loading", "loading", "loaded"]
    first, second, loaded = events
    assert (first["side"], first["plan"], first["expected_s"]) == ("a", "swapped", None)
    assert second["expected_s"] > 0
    weights = (talks.run("lomo").export / "model.safetensors").stat().st_size
    assert 0.9 * weights < second["num_bytes"] < weights
    assert loaded["plan"] == "swapped"
    assert all(side["wait_s"] > 0 for side in loaded["sides"].values())
    assert loaded["notes"] == []  # the plan says it
    assert loaded["proof"]["same_as_recorded"] is True
    expected = {
        "a": said_by(load_result(talks.base, CPU)),
        "b": said_by(load_result(talks.run("lomo").export, CPU)),
    }
    for side in ("b", "a", "b"):
        events = caller.ask(side)
        held = [name for name, one in caller.models.sides.items() if one.loaded is not None]
        assert held == [side]
        assert "".join(e["text"] for e in events if e["event"] == "text") == expected[side]
        if side == "a":
            assert [event["event"] for event in events[:3]] == ["loading", "fetched", "text"]
            assert events[0]["expected_s"] > 0


def test_what_changes_while_it_waits_is_not_answered_with(
    talks: Talks, runs: dict[str, Prepared], tmp_path: Path
) -> None:
    folder = shutil.copytree(talks.run("lomo").export, tmp_path / "model")
    caller = Caller(talks.runs, free_bytes=lambda device: 0)
    assert caller.load(a=str(folder), b=str(talks.base))["event"] == "loaded"
    changed_weights(folder / "model.safetensors", 1.0)
    error = caller.ask("a")[-1]
    assert (error["event"], error["message"]) == ("error", "model changed since it was loaded.")
    assert caller.ask("b")[-1]["message"] == "no b model is loaded."


def copied(talks: Talks, name: str, folder: Path) -> Path:
    return shutil.copytree(talks.run(name).path, folder / name)


@pytest.mark.parametrize("name", ["lomo", "lora", "qlora"])
def test_a_base_that_is_another_is_an_error_and_nothing_answers(
    talks: Talks, runs: dict[str, Prepared], tmp_path: Path, name: str
) -> None:
    base = shutil.copytree(talks.base, tmp_path / "base")
    run = copied(talks, name, tmp_path)
    spec = json.loads((run / "spec.json").read_text(encoding="utf-8"))
    spec["model"]["source"] = str(base)
    (run / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    caller = Caller(tmp_path)
    assert caller.load(a=None, b=name)["proof"]["same_as_recorded"] is True
    changed_weights(base / "model.safetensors", 0.3)
    error = caller.load(a=None, b=name)
    assert error["event"] == "error"
    assert error["message"].startswith(
        f"base is not the model that {name} began with: its weight files"
    )
    assert caller.ask("a")[-1]["message"] == "no a model is loaded."
    assert caller.ask("b")[-1]["message"] == "no b model is loaded."


@pytest.mark.parametrize(
    ("name", "file"), [("lomo", "model.safetensors"), ("lora", "adapter_model.safetensors")]
)
def test_a_result_that_was_changed_is_an_error(
    talks: Talks, runs: dict[str, Prepared], tmp_path: Path, name: str, file: str
) -> None:
    run = copied(talks, name, tmp_path)
    caller = Caller(tmp_path)
    assert caller.load(a=None, b=name)["event"] == "loaded"
    changed_weights(run / "export" / file, 1.0)
    error = caller.load(a=None, b=name)
    assert error["event"] == "error"
    assert error["message"].startswith(f"{name} is not the result that its run wrote")


def test_an_old_run_has_no_proof_and_says_so(
    talks: Talks, runs: dict[str, Prepared], tmp_path: Path
) -> None:
    run = copied(talks, "lora", tmp_path)
    (run / "fingerprint.json").unlink()
    (run / "export" / "fingerprint.json").unlink()
    loaded = Caller(tmp_path).load(a=None, b="lora")
    assert loaded["event"] == "loaded"
    assert loaded["proof"]["same_as_recorded"] is None
    assert loaded["different"] is True
    assert sum("no record" in note for note in loaded["notes"]) == 2


def test_one_model_on_both_sides_is_said(caller: Caller, talks: Talks) -> None:
    loaded = caller.load(a=str(talks.base), b=str(talks.base))
    assert (loaded["different"], loaded["largest_difference"]) == (False, 0.0)
    assert loaded["proof"]["verdict"] == "alike"
    other = tiny_model_folder(talks.folder / "wider", vocab_size=400)
    loaded = caller.load(a=str(talks.base), b=str(other))
    assert (loaded["different"], loaded["largest_difference"]) == (True, None)


def test_one_side_alone(caller: Caller) -> None:
    assert caller.load(b="lora")["plan"] == "alone"
    assert list(caller.models.sides) == ["b"]
    assert caller.text("b")
    assert caller.load(a="lora", b=None)["plan"] == "alone"
    assert list(caller.models.sides) == ["a"]


def half_written(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000])


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (half_written, "is damaged or no safetensors file."),
        (without_weights, "holds no safetensors weights."),
        (without_tokenizer, "has no tokenizer."),
        (lambda folder: folder.rename(folder.parent / ".export-new-9"), "has no result yet."),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_sentence(
    talks: Talks,
    runs: dict[str, Prepared],
    tmp_path: Path,
    spoil: Callable[[Path], Any],
    sentence: str,
) -> None:
    run = copied(talks, "lomo", tmp_path)
    spoil(run / "export")
    caller = Caller(tmp_path)
    error = caller.load(a=None, b="lomo")
    assert error["event"] == "error"
    assert sentence in error["message"]
    assert error["advice"]
    assert caller.load(b=str(talks.base))["event"] == "loaded"


@pytest.mark.parametrize("sides", [{"a": None}, {}])
def test_an_adapter_that_names_no_base_is_one_sentence(
    talks: Talks, runs: dict[str, Prepared], tmp_path: Path, sides: dict[str, Any]
) -> None:
    folder = shutil.copytree(talks.run("lora").export, tmp_path / "adapter")
    config = folder / "adapter_config.json"
    document = json.loads(config.read_text(encoding="utf-8"))
    document["base_model_name_or_path"] = None
    config.write_text(json.dumps(document), encoding="utf-8")
    error = Caller(talks.runs).load(**sides, b=str(folder))
    assert error["event"] == "error"
    assert error["message"] == (f"the adapter in {folder} does not say which model it belongs to.")
    assert "base_model_name_or_path" in error["advice"]


def test_a_base_that_answers_in_fewer_digits_than_its_files_have_is_said(
    talks: Talks, tmp_path: Path
) -> None:
    other = Talks(tmp_path)
    tiny_model_folder(other.base, hidden_size=64, intermediate_size=128, dtype=torch.float32)
    other.train("lora", "lora", steps=2)
    caller = Caller(other.runs)
    loaded = caller.load(a=None, b="lora")
    assert (
        "The original answers in bfloat16, as the adapter knew it, not in float32."
        in (loaded["notes"])
    )
    assert not any(" answers in " in note for note in caller.load(b="lora")["notes"])


def test_an_adapter_of_another_base_is_one_sentence(
    talks: Talks, runs: dict[str, Prepared], tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(talks.run("lora").export, tmp_path / "adapter")
    config = folder / "adapter_config.json"
    document = json.loads(config.read_text(encoding="utf-8"))
    document["base_model_name_or_path"] = str(tiny_folder("gpt2"))
    config.write_text(json.dumps(document), encoding="utf-8")
    error = Caller(talks.runs).load(a=None, b=str(folder))
    assert error["event"] == "error"
    assert "does not fit" in error["message"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"messages": {"b": [{"role": "user", "content": " "}]}}, "the question is empty."),
        ({"messages": {"b": [{"role": "user", "content": "x" * 1_000_000}]}}, "tokens long and"),
        ({"messages": {"c": HELLO}}, "no c model is loaded."),
        ({"messages": {"b": 7}}, "they are no list of objects."),
        ({"messages": 7}, "The request is malformed"),
        ({}, "The request is malformed"),
        ({"messages": {"b": HELLO}, "top_p": 0}, "no word is left to choose."),
        ({"messages": {"b": HELLO}, "temperature": float("nan")}, "nan is not a number"),
        ({"messages": {"b": HELLO}, "max_new_tokens": 0}, "0 is not a whole number"),
    ],
)
def test_a_question_that_cannot_be_answered_is_one_sentence(
    caller: Caller, fields: dict[str, Any], sentence: str
) -> None:
    caller.load(b="lora")
    started = time.monotonic()
    error = caller.send("ask", **fields)[-1]
    assert time.monotonic() - started < 10
    assert error["event"] == "error"
    assert sentence in error["message"]
    assert caller.text("b")


def test_a_refused_question_says_that_the_models_are_still_there(caller: Caller) -> None:
    caller.load(b="lora")
    for wrong in ({"temperature": 99}, {"max_new_tokens": "many"}, {"messages": {"b": 7}}):
        error = caller.send("ask", **{"messages": {"b": HELLO}, **wrong})[-1]
        assert (error["event"], error["loaded"]) == ("error", True)
    assert caller.text("b")
    assert caller.load(b="nobody")["loaded"] is False
    assert caller.ask("b")[-1]["loaded"] is False


def test_a_request_that_is_none_is_one_sentence(caller: Caller) -> None:
    assert "unknown request" in caller.send("dance")[-1]["message"]
    assert "no model is named" in caller.load()["message"]
    assert caller.load(b=str(3), device="moon")["event"] == "error"


def test_the_prompt_can_be_read(caller: Caller, talks: Talks) -> None:
    caller.load(a=None, b="lora")
    (shown,) = caller.send("prompt", messages={"b": HELLO}, system="Be kind.")
    assert shown["text"] == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhat is Mara number 7 at?"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    done = caller.ask("b", system="Be kind.")[-1]
    assert done["prompt_tokens"] == shown["num_tokens"]
    assert (shown["dropped_turns"], shown["context"], shown["side"]) == (0, CONTEXT, "b")


def test_a_reply_is_measured(caller: Caller) -> None:
    caller.load(b="lora")
    done = caller.ask("b", max_new_tokens=12, temperature=1.0, seed=3)[-1]
    assert done["stopped"] in ("length", "end")
    assert 0 < done["first_token_s"] <= done["seconds"]
    assert done["num_tokens"] <= 12
    assert done["tokens_per_s"] is None or done["tokens_per_s"] > 0
    long = [{"role": ("user", "assistant")[at % 2], "content": "Q" * 30} for at in range(9)]
    assert caller.ask("b", long, max_new_tokens=12)[-1]["dropped_turns"] > 0


def test_text_comes_at_most_ten_times_a_second(caller: Caller, talks: Talks) -> None:
    caller.load(b=str(talks.base))
    events = caller.ask("b", max_new_tokens=100, temperature=3.0)
    seconds = events[-1]["seconds"]
    told = [event for event in events if event["event"] == "text"]
    assert 1 <= len(told) <= 2 + 10 * seconds
    assert events[-1]["num_tokens"] > len(told)


def test_stop_ends_an_answer_in_the_middle_of_its_prompt(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.generate, "PROMPT_PART", 8)
    caller.load(a=None, b="lora")
    passes: list[int] = []

    def stop_at_the_second_part(module: Any, inputs: Any) -> None:
        passes.append(1)
        if len(passes) == 2:
            caller.stop()

    side = caller.models.side("a")
    assert side.loaded is not None
    hook = side.loaded.model.register_forward_pre_hook(stop_at_the_second_part)
    try:
        events = caller.send("ask", messages={"a": HELLO, "b": HELLO}, max_new_tokens=50)
    finally:
        hook.remove()
    assert [(event["event"], event["side"]) for event in events] == [("done", "a")]
    assert (events[0]["stopped"], events[0]["num_tokens"]) == ("stop", 0)
    assert len(passes) == 2
    # It was for that answer only, and is forgotten with it.
    caller.use_number_again()
    assert caller.text("b")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory"),
        (RuntimeError("probability tensor contains inf"), "not known (RuntimeError)"),
        (AssertionError(), "not known (AssertionError)"),
    ],
)
def test_what_fails_in_the_middle_is_told_and_the_worker_lives(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, fault: Exception, words: str
) -> None:
    caller.load(b="lora")

    def fail(*_: Any) -> None:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr("engine.chat_worker.reply_to", fail)
        error = caller.ask("b")[-1]
    assert words in error["message"]
    assert not caller.models.sides
    assert caller.load(b="lora")["event"] == "loaded"


def test_one_process_has_the_gpu(talks: Talks, runs: dict[str, Prepared]) -> None:
    caller = Caller(talks.runs, key_of=lambda device: KEY)
    with another_process(KEY) as process:
        error = caller.load(a=None, b="lora")
        assert (error["event"], error["class"]) == ("error", "device_busy")
        assert f"process {process.pid}" in error["message"]
        assert caller.ask("b")[-1]["message"] == "no b model is loaded."
    assert caller.load(a=None, b="lora")["event"] == "loaded"
    holder = holder_of(KEY)
    assert holder is not None
    assert (holder.purpose, holder.name) == ("chat", "base and lora")
    assert caller.load(b="lora-2")["event"] == "loaded"
    for mistake in ({"b": "nobody"}, {"b": None}, {"b": "lora", "device": "abacus"}):
        assert caller.load(b="lora-2")["event"] == "loaded"
        assert holder_of(KEY) is not None
        assert caller.load(**mistake)["event"] == "error"
        assert holder_of(KEY) is None
    assert caller.load(b="lora-2")["event"] == "loaded"
    assert holder_of(KEY) is not None
    caller.send("unload")
    assert not caller.models.sides


def test_stop_is_heard_while_something_else_is_answered(caller: Caller) -> None:
    """It comes in on another thread, and no further word is written."""
    caller.load(b="lora")
    thread = threading.Thread(target=caller.stop, daemon=True)
    passes: list[int] = []

    def begin(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 4:
            thread.start()
            thread.join()

    side = caller.models.side("b")
    assert side.loaded is not None
    hook = side.loaded.model.register_forward_hook(begin)
    try:
        done = caller.ask("b", max_new_tokens=100, temperature=3.0)[-1]
    finally:
        hook.remove()
    assert done["stopped"] == "stop"
    assert len(passes) == 4
    assert 0 < done["num_tokens"] <= 4


def test_a_model_is_its_record_with_room_to_spare(talks: Talks, runs: dict[str, Prepared]) -> None:
    caller = Caller(talks.runs)
    for name in runs:
        proof = caller.load(a=None, b=name)["proof"]
        assert proof["tolerance"] == TOLERANCE
        most = max(side["difference"] for side in proof["sides"].values())
        assert most < TOLERANCE / 3
        assert proof["largest_difference"] > 2 * most
