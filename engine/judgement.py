"""A model judged by numbers: its loss and hits on data, and how far training moved them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch

from engine.contract.bundled import sample_datasets
from engine.data.token_store import StoredExamples
from engine.data_to_judge import DataToJudge
from engine.example_losses import ExampleLosses, example_losses
from engine.freed_memory import give_back_freed_memory
from engine.model import LoadedModel
from engine.paired_difference import Difference, difference_of_means, difference_of_shares
from engine.result import adapter_of, load_target
from engine.scoring import held_out_prompts, prompt_hits
from engine.target import Target

Side = Literal["base", "tuned"]
Form = Literal["as stored", "bfloat16", "4-bit"]


class Progress(Protocol):
    """Who is told how far it is."""

    def begin(self, what: str, total: int | None) -> None:
        """A piece of work of so many parts starts; None where there are none to count."""
        ...

    def advance(self, count: int) -> None:
        """So many more parts are done."""
        ...


@dataclass(frozen=True)
class Measured:
    """One side on the data.

    Attributes:
        form: How its weights are kept. Of an adapter's base: as the adapter was trained on it.
        losses: Of every example.
        hits: Whether the sample's scorer takes each reply; None without a sample.
    """

    side: Side
    form: Form
    losses: ExampleLosses
    hits: np.ndarray | None


@dataclass(frozen=True)
class Judgement:
    """A target on data; of what was made from another model, both.

    Attributes:
        name: Of the target.
        data: Which rows.
        length: Longest example, in tokens.
        rows: Content hash of the row that each example is from.
        base: The model before training; None where the target was made from no other.
        tuned: The model after; None where the target was made from no other.
    """

    name: str
    data: DataToJudge
    length: int
    rows: np.ndarray
    base: Measured | None
    tuned: Measured | None

    @property
    def own(self) -> Measured:
        """The target's own side."""
        found = self.tuned or self.base
        assert found is not None, "one side is measured always"
        return found

    @property
    def difference(self) -> Difference | None:
        """Loss after minus loss before, in nats per target token."""
        if self.base is None or self.tuned is None:
            return None
        before, after = self.base.losses, self.tuned.losses
        return difference_of_means(before.nats, after.nats, after.num_targets, self.rows)

    @property
    def moved_hits(self) -> Difference | None:
        """Share of hits after minus before."""
        if self.base is None or self.tuned is None:
            return None
        if self.base.hits is None or self.tuned.hits is None:
            return None
        return difference_of_shares(self.base.hits, self.tuned.hits)

    def as_json(self) -> dict[str, Any]:
        """The document of `eval --json`."""
        own, difference = self.own, self.difference
        return {
            "target": self.name,
            "side": own.side,
            "data": {
                **self.data.as_json(),
                "num_examples": len(own.losses.nats),
                "sequence_length": self.length,
            },
            **own.losses.as_json(),
            "base": _side_json(self.base),
            "tuned": _side_json(self.tuned),
            "difference": None
            if difference is None
            else {
                "mean_nats": difference.value,
                **difference.bounds(),
                "num_examples": len(own.losses.nats),
                "num_rows": len(np.unique(self.rows)),
            },
            "scorer": self._scorer_json(),
        }

    def _scorer_json(self) -> dict[str, Any] | None:
        """All in percent of the prompts, but for the counts."""
        hits = self.own.hits
        if hits is None:
            return None
        assert self.data.sample is not None
        before = self.base.hits if self.base else None
        after = self.tuned.hits if self.tuned else None
        moved = self.moved_hits
        return {
            "name": sample_datasets()[self.data.sample].scorer,
            "num_prompts": len(hits),
            "hits_before": None if before is None else int(before.sum()),
            "hits_after": None if after is None else int(after.sum()),
            "before": None if before is None else 100 * float(before.mean()),
            "after": None if after is None else 100 * float(after.mean()),
            "difference": 100 * moved.value if moved else None,
            **(moved or Difference(0.0, None)).bounds(100.0),
        }


def judge(target: Target, data: DataToJudge, device: torch.device, progress: Progress) -> Judgement:
    """Measure a target, and the model it was made from if there is one, on the same examples.

    One model is in memory at a time: of an adapter its base with the adapter switched, of others
    the base first.

    Args:
        target: What to judge.
        data: On what.
        device: Where.
        progress: Told of each pass.

    Raises:
        RequestError: Target or data cannot be used.
    """
    examples: StoredExamples | None = None
    found: dict[Side, Measured] = {}
    length = 0
    progress.begin("loading", None)
    for side, form, loaded in _sides(target, device):
        if examples is None:
            examples, length = data.examples(loaded), data.length_for(loaded)
        progress.begin(f"{side}: loss", len(examples))
        losses = example_losses(loaded, examples, device, progress.advance)
        found[side] = Measured(side, form, losses, _hits(loaded, side, data, progress))
        del loaded  # before the next one is loaded
        progress.begin("loading", None)
    assert examples is not None, "one side is measured always"
    return Judgement(
        target.name, data, length, examples.keys, found.get("base"), found.get("tuned")
    )


def _sides(target: Target, device: torch.device) -> Iterator[tuple[Side, Form, LoadedModel]]:
    """Base and tuned model, one after the other; a plain model is its own base."""
    if target.base_source is None:
        yield "base", "as stored", load_target(target, device)
        return
    parts = adapter_of(target)
    if parts is None:
        yield "base", "as stored", load_target(target.base(), device)
        give_back_freed_memory()
        yield "tuned", "as stored", load_target(target, device)
        return
    # PEFT and bitsandbytes take two seconds to import.
    from engine.adapters import ADAPTER, switch_to

    loaded = load_target(target, device)
    form: Form = "bfloat16" if parts.form is None else "4-bit"
    switch_to(loaded.model, None)
    yield "base", form, loaded
    switch_to(loaded.model, ADAPTER)
    yield "tuned", form, loaded


def _hits(
    loaded: LoadedModel, side: Side, data: DataToJudge, progress: Progress
) -> np.ndarray | None:
    if data.sample is None:
        return None
    progress.begin(f"{side}: replies", len(held_out_prompts(data.sample)[: data.most_rows]))
    hits: list[bool] = []
    for hit in prompt_hits(loaded, data.sample, data.most_rows):
        hits.append(hit)
        progress.advance(1)
    return np.array(hits)


def _side_json(measured: Measured | None) -> dict[str, Any] | None:
    return None if measured is None else {**measured.losses.as_json(), "form": measured.form}
