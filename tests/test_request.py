"""What cannot be used is refused before anything is created, one line for each mistake."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.commands.parser import main
from engine.contract.errors import ExitCode

CONFIG = {"model_type": "llama", "vocab_size": 8}
ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
ROWS = (json.dumps(ROW) + "\n").encode()
SAMPLES = "one of the samples pirate, support, json."
NO_FORMAT = "the rows of rows.jsonl are in no format known here"
DAMAGED = "is damaged or no safetensors file. Get it anew."
NO_JSON = "config.json is not readable JSON. Get it anew."
REMOTE = "Such models are never loaded; choose an architecture that transformers has."


def safetensors(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(**entry: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}


GOOD_WEIGHTS = safetensors(tensor())


class Request:
    """A request that is in order until a test spoils one part of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model"
        self.data = folder / "rows.jsonl"
        self.runs = folder / "runs"
        self.model.mkdir()
        self.write("config.json", CONFIG)
        self.write("tokenizer.json", {})
        self.write("model.safetensors", GOOD_WEIGHTS)
        self.data.write_bytes(ROWS)
        self.document: dict[str, Any] = {
            "model": {"source": str(self.model)},
            "data": {"source": str(self.data)},
            "method": {"kind": "qft"},
            "train": {"device": "cpu"},
        }

    def write(self, name: str, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (self.model / name).write_bytes(data)

    def without(self, name: str, **instead: Any) -> None:
        (self.model / name).unlink()
        for other, content in instead.items():
            self.write(other, content)

    def rows(self, content: bytes) -> None:
        self.data.write_bytes(content)

    def ask_for(self, group: str, **fields: Any) -> None:
        self.document.setdefault(group, {}).update(fields)

    def launch(self, *options: str) -> int:
        spec = self.folder / "spec.json"
        spec.write_text(json.dumps(self.document), encoding="utf-8")
        return main(["launch", str(spec), "--runs", str(self.runs), *options])


@pytest.fixture
def request_in_order(tmp_path: Path) -> Request:
    return Request(tmp_path)


Spoil = Callable[[Request], object]
BAD: dict[str, tuple[Spoil, str, str]] = {
    "unknown key": (
        lambda r: r.ask_for("train", step=1),
        "train.step",
        "there is no such setting. Did you mean steps?",
    ),
    "out of bounds": (
        lambda r: r.ask_for("train", batch_size=0),
        "train.batch_size",
        "it should be greater than or equal to 1, but is 0.",
    ),
    "unknown preset": (
        lambda r: r.ask_for("method", preset="papers"),
        "method.preset",
        'but is "papers". Choose balanced, lean, quality or paper.',
    ),
    "accumulation with fused updates": (
        lambda r: r.ask_for("train", grad_accumulation=2),
        "train.grad_accumulation",
        "Use grad_accumulation 1, or gradients stack.",
    ),
    "clipping with fused updates": (
        lambda r: r.ask_for("train", max_grad_norm=1.0),
        "train.max_grad_norm",
        "Leave max_grad_norm out, or use gradients stack.",
    ),
    "int8 products with scale groups": (
        lambda r: r.ask_for("method", matmul="int8", scale_group=32),
        "method.matmul",
        "Use dequantize, or scale_group row and outlier_percent 0.",
    ),
    "int8 products with outliers": (
        lambda r: r.ask_for("method", matmul="int8", outlier_percent=0.5),
        "method.matmul",
        "int8 products need one scale per row and no weights in float32 among them.",
    ),
    "no such device": (
        lambda r: r.ask_for("train", device="cuda:99"),
        "train.device",
        "Use auto or cpu.",
    ),
    "no such model": (
        lambda r: r.ask_for("model", source="no model"),
        "model.source",
        "Use starter, a catalogue name, a folder, or a hub id such as owner/name.",
    ),
    "name too long": (
        lambda r: r.ask_for("model", source="x" * 4000),
        "model.source",
        "Use starter, a catalogue name, a folder, or a hub id such as owner/name.",
    ),
    "unknown home": (
        lambda r: r.ask_for("model", source="~no-one-here/model"),
        "model.source",
        "there is no folder and no model called '~no-one-here/model'.",
    ),
    "model is a file": (
        lambda r: r.ask_for("model", source=str(r.data)),
        "model.source",
        "rows.jsonl is a file. Name the folder that holds the model.",
    ),
    "no config": (
        lambda r: r.without("config.json"),
        "model.source",
        "has no config.json. Name the folder of a Hugging Face model.",
    ),
    "config not JSON": (lambda r: r.write("config.json", b"{"), "model.source", NO_JSON),
    "config too deep": (
        lambda r: r.write("config.json", b"[" * 99_999),
        "model.source",
        NO_JSON,
    ),
    "config a list": (
        lambda r: r.write("config.json", [CONFIG]),
        "model.source",
        "config.json holds no JSON object. Get it anew.",
    ),
    "config huge": (
        lambda r: r.write("config.json", {"x": "x" * 1_000_000}),
        "model.source",
        "config.json is larger than 1 MB. It is no model config.",
    ),
    "code of its own": (
        lambda r: r.write("config.json", {**CONFIG, "auto_map": {"AutoModel": "x.X"}}),
        "model.source",
        f"wants to run code of its own (auto_map in config.json). {REMOTE}",
    ),
    "generate of its own": (
        lambda r: r.write("config.json", {**CONFIG, "custom_generate": "x"}),
        "model.source",
        f"wants to run code of its own (custom_generate in config.json). {REMOTE}",
    ),
    "quantized already": (
        lambda r: r.write("config.json", {**CONFIG, "quantization_config": {}}),
        "model.source",
        "Choose the original in 16 or 32 bits; the method quantizes it itself.",
    ),
    "pickles only": (
        lambda r: r.without("model.safetensors", **{"pytorch_model.bin": b"x"}),
        "model.source",
        "Choose a copy of the model in safetensors format.",
    ),
    "no weights": (
        lambda r: r.without("model.safetensors"),
        "model.source",
        "holds no safetensors weights. Choose another folder.",
    ),
    "no tokenizer": (
        lambda r: r.without("tokenizer.json"),
        "model.source",
        "has no tokenizer. Copy tokenizer.json from the original model.",
    ),
    "data missing": (lambda r: r.data.unlink(), "data.source", SAMPLES),
    "data a name": (lambda r: r.ask_for("data", source="pirat"), "data.source", SAMPLES),
    "data on two lines": (lambda r: r.ask_for("data", source="a\nb"), "data.source", SAMPLES),
    "data empty": (lambda r: r.rows(b"\n"), "data.source", "is empty. Choose another file."),
    "data a folder": (
        lambda r: r.ask_for("data", source=str(r.model)),
        "data.source",
        "is a folder. Name a .jsonl, .json, .csv, .parquet or .txt file in it.",
    ),
    "data a web page": (
        lambda r: r.rows(b"<!DOCTYPE html><html><body>404</body></html>"),
        "data.source",
        "rows.jsonl is a web page.",
    ),
    "data broken JSON": (
        lambda r: r.rows(b"[\n{,\n]"),
        "data.source",
        "line 2 of rows.jsonl: it is no valid JSON: ",
    ),
    "data no JSON": (
        lambda r: r.rows(b"hello\n"),
        "data.source",
        "(line 1). Check how the file was saved, or save it anew.",
    ),
    "data without reply": (
        lambda r: r.rows(ROWS.replace(b'"Ho"', b'" "')),
        "data.source",
        "a reply is empty (line 1). Each row needs a question and a reply.",
    ),
    "data of no format": (
        lambda r: r.rows(b'{"q": 1}\n'),
        "data.source",
        f"{NO_FORMAT}: it has a question, but no reply that is known here (line 1).",
    ),
    "data without a column": (
        lambda r: r.rows(ROWS) or r.ask_for("data", columns={"reply": "gone"}),
        "data.columns",
        "rows.jsonl has no column gone; its columns are messages.",
    ),
    "data of preferences": (
        lambda r: r.rows(b'{"prompt": "Hi", "chosen": "Ho", "rejected": "No"}\n'),
        "data.format",
        "Set data.format to preference, which learns the chosen replies only.",
    ),
}
DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "short": GOOD_WEIGHTS[:5],
    "header cut": GOOD_WEIGHTS[:40],
    "data cut": GOOD_WEIGHTS[:-1],
    "data added": GOOD_WEIGHTS + b"x",
    "endless header": struct.pack("<Q", 2**63) + GOOD_WEIGHTS[8:],
    "no JSON": safetensors(b"{"),
    "deep": safetensors(b"[" * 99_999),
    "list": safetensors([1]),
    "number": safetensors({"w": 7}),
    "no dtype": safetensors({"w": {"shape": [2], "data_offsets": [0, 8]}}),
    "no offsets": safetensors(tensor(data_offsets=[])),
    "odd offsets": safetensors(tensor(data_offsets=["0", "8"])),
    "infinite shape": safetensors(tensor(shape=[float("inf")])),
    "pickle": b"\x80\x04}q.",
}


