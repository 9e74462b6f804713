"""A dataset in tokens: read, rendered, cut, stored and split, by the one code that all use."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from engine.contract.errors import RequestError
from engine.contract.spec import DataSpec
from engine.data.chat import ChatEncoder, Encoded
from engine.data.content_marks import marks_in
from engine.data.dataset import Dataset, Refusal, most_refused
from engine.data.items import Item, Passage
from engine.data.records import RowError
from engine.data.source import DatasetReader, refuse_other_data
from engine.data.split import content_key, held_out
from engine.data.token_store import (
    StoredExamples,
    StoreWriter,
    TokenStore,
    open_store,
    storage_refusal,
    store_folder,
)

# Raised whenever the same data would come out in other tokens, or `about` changes.
SCHEMA = 2
_DATASET = TypeAdapter(Dataset)
_SNIPPET = 120


@dataclass
class Counts:
    """What was met while a dataset was cut into tokens.

    Attributes:
        marks: Rows by what their text holds; keys are names of `content_marks.Mark`.
        folded: Chats whose system message had to go into the first question.
        control: Rows with letters of a control token, which are read as letters.
        in_words: Chats whose calls of tools are written as words.
        unthought: Chats whose thoughts the template has no place for.
        too_long: Rows that were cut.
    """

    marks: Counter[str] = field(default_factory=Counter)
    folded: int = 0
    control: int = 0
    in_words: int = 0
    unthought: int = 0
    too_long: int = 0


@dataclass(frozen=True)
class TokenizedData:
    """A dataset as a run uses it.

    Attributes:
        dataset: What was read; rows of which nothing can be learned are among the refused.
        store: All examples, in the order of the file.
        training: Examples to learn from.
        evaluation: Examples that are held out.
        counts: What was met on the way.
        length: Longest example, in tokens.
        eval_percent: Share of distinct rows that was to be held out.
    """

    dataset: Dataset
    store: TokenStore
    training: StoredExamples
    evaluation: StoredExamples
    counts: Counts
    length: int
    eval_percent: float

    @property
    def duplicates(self) -> int:
        """Rows that hold what a row before them holds."""
        return self.dataset.usable - len(np.unique(self.store.keys))


def tokenize_data(
    spec: DataSpec, tokenizer: Any, length: int, tell: Callable[[int], None] | None = None
) -> TokenizedData:
    """Everything that a run reads, from the store if it was read before.

    Args:
        spec: Which data, and which of its rows are held out.
        tokenizer: A fast tokenizer of transformers with a chat template.
        length: Longest example, in tokens.
        tell: Called now and then with the number of rows that are done.

    Raises:
        RequestError: The data cannot be read, nothing of it can be learned, or it is not what it
            was when the spec was completed.
    """
    sha256 = refuse_other_data(spec)
    place = store_folder() / _key(spec, sha256, tokenizer, length)
    store = open_store(place)
    if store is None:
        try:
            store = _stored(spec, tokenizer, length, StoreWriter(place), tell)
        except OSError as error:
            raise storage_refusal(error) from error
    return _split(store, spec.eval_percent, length)


def passage_characters(length: int) -> int:
    """How much of a plain text is read as one passage: about what fits into an example."""
    return max(1000, 4 * length)


def _key(spec: DataSpec, sha256: str | None, tokenizer: Any, length: int) -> str:
    """Same key, same tokens."""
    wish = spec.model_dump(mode="json", exclude={"eval_percent", "sha256"})
    if sha256 is not None:
        # The same file elsewhere; but where its content leaves a doubt, its ending decides.
        wish["source"] = [suffix.lower() for suffix in Path(spec.source).suffixes[-2:]]
    parts = {
        "schema": SCHEMA,
        "data": wish,
        "sha256": sha256,
        "length": length,
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "template": tokenizer.get_chat_template(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "versions": [version("tokenizers"), version("jinja2")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _stored(
    spec: DataSpec,
    tokenizer: Any,
    length: int,
    writer: StoreWriter,
    tell: Callable[[int], None] | None,
) -> TokenStore:
    try:
        reader = DatasetReader(spec, passage_characters(length))
        encoder = ChatEncoder(tokenizer, length, spec.train_on)
        counts, refused = Counts(), _Refused()
        for number, item, encoded in _encoded(reader, encoder):
            if isinstance(encoded, RowError):
                refused.add(number, str(encoded), _snippet(item))
            else:
                _store_one(writer, counts, number, item, encoded, length)
            if tell:
                tell(number)
        dataset = refused.joined(reader.summary())
        if not dataset.usable:
            raise _nothing_to_learn(dataset, length)
        about = {"dataset": _DATASET.dump_python(dataset, mode="json"), "counts": vars(counts)}
        return writer.commit(about)
    except BaseException:
        writer.discard()
        raise


def _encoded(
    reader: DatasetReader, encoder: ChatEncoder
) -> Iterator[tuple[int, Item, Encoded | RowError]]:
    waiting: deque[tuple[int, Item]] = deque()

    def items() -> Iterator[Item]:
        for number, item in reader:
            waiting.append((number, item))
            yield item

    for encoded in encoder.encode_all(items()):
        number, item = waiting.popleft()
        yield number, item, encoded


def _store_one(
    writer: StoreWriter, counts: Counts, number: int, item: Item, encoded: Encoded, length: int
) -> None:
    key = content_key(item)
    for example in encoded.examples:
        writer.add(example, number, key, encoded.num_tokens)
    for mark in marks_in(item):
        counts.marks[mark.name] += 1
    counts.folded += encoded.folded
    counts.control += encoded.has_control
    counts.in_words += encoded.in_words
    counts.unthought += encoded.unthought
    counts.too_long += encoded.num_tokens > length


def _split(store: TokenStore, eval_percent: float, length: int) -> TokenizedData:
    is_held_out = held_out(store.keys, eval_percent)
    known = store.about["counts"]
    return TokenizedData(
        _DATASET.validate_python(store.about["dataset"]),
        store,
        StoredExamples(store, np.flatnonzero(~is_held_out)),
        StoredExamples(store, np.flatnonzero(is_held_out)),
        Counts(**{**known, "marks": Counter(known["marks"])}),
        length,
        eval_percent,
    )


class _Refused:
    """Rows that were read, but of which nothing can be learned."""

    def __init__(self) -> None:
        self._first: list[Refusal] = []
        self._reasons: dict[str, tuple[int, int]] = {}
        self._count = 0

    def add(self, number: int, reason: str, snippet: str) -> None:
        self._count += 1
        count, first = self._reasons.get(reason, (0, number))
        self._reasons[reason] = (count + 1, first)
        if len(self._first) < 100:
            self._first.append(Refusal(number, reason, snippet))

    def joined(self, dataset: Dataset) -> Dataset:
        """The dataset, these rows refused too."""
        reasons = [(reason, *where) for reason, where in self._reasons.items()]
        shown = sorted([*dataset.refused, *self._first], key=lambda one: one.number)[:100]
        return replace(
            dataset,
            usable=dataset.usable - self._count,
            refused=tuple(shown),
            refused_count=dataset.refused_count + self._count,
            reasons=most_refused([*dataset.reasons, *reasons]),
        )


def _snippet(item: Item) -> str:
    text = item.text if isinstance(item, Passage) else " | ".join(turn.content for turn in item)
    return text[:_SNIPPET]


def _nothing_to_learn(dataset: Dataset, length: int) -> RequestError:
    reason = dataset.reasons[0][0] if dataset.reasons else "it is empty"
    if reason.startswith("no reply begins"):
        return RequestError(
            "train.sequence_length",
            f"no reply begins within {length:,} tokens, so there is nothing to learn from.",
            "Raise the sequence length or use shorter conversations.",
        )
    return RequestError(
        "data.source",
        f"no row can be learned from: {reason}.",
        "Choose a model whose template takes these chats, or change the data.",
    )
