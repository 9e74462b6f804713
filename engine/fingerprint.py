"""What a model is known by: its scores for the next words of a fixed text, and its weight files.

A run records that of its base before the first step, and every checkpoint and the result carry
their own. Whoever loads them later proves by it that they are those models. Scores depend a little
on device and format: 16-bit numbers have two to three digits. So they are compared within a stated
tolerance. A base in 4 bits has a record of its own, since rounding its weights changes more than
that. Of weight files the samples that `engine.weight_files` takes are compared, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.contract.durable import as_object, read_json, write_json
from engine.contract.run_dir import RunDir
from engine.model import LoadedModel
from engine.model_traits import in_evaluation
from engine.weight_files import hash_of_files

FORMAT = 2
FILE = "fingerprint.json"
PROBE = "Who are you? Tell me in a few words what you know, and what you like to talk about."
MOST_TOKENS = 24
NUM_TOP = 8
_DIGITS = 4
# Nats, root mean square. Scores in bfloat16 differ from those in float32 by 0.042 in the starter
# and by 0.054 in stories260K, single ones by up to 0.16; where logits reach 64, their steps of 0.5
# alone make 0.07.
TOLERANCE = 0.25
# Nats; what `_DIGITS` leave of two models that give the same scores.
SAME_RECORD = 2 * 10**-_DIGITS


@dataclass(frozen=True)
class Fingerprint:
    """A record of one model.

    Attributes:
        tokens: Ids of the likeliest next words after each token of `PROBE`, the likeliest first:
            as many rows as tokens, `NUM_TOP` in each.
        log_probabilities: Of these, in nats.
        files: Of its weight files, as `hash_of_files` gives it.
    """

    tokens: tuple[tuple[int, ...], ...]
    log_probabilities: tuple[tuple[float, ...], ...]
    files: str

    def as_json(self) -> dict[str, Any]:
        """What a file holds of it."""
        return {
            "probe": PROBE,
            "tokens": [list(row) for row in self.tokens],
            "log_probabilities": [list(row) for row in self.log_probabilities],
            "files": self.files,
        }

    @classmethod
    def from_json(cls, value: Any) -> Fingerprint | None:
        """None for what was recorded with another probe, or is no record."""
        document = as_object(value)
        if document is None or document.get("probe") != PROBE:
            return None
        try:
            tokens = tuple(tuple(int(one) for one in row) for row in document["tokens"])
            rows = document["log_probabilities"]
            values = tuple(tuple(float(one) for one in row) for row in rows)
            found = cls(tokens, values, str(document["files"]))
        except (KeyError, TypeError, ValueError):
            return None
        lengths = {len(row) for row in (*tokens, *values)}
        whole = len(tokens) == len(values) > 0 and len(lengths) == 1 and min(lengths) > 0
        return found if whole else None

    def difference(self, scores: Tensor) -> float:
        """Largest difference in nats between this record and a model's scores.

        Infinite for a model with fewer words, or that reads other tokens.

        Args:
            scores: As `probe_scores` gives them.
        """
        errors = self._errors(scores)
        return float("inf") if errors is None else float(errors.abs().max())

    def distance(self, scores: Tensor) -> float:
        """Root mean square of the differences, in nats: how near, with little noise."""
        errors = self._errors(scores)
        return float("inf") if errors is None else float(errors.square().mean().sqrt())

    def _errors(self, scores: Tensor) -> Tensor | None:
        tokens = torch.tensor(self.tokens)
        if len(tokens) != len(scores) or int(tokens.max()) >= scores.shape[1]:
            return None
        return scores.gather(1, tokens) - torch.tensor(self.log_probabilities)

    def apart(self, other: Fingerprint) -> float:
        """Root mean square difference of two records, in nats, where both name the same words.

        Infinite if they name none together.
        """
        squares: list[float] = []
        for own, its in zip(self._rows(), other._rows(), strict=False):
            squares += [(own[token] - its[token]) ** 2 for token in own.keys() & its.keys()]
        return (sum(squares) / len(squares)) ** 0.5 if squares else float("inf")

    def _rows(self) -> list[dict[int, float]]:
        rows = zip(self.tokens, self.log_probabilities, strict=True)
        return [dict(zip(tokens, values, strict=True)) for tokens, values in rows]


@torch.inference_mode()
def probe_scores(loaded: LoadedModel) -> Tensor:
    """Log-probabilities of the next word after each token of `PROBE`, in nats.

    Of at most `MOST_TOKENS` of them: (tokens, words), float32, on the CPU. Draws no random number
    and leaves the model as it was.
    """
    tokens = loaded.tokenizer(PROBE, add_special_tokens=False, return_tensors="pt")["input_ids"]
    tokens = tokens[:, : min(MOST_TOKENS, loaded.max_position or MOST_TOKENS)]
    model: Any = loaded.model
    with in_evaluation(loaded.model):
        scores = model(input_ids=tokens.to(_device_of(model)), use_cache=False).logits[0]
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
    values = tuple(tuple(round(one, _DIGITS) for one in row) for row in top.values.tolist())
    tokens = tuple(tuple(row) for row in top.indices.tolist())
    return Fingerprint(tokens, values, hash_of_files(folder))


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
    """Write down what a result or a checkpoint is, beside its files.

    Of a model whose scores are no finite numbers nothing is written.

    Args:
        folder: With its weight files.
        loaded: The model as it was trained.
    """
    found = fingerprint_of(loaded, folder)
    if all(math.isfinite(value) for row in found.log_probabilities for value in row):
        write_json(folder / FILE, {"format": FORMAT, "result": found.as_json()})


def recorded_base(run: RunDir, *, as_trained: bool) -> Fingerprint | None:
    """What a run began with; None if it has no record of that.

    Args:
        run: The run folder.
        as_trained: In the form that lies under the run's adapter.
    """
    document: Mapping[str, Any] = run.fingerprint or {}
    return Fingerprint.from_json(document.get("base_as_trained" if as_trained else "base"))


def recorded_result(folder: Path) -> Fingerprint | None:
    """What a result or a checkpoint was when it was written; None if its folder has no record."""
    document = read_json(folder / FILE) or {}
    return Fingerprint.from_json(document.get("result"))
