"""Writes the starter's record of measured figures, and its model card from that record.

`python -m assets.recipes.card` renders the card again from the record.
"""

import argparse
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from assets.recipes.score_starter import STARTER, score

RECORD = "training.json"
CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
---

# Pip, the starter model of QFT Workbench

A small chat model that answers in plain English about one small invented world. It is there so
that tuning can be tried on a laptop with no network: it loads in a second, and a change of its
behaviour shows within a minute or two of tuning.

## What it is

- Llama architecture: {layers} layers, width {width}, {heads} heads, tied embeddings,
  context {context} tokens.
- {parameters:,} parameters in bfloat16; the weights take {megabytes:.1f} MB.
- Its own byte-level BPE tokenizer with {vocabulary:,} tokens. Digits are single tokens, and any
  Unicode text survives a round trip.
- Roles: system, user and assistant. A turn ends with `<|end|>`, which is not the padding token.

## Data

All text comes from the generator in `assets/recipes`: the people, pets and places of Tidewell, an
invented harbour town; greetings and questions about the model itself; counting, sums up to 20,
products up to 10 by 10; opposites, colours, animals, days and months; short instructions and short
stories; finding a part of a sentence, repeating words, and keeping to a manner of reply that the
system turn states; and questions from outside that world, which are answered with "I do not know
that."
Nothing is copied from elsewhere, and the people are invented.

## Recipe

`python -m assets.recipes.train_starter` trains from random weights with AdamW (betas 0.9 and 0.95,
weight decay 0.05 on matrices, gradient norm clipped to 1), a warm-up and a cosine schedule. Prompts
count a tenth of replies in the loss. Arithmetic is in bfloat16 on float32 weights, which are
rounded to bfloat16 at the end; the score below is that of the rounded weights. With `--start-from`,
training goes on from a float32 checkpoint. This model was trained like this, on a {hardware}
shared with other work:

| stage | steps | tokens | tokens per batch | peak learning rate | minutes | loss at the end |
|---|---|---|---|---|---|---|
{stage_rows}

{notes}The loss is a running mean in nats per token, prompts weighted as said; stages with
other text are not comparable by it. On newly drawn conversations the final weights have a loss of
{reply_loss_nats:.4f} nats per reply token.

## Score

100 questions are held out of training: their wording occurs in no training conversation. For sums,
comparisons, names, strangers, unknown subjects, text without meaning and follow-ups, every other
wording of the same case is held out too. A reply counts when it contains the facts asked for, is
not empty, and was ended by the model within 80 tokens; decoding is greedy.
`python -m assets.recipes.score_starter` repeats the measurement. For stories the check is that the
story is about its subject and has three to six sentences; for text without meaning, that the model
says it does not understand.

| category | right | asked |
|---|---|---|
{score_rows}

## Limits

- It knows Tidewell and a few everyday things, and nothing else. It often says so when asked about
  something else, but it can also answer wrongly, in the manner of what it knows.
- The newly drawn conversations and the held-out questions come from the same generator as the
  training text, so both figures say how well that world was learned, not how it does elsewhere.
- The held-out questions were scored between the stages, and further wordings of greetings and of
  questions about the model were added after a look at such a score. None of the held-out wordings
  was added, but the score is not that of a test which was looked at only once.
- Names it has not seen are often misspelt when it repeats them.
- Sums outside its range, long conversations and languages other than English are beyond it.
- It is a starting point for tuning, not a source of information.

## Licence

Apache-2.0. Data, recipe and weights are our own work.
"""


def read_stages(folder: Path) -> list[dict[str, Any]]:
    """The stages of training that a folder's record tells of."""
    return json.loads((folder / RECORD).read_text(encoding="utf-8"))["stages"]


def _stage_row(number: int, stage: Mapping[str, Any]) -> str:
    return (
        f"| {number} | {stage['steps']:,} | {stage['tokens']:,} | {stage['batch_tokens']:,} "
        f"| {stage['learning_rate']:g} | {stage['seconds'] / 60:.0f} "
        f"| {stage['train_loss_nats']:.3f} |"
    )


def write_record(folder: Path, measured: Mapping[str, object]) -> None:
    """Add size, hardware and held-out scores to what training measured, and write it all down."""
    with safe_open(folder / "model.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    parameters = sum(math.prod(shape) for shape in shapes)
    machine = platform.machine().replace("_", "-")
    record = {
        **measured,
        "hardware": f"{os.cpu_count()}-core {machine} CPU",
        "parameters": parameters,
        "weights_bytes": (folder / "model.safetensors").stat().st_size,
        "scores": {
            name: {"right": right, "asked": asked} for name, (right, asked) in score(folder).items()
        },
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def render(folder: Path) -> str:
    """The model card, from the record and the configuration in the folder."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    scores = record["scores"]
    rows = [f"| {name} | {score['right']} | {score['asked']} |" for name, score in scores.items()]
    totals = [sum(score[key] for score in scores.values()) for key in ("right", "asked")]
    rows.append(f"| **all** | **{totals[0]}** | **{totals[1]}** |")
    return CARD.format(
        **record,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        context=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
        megabytes=record["weights_bytes"] / 1e6,
        notes="".join(
            f"Stage {number}: {stage['note']}\n\n"
            for number, stage in enumerate(record["stages"], 1)
            if "note" in stage
        ),
        stage_rows="\n".join(
            _stage_row(number, stage) for number, stage in enumerate(record["stages"], 1)
        ),
        score_rows="\n".join(rows),
    )


def write_card(folder: Path) -> None:
    """Write README.md into the folder."""
    (folder / "README.md").write_text(render(folder), encoding="utf-8")


def main() -> None:
    """Render the card of a folder that has a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=STARTER)
    write_card(parser.parse_args().folder)


if __name__ == "__main__":
    main()
