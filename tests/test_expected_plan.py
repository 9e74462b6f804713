"""What is said of memory and downloads before anything is loaded."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.contract import device_lock
from engine.contract.bundled import STARTER
from engine.contract.device_lock import claim_device
from engine.contract.errors import RequestError
from engine.contract.hub_cache import cached_model
from engine.contract.run_dir import RunDir, create_run
from engine.contract.spec_file import validate_spec
from engine.memory.devices import Device, this_computer
from engine.memory.holders import Holder, held_by
from engine.memory.load_speed import keep_load_speed
from qft_gui.chat_client import ChatClient
from qft_gui.chat_room import ChatRoom
from qft_gui.comparing import expected_plan as plan
from qft_gui.comparing.desk import CompareDesk
from qft_gui.comparing.downloads import Downloads
from qft_gui.comparing.expected_plan import expected_plan
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.sides import Sides
from qft_gui.service import Service
from qft_gui.view.numbers import gib
from tests.speaker import Speaker
from tests.test_gui_golden import golden_run
from tests.tuned_copy import tuned_copy
from tests.waiting import until

GIB = 1 << 30
PINNED, NEWER = "a" * 40, "b" * 40


def device(free: int) -> Device:
    return Device("cpu", "cpu", "this computer", 2 * free, free)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "runs")


@pytest.fixture
def sides(service: Service) -> Sides:
    return Sides(service)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on this computer, empty."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(folder), raising=False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def put(hub: Path, hub_id: str, commit: str, *, main: bool = False) -> Path:
    """Have a model on this computer, as the hub's client keeps it."""
    model = hub / f"models--{hub_id.replace('/', '--')}"
    snapshot = model / "snapshots" / commit
    shutil.copytree(STARTER, snapshot)
    if main:
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text(commit)
    return snapshot


def run_of(runs: Path, name: str, model: dict[str, Any], kind: str) -> RunDir:
    document = {
        "model": model,
        "data": {"source": "pirate"},
        "method": {"kind": kind},
        "train": {"steps": 1, "activation_checkpointing": False},
    }
    run = create_run(runs, validate_spec(document), name)
    run.export.mkdir()
    if kind in ("lora", "qlora"):
        (run.export / "adapter_config.json").write_text("{}")
        (run.export / "adapter_model.safetensors").write_bytes(bytes(3 << 20))
    return run


def test_two_that_fit_two_that_take_turns_and_one_alone(service: Service, sides: Sides) -> None:
    tuned_copy(service.runs)
    pair = Pair("base:moved", "moved")
    (line,) = expected_plan(sides, pair, device(64 * GIB))
    assert line.startswith("Both will be in memory, about 0.")
    assert line.endswith(" of 64.0 GiB free.")
    (line,) = expected_plan(sides, pair, device(1000))
    assert "each is loaded when it is asked, starter in about 1 s and moved in about 1 s" in line
    keep_load_speed(10**9, 100.0, device(1000))
    (line,) = expected_plan(sides, pair, device(1000))
    assert "starter in about 2 s" in line
    (line,) = expected_plan(sides, Pair("", "moved"), device(64 * GIB))
    assert line.startswith("One model will be in memory, about ")
    (line,) = expected_plan(sides, Pair("", "moved"), device(1000))
    assert line.endswith("are free: it may not fit.")


