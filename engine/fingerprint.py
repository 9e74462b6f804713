"""What a model is known by: its scores for the next word after a fixed text, and its tensors.

A run records that of its base before the first step, and its result carries its own. Whoever loads
them later proves by it that they are those models. Scores depend a little on device and format:
16-bit numbers have two to three digits. So they are compared within a stated tolerance. A base in 4
bits has a record of its own, since rounding its weights changes more than that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.contract.durable import as_object, read_json, write_json
from engine.contract.model_source import read_header
from engine.contract.run_dir import RunDir
from engine.model import LoadedModel
from engine.model_traits import in_evaluation

FORMAT = 1
FILE = "fingerprint.json"
PROBE = "Who are you?"
NUM_TOP = 8
_DIGITS = 4
# Nats. The starter's scores in bfloat16 differ from those in float32 by under 0.1.
TOLERANCE = 0.25


@dataclass(frozen=True)
class Fingerprint:
    """A record of one model.

    Attributes:
        tokens: Ids of the likeliest next words after `PROBE`, the likeliest first.
        log_probabilities: Of these, in nats.
        tensors: Hash of names, formats and shapes of all tensors in the files.
    """

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    tensors: str

    def as_json(self) -> dict[str, Any]:
        """What a file holds of it."""
        return {
            "probe": PROBE,
            "tokens": list(self.tokens),
            "log_probabilities": list(self.log_probabilities),
            "tensors": self.tensors,
        }

    @classmethod
    def from_json(cls, value: Any) -> Fingerprint | None:
        """None for what was recorded with another probe, or is no record."""
        document = as_object(value)
        if document is None or document.get("probe") != PROBE:
            return None
        try:
            tokens = tuple(int(token) for token in document["tokens"])
            values = tuple(float(one) for one in document["log_probabilities"])
            found = cls(tokens, values, str(document["tensors"]))
        except (KeyError, TypeError, ValueError):
            return None
        return found if len(tokens) == len(values) > 0 else None

    def difference(self, scores: Tensor) -> float:
        """Largest difference in nats between this record and a model's scores.

        Infinite for a model with fewer words.

        Args:
            scores: As `probe_scores` gives them.
        """
        if max(self.tokens) >= len(scores):
            return float("inf")
        now = scores[list(self.tokens)]
        return float((now - torch.tensor(self.log_probabilities)).abs().max())


@torch.inference_mode()
def probe_scores(loaded: LoadedModel) -> Tensor:
    """Log-probabilities of the next word after `PROBE`, in nats: (words,), float32, on the CPU.

    Draws no random number and leaves the model as it was.
    """
    tokens = loaded.tokenizer(PROBE, add_special_tokens=False, return_tensors="pt")["input_ids"]
    model: Any = loaded.model
    with in_evaluation(loaded.model):
        scores = model(input_ids=tokens.to(_device_of(model))).logits[0, -1]
    return scores.float().log_softmax(-1).cpu()


def _device_of(model: Any) -> torch.device:
    return next(model.parameters()).device


def fingerprint_of(loaded: LoadedModel, folder: Path) -> Fingerprint:
    """The record of a model.

    Args:
        loaded: The model as it is in memory.
        folder: Its files.

    Raises:
        RequestError: A file is damaged.
    """
    top = probe_scores(loaded).topk(NUM_TOP)
    values = tuple(round(float(value), _DIGITS) for value in top.values)
    return Fingerprint(tuple(top.indices.tolist()), values, hash_of_tensors(folder))


def hash_of_tensors(folder: Path) -> str:
    """Of names, formats and shapes in all weight files, however these are split. Reads no weight.

    Raises:
        RequestError: A file is damaged.
    """
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for file in folder.glob("*.safetensors"):
        tensors.update(read_header(file))
    lines = (f"{name} {dtype} {shape}\n" for name, (dtype, shape) in sorted(tensors.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def record_base(run: RunDir, loaded: Fingerprint, as_trained: Fingerprint | None = None) -> None:
    """Write down what a run began with: once, before its first step.

    Args:
        run: The run folder.
        loaded: The model as its files hold it.
        as_trained: The same beside an adapter that adds nothing yet; None for other methods.
    """
    document: dict[str, Any] = {"format": FORMAT, "base": loaded.as_json()}
    if as_trained is not None:
        document["base_as_trained"] = as_trained.as_json()
    run.write_fingerprint(document)


def record_result(folder: Path, loaded: LoadedModel) -> None:
    """Write down what a result is, beside its files.

    Args:
        folder: With the result's weight files.
        loaded: The model as it was trained.
    """
    document = {"format": FORMAT, "result": fingerprint_of(loaded, folder).as_json()}
    write_json(folder / FILE, document)


def recorded_base(run: RunDir, *, as_trained: bool) -> Fingerprint | None:
    """What a run began with; None if it has no record of that.

    Args:
        run: The run folder.
        as_trained: In the form that lies under the run's adapter.
    """
    document: Mapping[str, Any] = run.fingerprint or {}
    return Fingerprint.from_json(document.get("base_as_trained" if as_trained else "base"))


def recorded_result(folder: Path) -> Fingerprint | None:
    """What a result was when it was written; None if its folder has no record."""
    document = read_json(folder / FILE) or {}
    return Fingerprint.from_json(document.get("result"))
