"""Held-out hits: does a model do what a bundled dataset teaches?"""

from __future__ import annotations

import json
from dataclasses import dataclass

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
    scorer = sample_datasets()[sample].scorer
    lines = heldout_path(sample).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
    hits = sum(
        score_reply(
            scorer,
            reply_to(
                loaded.model,
                loaded.tokenizer,
                [{"role": "user", "content": row["prompt"]}],
                sampling,
            ).text,
            row,
        )
        for row in rows
    )
    return Hits(hits, len(rows))