def test_what_this_window_s_chat_holds_will_be_free(
    service: Service, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned_copy(service.runs)
    pair, full = Pair("base:moved", "moved"), device(1000)
    full = replace(full, id="cuda:0", kind="cuda", total_bytes=9 * GIB)
    # Another window has a chat, too.
    held = [Holder("the chat", pid, pid * GIB, "chat") for pid in (1, 2)]
    monkeypatch.setattr("engine.memory.holders.holders", lambda device: held)
    assert "each is loaded when it is asked" in expected_plan(sides, pair, full)[0]
    assert "of 2.0 GiB free" in expected_plan(sides, pair, full, worker=2)[0]
    assert "each is loaded when it is asked" in expected_plan(sides, pair, full, worker=3)[0]


def test_what_a_process_holds_of_main_memory_is_its_own() -> None:
    assert held_by(os.getpid(), this_computer()) > 1 << 20
    assert held_by(2**22 + 1, this_computer()) == 0  # larger than any number of a process


def test_the_memory_line_stays_while_the_models_load(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned_copy(service.runs).path.rename(service.runs / "slow")
    speaker = Speaker(tmp_path)
    desk = CompareDesk(service, ChatRoom(speaker.client, service.runs))
    taken = 0
    monkeypatch.setattr(plan, "held_by", lambda pid, device: taken * (pid == speaker.client.pid))
    monkeypatch.setattr(plan, "choose_device", lambda wish: device(64 * GIB - taken))

    def call(op: str, **more: Any) -> list[str]:
        told = desk.answer({"op": op, "key": "0" * 32, "since": 0, "epoch": 0, **more})
        return told["cards"]["memory"]

    (before,) = call("choose", left="base:slow", right="slow")
    assert before.endswith(" of 64.0 GiB free.")
    with closing(speaker.client):
        call("ask", question="Hi")
        until(lambda: speaker.heard("load"))
        taken = GIB
        assert call("look", cards=True) == [before]
        call("stop")


def test_an_adapter_is_counted_with_its_base(service: Service, sides: Sides) -> None:
    run_of(service.runs, "low", {"source": "starter"}, "lora")
    run_of(service.runs, "other", {"source": "starter"}, "lora")
    run_of(service.runs, "small", {"source": "starter"}, "qlora")
    alone = sides.made_of("low").memory
    assert alone is not None
    assert alone.weights_bytes > 7_500_000 + (3 << 20)
    for pair in (Pair("base:low", "low"), Pair("low", "base:low"), Pair("low", "other")):
        one_set, switched = expected_plan(sides, pair, device(64 * GIB))
        assert one_set.startswith("One set of weights will be in memory, about ")
        assert switched == "The adapter is switched for each answer."
    assert (
        "in 4 bits, as in training"
        in expected_plan(sides, Pair("small", "starter"), device(64 * GIB))[2]
    )
    # Bases in different forms are two.
    assert "Both will be" in expected_plan(sides, Pair("low", "small"), device(64 * GIB))[0]


def test_one_set_of_weights_goes_by_what_the_base_is_not_by_its_name(
    service: Service, sides: Sides, tmp_path: Path
) -> None:
    copy = shutil.copytree(STARTER, tmp_path / "starter")
    run_of(service.runs, "low", {"source": "starter"}, "lora")
    run_of(service.runs, "twin", {"source": str(copy)}, "lora")
    assert sides.name("base:low") == sides.name("base:twin") == "starter"
    for pair in (Pair("low", "twin"), Pair("base:twin", "low"), Pair(str(copy), "low")):
        assert "Both will be" in expected_plan(sides, pair, device(64 * GIB))[0]
    assert "One set" in expected_plan(sides, Pair(str(STARTER), "low"), device(64 * GIB))[0]


def test_a_run_s_original_is_the_commit_that_it_began_with(
    service: Service, sides: Sides, hub: Path
) -> None:
    model = {"source": "gpt2", "revision": PINNED}
    run_of(service.runs, "low", model, "lora")
    put(hub, "openai-community/gpt2", NEWER, main=True)
    assert sides.targets(Pair("base:low", "starter"))[0] == "low@base"
    assert sides.made_of("base:low").folder is None
    assert sides.made_of("gpt2").folder is not None
    pinned = put(hub, "openai-community/gpt2", PINNED)
    assert sides.made_of("base:low").folder == pinned
    assert "One set" in expected_plan(sides, Pair("base:low", "low"), device(64 * GIB))[0]
    assert "Both will" in expected_plan(sides, Pair("gpt2", "low"), device(64 * GIB))[0]


def test_an_adapter_from_elsewhere_is_known_by_its_own_files(
    service: Service, sides: Sides, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "starter", "revision": None})
    )
    (folder / "adapter_model.safetensors").write_bytes(bytes(1 << 20))
    assert "One set" in expected_plan(sides, Pair("starter", str(folder)), device(64 * GIB))[0]
    form = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    (folder / "quantization_config.json").write_text(json.dumps(form))
    run_of(service.runs, "small", {"source": "starter"}, "qlora")
    assert "One set" in expected_plan(sides, Pair("small", str(folder)), device(64 * GIB))[0]


