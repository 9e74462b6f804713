"""Examples in tokens on disk, mapped into memory: written once, read by number."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, overload
from zipfile import BadZipFile

import numpy as np
from platformdirs import user_cache_dir

from engine.contract.errors import RequestError
from engine.data.chat import Example

# All stores together; the ones not used for longest make room for a new one.
MOST_BYTES = 8 << 30
_INDEX = "index.npz"
_ABOUT = "about.json"
_FLUSH = 1 << 20  # tokens that wait in memory


def store_folder() -> Path:
    """Where stores are kept for this user."""
    return Path(user_cache_dir("qft-workbench")) / "tokens"


class TokenStore:
    """A finished store.

    Attributes:
        about: What its maker noted: JSON.
        starts: Where each example begins, in tokens; one more than there are examples.
        numbers: Row of the dataset of each example.
        keys: Content hash of each example's row.
        lengths: Tokens of each example before it was cut.

    Args:
        folder: A committed store.

    Raises:
        OSError: It is not whole; so do ValueError, KeyError, EOFError and BadZipFile say.
    """

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        with (folder / _INDEX).open("rb") as file, np.load(file, allow_pickle=False) as index:
            self.starts: np.ndarray = index["starts"]
            self.numbers: np.ndarray = index["numbers"]
            self.keys: np.ndarray = index["keys"]
            self.lengths: np.ndarray = index["lengths"]
        self._tokens = _mapped(folder / "tokens.bin", np.uint32)
        self._trained = _mapped(folder / "trained.bin", np.bool_)
        if not len(self._tokens) == len(self._trained) == int(self.starts[-1]):
            raise ValueError("tokens and index differ")
        with suppress(OSError):
            os.utime(folder)  # used now

    def __len__(self) -> int:
        return len(self.numbers)

    def example(self, number: int) -> Example:
        """One example, read from the disk or its cache in memory."""
        place = slice(int(self.starts[number]), int(self.starts[number + 1]))
        return Example(tuple(self._tokens[place].tolist()), tuple(self._trained[place].tolist()))

    def num_trained(self, numbers: np.ndarray) -> int:
        """Tokens that the loss counts in these examples; the first of each has nothing before."""
        if not len(numbers):
            return 0
        firsts = self._trained[self.starts[numbers]]
        return int(self._trained_sums()[numbers].sum()) - int(firsts.sum())

    def _trained_sums(self) -> np.ndarray:
        counted = np.zeros(len(self), dtype=np.int64)
        step = 1 << 16  # examples that are counted at once
        for begin in range(0, len(self), step):
            edges = self.starts[begin : begin + step + 1]
            part = self._trained[int(edges[0]) : int(edges[-1])]
            counted[begin : begin + step] = np.add.reduceat(part, edges[:-1] - edges[0], dtype=int)
        return counted


class StoredExamples(Sequence[Example]):
    """Some examples of a store, in an order.

    Args:
        store: Where they are.
        numbers: Which of them.
    """

    def __init__(self, store: TokenStore, numbers: np.ndarray) -> None:
        self._store = store
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._store.example(int(number)) for number in self.numbers[index]]
        return self._store.example(int(self.numbers[index]))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, after any cut."""
        starts = self._store.starts
        return starts[self.numbers + 1] - starts[self.numbers]

    @property
    def keys(self) -> np.ndarray:
        """Content hash of each example's row: the same for all examples of a row and its copies."""
        return self._store.keys[self.numbers]


def lengths_of(examples: Sequence[Example]) -> Sequence[int]:
    """Tokens of each example, without reading those that are on disk."""
    if isinstance(examples, StoredExamples):
        return examples.lengths.tolist()
    return [len(example.tokens) for example in examples]


class StoreWriter:
    """Writes a store beside its place and commits it by one rename.

    Args:
        place: Folder of the store.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        self._place = place
        self._folder = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
        self._tokens = (self._folder / "tokens.bin").open("wb")
        self._trained = (self._folder / "trained.bin").open("wb")
        self._waiting = array("I")  # tokens that are not on disk yet
        self._waiting_marks = bytearray()
        self._starts = [0]
        self._numbers: list[int] = []
        self._keys: list[int] = []
        self._lengths: list[int] = []

    def add(self, example: Example, number: int, key: int, length: int) -> None:
        """One example.

        Args:
            example: Its tokens.
            number: Its row.
            key: Hash of the row's content, below 2^64.
            length: Tokens before it was cut.
        """
        self._starts.append(self._starts[-1] + len(example.tokens))
        self._numbers.append(number)
        self._keys.append(key)
        self._lengths.append(length)
        self._waiting.extend(example.tokens)
        self._waiting_marks += bytes(example.trained)
        if len(self._waiting) >= _FLUSH:
            self._flush()

    def commit(self, about: dict[str, Any]) -> TokenStore:
        """Finish the store; where somebody else was faster, theirs is as good."""
        self._flush()
        self._close()
        np.savez(
            self._folder / _INDEX,
            starts=np.asarray(self._starts, dtype=np.int64),
            numbers=np.asarray(self._numbers, dtype=np.int64),
            keys=np.asarray(self._keys, dtype=np.uint64),
            lengths=np.asarray(self._lengths, dtype=np.int32),
        )
        (self._folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
        try:
            self._folder.rename(self._place)
        except OSError:
            self.discard()
            return TokenStore(self._place)
        _make_room(self._place)
        return TokenStore(self._place)

    def discard(self) -> None:
        """Leave nothing."""
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _flush(self) -> None:
        self._tokens.write(self._waiting.tobytes())
        self._trained.write(self._waiting_marks)
        self._waiting = array("I")
        self._waiting_marks.clear()

    def _close(self) -> None:
        self._tokens.close()
        self._trained.close()


def open_store(place: Path) -> TokenStore | None:
    """The store at a place; None if there is none, or none that is whole."""
    try:
        return TokenStore(place)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        shutil.rmtree(place, ignore_errors=True)
        return None


def storage_refusal(error: OSError) -> RequestError:
    """What to say where the tokens cannot be stored."""
    reason = (error.strerror or type(error).__name__).lower()
    return RequestError(
        "data.source",
        f"the tokens cannot be stored in {store_folder()}: {reason}.",
        "Make room there.",
    )


def _mapped(file: Path, dtype: Any) -> np.ndarray:
    # An empty file cannot be mapped.
    return np.memmap(file, dtype=dtype, mode="r") if file.stat().st_size else np.empty(0, dtype)


def _make_room(keep: Path) -> None:
    """Remove the stores not used for longest, and what a killed writer left a day ago."""
    total = 0
    for used, folder in sorted(_ages(keep.parent), reverse=True):
        is_left_over = folder.name.startswith(".new-") and time.time() - used > 86_400
        total += sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        if folder != keep and (is_left_over or total > MOST_BYTES):
            shutil.rmtree(folder, ignore_errors=True)


def _ages(folder: Path) -> Iterator[tuple[float, Path]]:
    for one in folder.iterdir():
        with suppress(OSError):
            if one.is_dir():
                yield one.stat().st_mtime, one
