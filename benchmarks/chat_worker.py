"""How soon the chat stops, how fast an adapter is switched, and what two sides hold in memory.

`python -m benchmarks.chat_worker [--device cpu] [--save FILE]`, some minutes on 2 cores. Stops are
asked of a real worker on its pipes, with the starter: while it reads a prompt of 10,000 tokens, and
while it writes. Memory is that of a process with a QLoRA adapter on a random Llama of 160 million
weights, without and with its base as the other side.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.contract.launch import engine_environment

if __name__ == "__main__" and os.environ != engine_environment():
    # OpenMP reads its settings once, when torch is loaded.
    os.execve(
        sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], engine_environment()
    )

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from engine.adapter_folder import write_adapter
from engine.chat_models import ChatModels
from engine.contract.bundled import STARTER
from engine.contract.durable import write_json
from engine.contract.run_dir import default_runs
from engine.contract.spec_file import validate_spec
from engine.conversation import fitting_prompt
from engine.meter import peak_resident_bytes
from engine.methods.lora import LoraMethod
from engine.model import load_model
from engine.request import complete
from engine.target import find_target

PROMPT_TOKENS = 10_000
NUM_STOPS = 4
NUM_SWITCHES = 50
NUM_PROCESSES = 3
# What is promised; seconds, and a ratio.
STOP_S, SWITCH_S, MEMORY_RATIO = 0.3, 0.05, 1.1
LLAMA = {
    "vocab_size": 2048,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "tie_word_embeddings": True,
}


class Worker:
    """A real chat worker on pipes.

    Args:
        device: Where it answers.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.chat_worker"],
            env=engine_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._number = 0

    def send(self, operation: str, **fields: Any) -> int:
        """The number of a request that was sent."""
        self._number += 1
        line = json.dumps({"id": self._number, "op": operation, **fields})
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self._number

    def until(self, *kinds: str) -> dict[str, Any]:
        """The next event of one of these kinds."""
        assert self._process.stdout
        while True:
            event = json.loads(self._process.stdout.readline())
            assert event["event"] != "error", event
            if event["event"] in kinds:
                return event

    def load(self, model: Path) -> None:
        """Have it hold a model."""
        self.send("load", b=str(model), device=self._device)
        self.until("end")

    def stop_after(self, wait_s: float, content: str) -> dict[str, Any]:
        """The end of an answer, with `stop_s` and the worker's `cpu_s` since the stop.

        Args:
            wait_s: From the question to the stop; 0 to wait for the first words.
            content: Of the question.
        """
        messages = {"b": [{"role": "user", "content": content}]}
        settings = {"temperature": 2.0, "max_new_tokens": 2_000}
        number = self.send("ask", messages=messages, **settings)
        if wait_s:
            time.sleep(wait_s)
        else:
            self.until("text")
        started, computed = time.perf_counter(), self._computed_s()
        self.send("stop", target=number)
        done = self.until("done")
        done["stop_s"] = time.perf_counter() - started
        done["cpu_s"] = self._computed_s() - computed
        self.until("end")
        return done

    def _computed_s(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


def measure_stops(folder: Path, device: str) -> dict[str, Any]:
    """Seconds from stop to end: while a long prompt is read, and while words are written."""
    model = folder / "long"
    shutil.copytree(STARTER, model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 2 * PROMPT_TOKENS
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    question = _question(model)
    worker = Worker(device)
    try:
        worker.load(model)
        whole = worker.send("ask", messages=_asking(question), max_new_tokens=1)
        read = worker.until("done")
        assert read["prompt_tokens"] >= PROMPT_TOKENS, whole
        worker.until("end")
        waits = [0.6 * read["seconds"] * (at + 0.5) / NUM_STOPS for at in range(NUM_STOPS)]
        stopped = [worker.stop_after(wait, question) for wait in waits]
        # On a busy computer the prompt may have been read before.
        reading = [done for done in stopped if done["num_tokens"] == 0]
        begun = [worker.stop_after(0, "Tell me a story.") for _ in range(NUM_STOPS)]
        writing = [done for done in begun if done["stopped"] == "stop"]
    finally:
        worker.close()
    return {
        "prompt_tokens": read["prompt_tokens"],
        "prompt_s": read["seconds"],
        "while_reading": _of_stops(reading),
        "while_writing": _of_stops(writing),
    }


def _of_stops(ends: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """On a busy computer the seconds are those of its other work: hence the worker's own, too."""
    return {name: _spread([done[name] for done in ends]) for name in ("stop_s", "cpu_s")}


def _asking(content: str) -> dict[str, Any]:
    return {"b": [{"role": "user", "content": content}]}


def _question(model: Path) -> str:
    tokenizer = AutoTokenizer.from_pretrained(model)
    words = "Tell me what the sea is like at night. "
    each = len(tokenizer(words, add_special_tokens=False)["input_ids"])
    question = words * (6 * PROMPT_TOKENS // (5 * each))
    prompt = fitting_prompt(tokenizer, [{"role": "user", "content": question}], None, 1)
    assert len(prompt.tokens) >= PROMPT_TOKENS
    return question


def make_adapter(folder: Path) -> tuple[Path, Path]:
    """A random model and a QLoRA adapter on it, as a run leaves one."""
    base, adapter = folder / "base", folder / "adapter"
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **LLAMA)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(STARTER).save_pretrained(base)
    document = {
        "model": {"source": str(base)},
        "data": {"source": "pirate"},
        "method": {"kind": "qlora", "rank": 16},
        "train": {"steps": 1, "device": "cpu", "sequence_length": 128, "batch_size": 1},
    }
    method = LoraMethod()
    loaded = load_model(base)
    method.prepare(loaded.model, complete(validate_spec(document)), torch.device("cpu"))
    for _, matrix in method.weights():
        matrix.normal_(std=0.02)
    adapter.mkdir()
    write_adapter(adapter, method)
    loaded.tokenizer.save_pretrained(adapter)
    return base, adapter


def hold(sides: dict[str, str], device: str) -> dict[str, Any]:
    """What this process needs to hold and ask these sides, and seconds of a switch."""
    models = ChatModels(lambda loading: None)
    targets = {name: find_target(text, default_runs()) for name, text in sides.items()}
    models.load(targets, torch.device(device))
    seconds: list[float] = []
    for _ in range(NUM_SWITCHES if len(sides) > 1 else 0):
        for name in sides:
            started = time.perf_counter()
            models.use(name)
            seconds.append(time.perf_counter() - started)
    cuda = torch.cuda.max_memory_allocated() if device != "cpu" else None
    return {
        "plan": models.plan,
        "peak_bytes": cuda or peak_resident_bytes(),
        "held_bytes": torch.cuda.memory_allocated() if device != "cpu" else _anonymous_bytes(),
        "switch_s": _spread(seconds) if seconds else None,
    }


def _anonymous_bytes() -> int | None:
    """Memory of this process that is no file's."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith("RssAnon:")), None)
    return int(found.split()[1]) * 1024 if found else None


def measure_memory(folder: Path, device: str) -> dict[str, Any]:
    """One side, and both, each in a process of its own."""
    base, adapter = make_adapter(folder)
    one = _median_of({"b": str(adapter)}, device)
    both = _median_of({"a": str(base), "b": str(adapter)}, device)
    assert both["plan"] == "shared"
    return {
        "adapter_alone": one,
        "with_its_base": both,
        "peak_ratio": round(both["peak_bytes"] / one["peak_bytes"], 4),
        "switch_s": both["switch_s"],
    }


def _median_of(sides: dict[str, str], device: str) -> dict[str, Any]:
    """Of some processes: now and then the C library keeps what loading has freed."""
    found = [_in_process(sides, device) for _ in range(NUM_PROCESSES)]
    found.sort(key=lambda one: one["peak_bytes"])
    every = [one["peak_bytes"] for one in found]
    return {**found[len(found) // 2], "peak_bytes_of_all": every}


def _in_process(sides: dict[str, str], device: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.chat_worker", "--device", device]
    done = subprocess.run(
        [*command, "--hold", json.dumps(sides)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(seconds), 4),
        "most": round(max(seconds), 4),
        "count": len(seconds),
    }


def main() -> None:
    """Measure, print, and say what is over its promise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        print(json.dumps(hold(json.loads(options.hold), options.device)))
        return
    with tempfile.TemporaryDirectory() as folder:
        stops = measure_stops(Path(folder), options.device)
        print(json.dumps({"stops": stops}, indent=2), flush=True)
        found = {**measure_memory(Path(folder), options.device), "stops": stops}
    hardware = f"{os.cpu_count()}-core {platform.machine()} CPU"
    if options.device != "cpu":
        hardware = torch.cuda.get_device_name(options.device)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    document = {"hardware": hardware, "load": load, "torch": torch.__version__, **found}
    print(json.dumps(document, indent=2))
    if options.save:
        write_json(options.save, document)
    for what, value, most in (
        ("stop while reading", stops["while_reading"]["stop_s"]["most"], STOP_S),
        ("stop while writing", stops["while_writing"]["stop_s"]["most"], STOP_S),
        ("switch", found["switch_s"]["most"], SWITCH_S),
        ("memory", found["peak_ratio"], MEMORY_RATIO),
    ):
        print(f"{'ok  ' if value <= most else 'OVER'} {what}: {value:g} of {most:g}")


if __name__ == "__main__":
    main()