def test_half_a_download_is_not_here(hub: Path) -> None:
    folder = put(hub, "ann/tiny", PINNED, main=True)
    assert cached_model("ann/tiny", None) == cached_model("ann/tiny", PINNED) == folder
    assert cached_model("ann/other", None) is None
    assert cached_model("no//name", None) is None
    index = {"weight_map": {"one": "model.safetensors", "two": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert cached_model("ann/tiny", PINNED) is None


def test_nothing_is_downloaded_before_a_person_allows_it(
    service: Service, hub: Path, tmp_path: Path
) -> None:
    golden_run(service.runs, "done")
    # A worker that would be started has no interpreter.
    room = ChatRoom(ChatClient(tmp_path / "log", command=["no-such-program"]), service.runs)
    desk = CompareDesk(service, room)

    def call(op: str, **more: Any) -> dict[str, Any]:
        wish = {"op": op, "key": "0" * 32, "since": 0, "epoch": 0, "cards": True, **more}
        return desk.answer(wish)

    told = call("choose", left="gpt2", right="done")["cards"]
    size = gib(2 * 124_439_808)
    assert told["download"]["line"].startswith(
        f"Not on this computer: openai-community/gpt2 (about {size} GiB in 16 bits)."
    )
    assert told["download"]["can"] is True
    for op in ("ask", "list", "judge", "export"):
        asked = call(op, question="Hi", prompts="Hi", form="hf")
        assert "Allow the download" in asked["why"], op
        assert "Not on this computer" not in asked["why"]
        assert asked["turns"] == []
    assert call("allow")["cards"]["download"] is None
    assert "why" not in call("ask", question="Hi")
    # Of a model that the catalogue does not know no size is made up.
    until(lambda: not call("look")["answering"])
    told = call("choose", left="ann/tiny", right="done")["cards"]
    assert "its size is not known here" in told["download"]["line"]


def test_offline_a_model_that_is_not_here_is_refused_with_the_way_out(
    sides: Sides, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    downloads, pair = Downloads(sides), Pair("gpt2", "starter")
    asked = downloads.frame(pair)
    assert asked is not None
    assert asked["can"] is False
    assert "start it without --offline, or choose another model" in str(asked["line"])
    for act in (downloads.allow, downloads.refuse):
        with pytest.raises(RequestError, match="The app is offline"):
            act(pair)
    put(hub, "openai-community/gpt2", NEWER, main=True)
    assert downloads.frame(pair) is None
    downloads.refuse(pair)


def test_who_holds_the_gpu_is_said(
    sides: Sides, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned_copy(service.runs)
    monkeypatch.setattr(plan, "device_key", lambda device: "GPU-held-test")
    with claim_device("GPU-held-test", "training", "otto"):
        first = expected_plan(sides, Pair("", "moved"), device(64 * GIB))[0]
        assert first.startswith("The GPU is held by training of otto (process ")
    assert "held" not in expected_plan(sides, Pair("", "moved"), device(64 * GIB))[0]
    assert device_lock.holder_of("GPU-held-test") is None


def test_nobody_chosen_says_nothing(sides: Sides) -> None:
    assert expected_plan(sides, Pair(), this_computer()) == []
