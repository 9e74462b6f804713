"""Rows and files of them, as tests write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.contract.spec import DataSpec
from engine.data.dataset import Dataset
from engine.data.items import Chat, Item, Passage, Turn
from engine.data.source import read_dataset, read_items

CHAT: Chat = (Turn("user", "Hi"), Turn("assistant", "Ho"))
GOOD: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
}
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
INSTRUCTION = {"instruction": "Hi", "output": "Ho"}


def messages(*turns: tuple[Any, Any]) -> dict[str, Any]:
    """A row of messages, by role and content."""
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def said(item: Item) -> list[tuple[str, str]]:
    """Role and content of each turn; a passage speaks as `text`."""
    if isinstance(item, Passage):
        return [("text", item.text)]
    return [(turn.role, turn.content) for turn in item]


def jsonl(*rows: Any) -> bytes:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def spec_of(path: Path, **settings: Any) -> DataSpec:
    """The spec of a file."""
    return DataSpec(source=str(path), **settings)


def read(path: Path, content: bytes, **settings: Any) -> Dataset:
    """What is found in a file that holds this."""
    path.write_bytes(content)
    return read_dataset(spec_of(path, **settings))


def items_of(path: Path, content: bytes, **settings: Any) -> tuple[Item, ...]:
    """The items of a file that holds this."""
    path.write_bytes(content)
    return read_items(spec_of(path, **settings))


def sentence(path: Path, content: bytes, field: str = "data.source", **settings: Any) -> str:
    """Why a file that holds this is refused, without the field."""
    with pytest.raises(RequestError) as caught:
        read(path, content, **settings)
    assert caught.value.field == field
    return str(caught.value).removeprefix(f"{field}: ")
