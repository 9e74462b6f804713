"""Scores a model folder on the held-out questions: `python -m assets.recipes.score_starter`.

A reply counts when it contains the facts that the question asks for, is not empty, and was ended
by the model itself within 80 new tokens. Decoding is greedy.
"""

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HELD_OUT_FILE = Path(__file__).with_name("heldout.jsonl")
STARTER = Path(__file__).parents[1] / "starter"
MAX_NEW_TOKENS = 80


@dataclass(frozen=True)
class Reply:
    """What the model said, and whether it ended the turn itself."""

    text: str
    stopped: bool


def read_rows(path: Path = HELD_OUT_FILE) -> list[dict[str, Any]]:
    """The held-out questions, one JSON object per line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_right(reply: Reply, accept: list[str]) -> bool:
    """Every pattern is found, ignoring case, and the reply is a whole one."""
    whole = reply.stopped and bool(reply.text.strip())
    return whole and all(re.search(pattern, reply.text, re.IGNORECASE) for pattern in accept)


@torch.no_grad()
def greedy_replies(folder: Path, chats: list[list[dict[str, str]]], batch: int = 50) -> list[Reply]:
    """Answer each conversation with the likeliest tokens, in left-padded batches."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    replies: list[Reply] = []
    for start in range(0, len(chats), batch):
        inputs = tokenizer.apply_chat_template(
            chats[start : start + batch],
            add_generation_prompt=True,
            return_tensors="pt",
            padding=True,
            return_dict=True,
        )
        made = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        for row in made[:, inputs["input_ids"].shape[1] :].tolist():
            stopped = tokenizer.eos_token_id in row
            tokens = row[: row.index(tokenizer.eos_token_id)] if stopped else row
            replies.append(Reply(tokenizer.decode(tokens, skip_special_tokens=True), stopped))
    return replies


def score(folder: Path, *, show_wrong: bool = False) -> dict[str, tuple[int, int]]:
    """Right answers and questions, by category."""
    rows = read_rows()
    replies = greedy_replies(folder, [row["messages"] for row in rows])
    right: Counter[str] = Counter()
    for row, reply in zip(rows, replies, strict=True):
        good = is_right(reply, row["accept"])
        right[row["category"]] += good
        if show_wrong and not good:
            asked = " / ".join(turn["content"] for turn in row["messages"])
            sys.stdout.write(f"wrong: {asked!r} -> {reply.text!r} stopped={reply.stopped}\n")
    asked_by_category = Counter(row["category"] for row in rows)
    return {name: (right[name], total) for name, total in asked_by_category.items()}


def main() -> int:
    """Print the scores; the exit code is 1 when fewer than 90 of 100 are right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=STARTER)
    parser.add_argument("--show-wrong", action="store_true")
    chosen = parser.parse_args()
    scores = score(chosen.folder, show_wrong=chosen.show_wrong)
    for category, (right, asked) in scores.items():
        sys.stdout.write(f"{category:12} {right:3} of {asked}\n")
    right, asked = (sum(column) for column in zip(*scores.values(), strict=True))
    sys.stdout.write(f"{'total':12} {right:3} of {asked}\n")
    return 0 if right >= 0.9 * asked else 1


if __name__ == "__main__":
    raise SystemExit(main())
