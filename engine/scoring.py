"""Held-out hits: does a model do what a bundled dataset teaches?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.contract.bundled import heldout_path, sample_datasets
from engine.generate import Sampling, reply_to
from engine.model import LoadedModel
from engine.scorers import score_reply

MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Hits:
    """How many held-out prompts were answered as the dataset teaches."""

    hits: int
    total: int

    @property
    def percent(self) -> float:
        """Of all held-out prompts."""
        return 100 * self.hits / self.total


def held_out_hits(loaded: LoadedModel, sample: str) -> Hits:
    """Greedy replies to a bundled dataset's held-out prompts, judged by its scorer.

    Args:
        loaded: A model in evaluation mode.
        sample: Name of the bundled dataset.
    """
    found = list(prompt_hits(loaded, sample))
    return Hits(sum(found), len(found))


def prompt_hits(
    loaded: LoadedModel, sample: str, most_prompts: int | None = None
) -> Iterator[bool]:
    """The same, prompt by prompt, in the order of the file.

    Args:
        loaded: A model in evaluation mode.
        sample: Name of the bundled dataset.
        most_prompts: Of more the first are asked; None for all.
    """
    scorer = sample_datasets()[sample].scorer
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
    for row in held_out_prompts(sample)[:most_prompts]:
        messages = [{"role": "user", "content": row["prompt"]}]
        reply = reply_to(loaded.model, loaded.tokenizer, messages, sampling)
        yield score_reply(scorer, reply.text, row)


def held_out_prompts(sample: str) -> list[dict[str, Any]]:
    """What a bundled dataset asks: rows with `prompt`, and what its scorer needs."""
    lines = heldout_path(sample).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
