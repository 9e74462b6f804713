"""Short real runs to talk to, and a chat worker in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.chat_models import ChatModels
from engine.chat_worker import ChatWorker
from engine.checkpoint import Progress, save_checkpoint
from engine.contract.events import EventWriter
from engine.contract.run_dir import RunDir, create_run
from engine.export import export_model
from engine.fingerprint import record_result
from engine.generate import Sampling, reply_to
from engine.model import LoadedModel
from engine.preparation import Prepared, prepare
from tests.tiny import chat_rows, tiny_model_folder, tiny_spec, write_jsonl

HELLO = [{"role": "user", "content": "What is Mara number 7 at?"}]
SAMPLING = Sampling(max_new_tokens=16)


@dataclass
class Talks:
    """A base model and runs that began with it."""

    folder: Path

    def __post_init__(self) -> None:
        # Rows of at least 64 values: narrower ones no fused kernel takes.
        tiny_model_folder(self.base, hidden_size=64, intermediate_size=128)
        write_jsonl(self.folder / "chats.jsonl", chat_rows(24))

    @property
    def base(self) -> Path:
        """What all runs began with."""
        return self.folder / "base"

    @property
    def runs(self) -> Path:
        """All runs."""
        return self.folder / "runs"

    def train(
        self, name: str, method: str | Mapping[str, Any], steps: int = 6, rate: float = 1e-2
    ) -> Prepared:
        """A run of some steps with a checkpoint of half of them and a result of all."""
        spec = tiny_spec(self.base, self.folder / "chats.jsonl", method)
        run = create_run(self.runs, spec, name)
        with EventWriter(run.events_path, attempt=1) as events:
            one = prepare(run, events)
        for step in range(1, steps + 1):
            one.method.step(one.batches(1), rate, step)
            if step == steps // 2:
                state = one.method.state_dict()
                save_checkpoint(
                    run, 1, Progress(step=step), state, lambda to: record_result(to, one.loaded)
                )
        export_model(run, one.loaded, one.method)
        return one

    def run(self, name: str) -> RunDir:
        """A run by its name."""
        return RunDir(self.runs / name)


def said_by(loaded: LoadedModel) -> str:
    """What a model answers."""
    return reply_to(loaded.model.eval(), loaded.tokenizer, HELLO, SAMPLING).text


class Caller:
    """Sends requests to a worker in this process.

    Args:
        runs: Folder of all runs.
        **options: Of `ChatModels`.
    """

    def __init__(self, runs: Path, **options: Any) -> None:
        self._runs = str(runs)
        self._output = io.StringIO()
        self.worker = ChatWorker(self._output, **options)
        self._number = 0

    @property
    def models(self) -> ChatModels:
        """What the worker holds."""
        return self.worker.models

    def send(self, operation: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of one request, without its end."""
        self._number += 1
        start = len(self._output.getvalue())
        self.worker.answer({"id": self._number, "op": operation, **fields})
        events = [json.loads(line) for line in self._output.getvalue()[start:].splitlines()]
        assert all(event["id"] == self._number for event in events)
        assert [event["event"] for event in events].index("end") == len(events) - 1
        return events[:-1]

    def stop(self) -> None:
        """Take back the last request, as the caller's line on the worker's input does."""
        self.worker.hear(json.dumps({"op": "stop", "target": self._number}))

    def use_number_again(self) -> None:
        """Give the next request the number of the last one."""
        self._number -= 1

    def load(self, **sides: Any) -> dict[str, Any]:
        """The last event of loading."""
        fields = {"runs": self._runs, "device": "cpu", **sides}
        return self.send("load", **fields)[-1]

    def ask(self, side: str, messages: Any = HELLO, **settings: Any) -> list[dict[str, Any]]:
        """The events of one question to one side."""
        fields = {"max_new_tokens": SAMPLING.max_new_tokens, **settings}
        return self.send("ask", messages={side: messages}, **fields)

    def text(self, side: str) -> str:
        """What a side answers."""
        events = self.ask(side)
        assert events[-1]["event"] == "done", events
        return "".join(event["text"] for event in events if event["event"] == "text")


def changed_weights(file: Path, by: float) -> None:
    """Change every tensor of a weight file a good deal."""
    from safetensors.torch import load_file, save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        weights = {
            name: (one.float() + by * torch.randn(one.shape)).to(one.dtype)
            for name, one in load_file(file).items()
        }
    save_file(weights, file, metadata={"format": "pt"})
