"""What the ablation tunes: a model with what it learns from and what it is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.contract.bundled import STARTER
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.data.batching import Batch, BatchOrder, collate
from engine.data.chat import Example
from engine.model import LoadedModel, load_model
from engine.preparation import tokenized

_HELD_OUT_EVERY = 8
_EVAL_PERCENT = 25.0


@dataclass(frozen=True)
class Material:
    """A model in float32, never changed, and examples of its tokens.

    Attributes:
        name: Of the model, for people.
        data: Names of the files or of the sample.
        loaded: Model and tokenizer.
        training: Learned from.
        held_out: Never learned from; the same for every variant.
    """

    name: str
    data: str
    loaded: LoadedModel
    training: list[Example]
    held_out: list[Example]

    @property
    def num_held_out_tokens(self) -> int:
        """Targets that a held-out loss is the mean of."""
        return sum(sum(example.trained[1:]) for example in self.held_out)

    def batch(self, spec: RunSpec, step: int) -> Batch:
        """What step `step`, from 1, trains on: the seed decides the order."""
        order = BatchOrder(len(self.training), spec.train.batch_size, spec.train.seed)
        chosen = [self.training[index] for index in order.batch(step - 1)]
        return collate(chosen, self.loaded.pad_token)

    def begins_epoch(self, spec: RunSpec, step: int) -> bool:
        """Whether step `step`, from 1, is the first of a further pass over the examples."""
        size, count = spec.train.batch_size, len(self.training)
        return step > 1 and (step - 1) * size // count > (step - 2) * size // count


def chats(folder: Path, sample: str, length: int) -> Material:
    """A model folder and a bundled sample, by the product's own data pipeline."""
    loaded = load_model(folder, torch.float32)
    fields: dict[str, Any] = {
        "model": {"source": str(folder)},
        "data": {"source": sample, "eval_percent": _EVAL_PERCENT},
        "method": {"kind": "full"},
        "train": {"sequence_length": length},
    }
    spec = validate_spec(fields)
    found = tokenized(spec, loaded)
    name = "starter" if folder == STARTER else folder.name
    return Material(name, sample, loaded, list(found.training), list(found.evaluation))


def texts(folder: Path, files: list[Path], length: int) -> Material:
    """A model folder and plain text, cut into windows; every eighth window is held out."""
    loaded = load_model(folder, torch.float32)
    windows: list[Example] = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        tokens = loaded.tokenizer(text, verbose=False)["input_ids"]
        for start in range(0, len(tokens) - length + 1, length):
            windows.append(Example(tuple(tokens[start : start + length]), (True,) * length))
    training = [window for place, window in enumerate(windows) if place % _HELD_OUT_EVERY]
    names = ", ".join(file.name for file in files)
    return Material(folder.name, names, loaded, training, windows[::_HELD_OUT_EVERY])
