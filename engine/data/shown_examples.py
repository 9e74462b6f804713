"""Examples as the model sees them: the rendered text, with what is trained and what is control."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np

from engine.contract.spec import DataSpec
from engine.data.chat import ChatEncoder, Encoded, Example
from engine.data.items import Item, Passage
from engine.data.records import RowError
from engine.data.reply_tokens import Offsets
from engine.data.source import DatasetReader
from engine.data.tokenized import TokenizedData, passage_characters


def shown_examples(
    spec: DataSpec, data: TokenizedData, tokenizer: Any, first: int, count: int
) -> list[dict[str, Any]]:
    """Some examples of a dataset, rendered again by the code that rendered them for training.

    Args:
        spec: Which data.
        data: The same, in tokens.
        tokenizer: The model's.
        first: Number of the first that is wanted, from 1.
        count: How many.

    Returns:
        `number`, `row`, `held_out`, `question` (what the user said first; None in a passage),
        `tokens`, `trained`, `cut`, and the `pieces` of the text, each with `text`, `trained` and
        `control`; in the order of the file.
    """
    length = data.length
    begin = max(0, min(first - 1, len(data.store) - 1))
    end = min(len(data.store), begin + max(1, count))
    rows = data.store.numbers[begin:end]
    held_out = set(data.evaluation.numbers.tolist())
    encoder = ChatEncoder(tokenizer, length, spec.train_on)
    place = int(np.searchsorted(data.store.numbers, rows[0]))
    found: list[dict[str, Any]] = []
    asked = _encoded_rows(spec, length, encoder, int(rows[0]), int(rows[-1]))
    for number, item, encoded in asked:
        for index in range(len(encoded.examples)):
            if begin <= place < end:
                about = {"number": place + 1, "row": number, "held_out": place in held_out}
                shown = _shown(encoded, index, length, encoder.control_names)
                found.append({**about, "question": _question(item), **shown})
            place += 1
    return found


def _shown(encoded: Encoded, index: int, length: int, control: dict[int, str]) -> dict[str, Any]:
    example = encoded.examples[index]
    return {
        "tokens": len(example.tokens),
        "trained": sum(example.trained[1:]),
        "cut": encoded.num_tokens > length,
        "pieces": pieces(encoded.text, example, encoded.offsets(index), control),
    }


def _encoded_rows(
    spec: DataSpec, length: int, encoder: ChatEncoder, first: int, last: int
) -> Iterator[tuple[int, Item, Encoded]]:
    """The rows from one number to another of which something can be learned."""
    wanted: list[tuple[int, Item]] = []
    for number, item in DatasetReader(spec, passage_characters(length)):
        if number > last:
            break
        if number >= first:
            wanted.append((number, item))
    encoded = encoder.encode_all(item for _, item in wanted)
    for (number, item), one in zip(wanted, encoded, strict=True):
        if not isinstance(one, RowError):
            yield number, item, one


def _question(item: Item) -> str | None:
    if isinstance(item, Passage):
        return None
    return next((turn.content for turn in item if turn.role == "user"), None)


def pieces(
    text: str, example: Example, offsets: Offsets, control: dict[int, str]
) -> list[dict[str, Any]]:
    """The text of an example in stretches that are trained or not, control tokens by themselves."""
    kinds = [
        (trained, token in control, place if token in control else -1)
        for place, (token, trained) in enumerate(zip(example.tokens, example.trained, strict=True))
    ]
    found: list[dict[str, Any]] = []
    place = 0
    reached = offsets[0][0] if offsets else 0
    for (trained, is_control, _), run in groupby(kinds):
        size = len(list(run))
        start, end = offsets[place][0], offsets[place + size - 1][1]
        # A token may share a character with the one before, or leave out a space between them;
        # but what was cut off before an end mark is not there.
        start = reached if start < reached or not text[reached:start].strip() else start
        shown = control[example.tokens[place]] if is_control else text[start:end]
        found.append({"text": shown, "trained": trained, "control": is_control})
        reached = max(reached, end)
        place += size
    return [piece for piece in found if piece["text"]]