def refused(request: Request, capsys: pytest.CaptureFixture[str], field: str, words: str) -> None:
    """Exit code 2, one line, nothing created; the same as a JSON document."""
    assert request.launch() == ExitCode.BAD_REQUEST
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"{field}: ")
    assert words in line
    assert said.out == ""
    assert request.launch("--json") == ExitCode.BAD_REQUEST
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert set(error) == {"class", "message", "field", "advice"}
    assert (error["class"], error["field"]) == ("bad_request", field)
    assert words in f"{error['message']} {error['advice']}"
    assert said.err == ""
    assert not request.runs.exists()


@pytest.mark.parametrize("case", BAD)
def test_each_bad_request_is_one_line_with_the_way_out(
    request_in_order: Request, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    spoil, field, words = BAD[case]
    spoil(request_in_order)
    refused(request_in_order, capsys, field, words)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_noticed_before_they_are_loaded(
    request_in_order: Request, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    request_in_order.write("model.safetensors", DAMAGES[damage])
    refused(request_in_order, capsys, "model.source", DAMAGED)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_in_a_files_place_holds_nobody_up(
    request_in_order: Request, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (request_in_order.model / name).unlink()
    os.mkfifo(request_in_order.model / name)
    refused(request_in_order, capsys, "model.source", "model")


def test_several_mistakes_are_told_at_once(
    request_in_order: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    request_in_order.without("config.json")
    request_in_order.data.unlink()
    request_in_order.ask_for("train", device="cuda:99")
    assert request_in_order.launch() == ExitCode.BAD_REQUEST
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["model.source", "data.source", "train.device"]
    assert request_in_order.launch("--json") == ExitCode.BAD_REQUEST
    answer = json.loads(capsys.readouterr().out)
    assert [error["field"] for error in answer["errors"]] == [line.split(":")[0] for line in lines]
    assert answer["error"] == answer["errors"][0]
    assert not request_in_order.runs.exists()
