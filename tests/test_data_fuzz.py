"""Whatever a file holds, it is read rightly or refused in a sentence, and soon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.damaged_files import DAMAGES, TELLING, Edit, damaged, whole_files
from engine.contract.errors import RequestError
from engine.contract.spec import DataSpec
from engine.data.cells import is_blank, is_unicode
from engine.data.dataset import Dataset
from engine.data.items import Item, Passage
from engine.data.source import DatasetReader, read_items
from tests.rows import jsonl

SECONDS = 2.0
NAMES = sorted(whole_files())
FUZZ: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
# Files that are whole or nothing: what is cut off one cannot be told from what was never there.
INDIVISIBLE = [
    "pairs.json", "wrapped.json", "columns.json", "tree.json", "table.parquet", "nested.parquet",
    "chats.jsonl.gz", "chats.jsonl.bz2", "pairs.json.xz",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def outcome(path: Path, content: bytes, **wish: Any) -> tuple[Dataset, list[Item]] | RequestError:
    """What becomes of a file; a failure where it takes long or is no whole reading."""
    path.write_bytes(content)
    start = time.process_time()
    found = attempt(DataSpec(source=str(path), **wish))
    assert time.process_time() - start < SECONDS
    if not isinstance(found, RequestError):
        check(*found)
        return found
    assert found.field.startswith("data.")
    assert found.message.endswith("."), found.message
    assert is_unicode(str(found))
    return found


def attempt(spec: DataSpec) -> tuple[Dataset, list[Item]] | RequestError:
    try:
        reader = DatasetReader(spec)
        items = [item for _, item in reader]
        return reader.summary(), items
    except RequestError as error:
        return error


def check(dataset: Dataset, items: list[Item]) -> None:
    """What holds for every dataset that was read."""
    assert dataset.usable == len(items) > 0
    assert dataset.rows == dataset.usable + dataset.refused_count
    assert sum(dataset.formats.values()) == dataset.usable
    assert len(dataset.refused) == min(100, dataset.refused_count)
    for refusal in dataset.refused:
        assert is_unicode(refusal.reason + refusal.snippet)
    for item in items:
        check_item(item)


def check_item(item: Item) -> None:
    if isinstance(item, Passage):
        assert not is_blank(item.text)
        return
    roles = [turn.role for turn in item]
    assert roles[-1] == "assistant"
    assert roles[roles[0] == "system"] == "user"
    assert "system" not in roles[1:]
    for turn in item:
        assert "\r" not in turn.content
        assert is_unicode(turn.content)
        assert turn.tool_calls or turn.role in ("system", "tool") or not is_blank(turn.content)
        assert turn.as_message()["role"] == turn.role


EDITS = st.builds(
    Edit,
    st.sampled_from(DAMAGES),
    st.floats(0, 1),
    st.integers(0, 60) | st.integers(0, 4000),
    st.sampled_from(TELLING) | st.binary(max_size=8),
)


@settings(max_examples=400, **FUZZ)
@given(
    st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.txt", "a.parquet", "a", "a.gz"]),
    st.sampled_from([b"", *TELLING]),
    st.binary(max_size=300)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
)
def test_random_bytes(folder: Path, name: str, start: bytes, content: bytes) -> None:
    outcome(folder / name, start + content)


@settings(max_examples=800, **FUZZ)
@given(st.sampled_from(NAMES), st.lists(EDITS, min_size=1, max_size=3))
def test_damaged_files(folder: Path, name: str, edits: list[Edit]) -> None:
    outcome(folder / name, damaged(whole_files()[name], edits))


@settings(max_examples=250, **FUZZ)
@given(st.sampled_from(INDIVISIBLE), st.floats(0, 0.98))
def test_a_file_that_was_cut_off_is_never_passed_off_as_whole(
    folder: Path, name: str, share: float
) -> None:
    content = whole_files()[name]
    found = outcome(folder / name, content[: int(share * len(content))])
    assert isinstance(found, RequestError), name


@settings(max_examples=250, **FUZZ)
@given(st.sampled_from(["chats.jsonl", "objects.json", "passages.txt"]), st.floats(0, 1))
def test_what_stands_before_a_cut_is_read_as_before(folder: Path, name: str, share: float) -> None:
    content = whole_files()[name]
    (folder / "whole").write_bytes(content)
    whole = read_items(DataSpec(source=str(folder / "whole")))
    found = outcome(folder / name, content[: int(share * len(content))])
    if not isinstance(found, RequestError) and name != "passages.txt":
        assert tuple(found[1]) == whole[: len(found[1])]


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
ROLES = st.sampled_from(["user", "assistant", "system", "gpt", "human", "tool", "function_call"])
KEYS = st.sampled_from(
    [
        "role", "content", "from", "value", "tool_calls", "weight", "text", "replies", "rank",
        "name", "arguments", "function",
    ]
)  # fmt: skip
COLUMNS = st.sampled_from(
    [
        "messages", "conversations", "prompt", "instruction", "input", "output", "response",
        "answer", "question", "history", "system", "text", "chosen", "rejected", "label",
        "completion", "tools", "replies", "role", "instances", "turns",
    ]
)  # fmt: skip
TURNS = st.lists(st.dictionaries(KEYS, ROLES | CELLS, max_size=4) | CELLS, max_size=4)
ROWS = st.dictionaries(COLUMNS, TURNS | CELLS, max_size=5) | TURNS | CELLS


@settings(max_examples=350, **FUZZ)
@given(
    st.lists(ROWS, max_size=3),
    st.sampled_from(["auto", "messages", "instruction", "preference", "text", "sharegpt"]),
    st.sampled_from([None, {"reply": "output"}, {"messages": "turns"}, {"text": "", "input": ""}]),
)
def test_rows_of_any_shape(
    folder: Path, rows: list[Any], format: str, columns: dict[str, str] | None
) -> None:
    outcome(folder / "rows.jsonl", jsonl(*rows), format=format, columns=columns)
