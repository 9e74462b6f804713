"""Blind votes: which of two replies a person preferred, one JSON object per line of `votes.jsonl`.

Lines are appended by the app and read by anyone. A line is bounded: long texts are cut, and the cut
says how much is left out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, ValidationError

from engine.contract.errors import RequestError
from engine.contract.frozen import Frozen
from engine.contract.paths import is_file

Choice = Literal["left", "right", "tie", "both_bad"]
LONGEST_TEXT = 4000  # characters
MOST_MESSAGES = 16
_LONGEST_LINE = 1 << 21
_O_BINARY = getattr(os, "O_BINARY", 0)
_appending = threading.Lock()


def _bounded(value: Any) -> Any:
    """Whole characters only, and no more of them than fit."""
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "replace").decode()
    if len(text) <= LONGEST_TEXT:
        return text
    mark = f" … [{len(text) - LONGEST_TEXT:,} characters left out]"
    return text[:LONGEST_TEXT].rstrip()[: LONGEST_TEXT - len(mark)] + mark


def _latest(value: Any) -> Any:
    """The last entries of a list."""
    return tuple(cast("Any", value)[-MOST_MESSAGES:]) if isinstance(value, list | tuple) else value


Text = Annotated[str, BeforeValidator(_bounded)]


class Message(Frozen):
    """What both sides were told: a system message or a question."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text


class VotedSide(Frozen):
    """One of the two that answered.

    Attributes:
        model: Its name, as people know it.
        fingerprint: What tells its weights from others of that name; None if it was not taken.
        reply: What was voted on.
        earlier: Its replies to the questions before, where the conversation had several.
    """

    model: str = Field(min_length=1, max_length=4096)
    fingerprint: str | None = Field(default=None, max_length=256)
    reply: Text
    earlier: Annotated[tuple[Text, ...], BeforeValidator(_latest)] = ()


class Vote(Frozen):
    """One vote, with all that is needed to ask both sides again.

    Attributes:
        time: When, in seconds since 1970.
        left: Who was shown on the left.
        right: Who was shown on the right.
        messages: System message and questions, the last of them the one that was answered.
        seed: Of the sampling, the same on both sides.
        settings: Of the sampling: temperature and the like.
        choice: What the person preferred.
        ballot: What was voted on, where the same can be shown again; it is voted on once.
    """

    time: float = Field(ge=0)
    left: VotedSide
    right: VotedSide
    messages: Annotated[tuple[Message, ...], BeforeValidator(_latest), Field(min_length=1)]
    seed: int = Field(ge=0, le=2**63 - 1)
    settings: dict[str, bool | int | float | Text | None] = Field(
        default_factory=dict[str, bool | int | float | str | None], max_length=MOST_MESSAGES
    )
    choice: Choice
    ballot: str | None = Field(default=None, max_length=256)

    @property
    def winner(self) -> str | None:
        """Name of the preferred model; None for a tie, or where both are bad."""
        return {"left": self.left.model, "right": self.right.model}.get(self.choice)


@dataclass(frozen=True)
class Votes:
    """What a file of votes holds.

    Attributes:
        votes: In the order they were cast.
        bad_lines: Lines that are no votes, such as one that a crash tore.
    """

    votes: tuple[Vote, ...]
    bad_lines: int


def append_vote(path: Path, vote: Vote) -> None:
    """Add one line, in one write, and wait until the disk has it.

    Raises:
        RequestError: It cannot be written; then the file is as it was.
    """
    line = vote.model_dump_json().encode() + b"\n"
    assert len(line) <= _LONGEST_LINE, "every text in a vote is bounded"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _O_BINARY
    try:
        with _appending:
            descriptor = os.open(path, flags, 0o600)
            try:
                _append(descriptor, line)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise RequestError(
            "votes",
            f"the vote cannot be written to {path} ({error.strerror or 'it fails'}).",
            "Make room, or check who may write there, and vote again.",
        ) from error


def _append(descriptor: int, line: bytes) -> None:
    size = os.fstat(descriptor).st_size
    if size:
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        if os.read(descriptor, 1) != b"\n":
            line = b"\n" + line  # what a crash tore stays a line of its own
    if os.write(descriptor, line) != len(line):
        os.ftruncate(descriptor, size)
        raise OSError(0, "the disk is full")
    os.fsync(descriptor)


def read_votes(path: Path) -> Votes:
    """All votes in a file; none if there is no file.

    Raises:
        RequestError: It is there and cannot be read.
    """
    if not is_file(path):
        return Votes((), 0)
    votes: list[Vote] = []
    bad_lines = 0
    try:
        for line in _lines(path):
            try:
                votes.append(Vote.model_validate_json(line))
            except ValidationError:
                bad_lines += 1
    except OSError as error:
        reason = error.strerror or "it fails"
        raise RequestError("votes", f"{path} cannot be read ({reason}).") from error
    return Votes(tuple(votes), bad_lines)


def _lines(path: Path) -> Iterator[bytes]:
    """Lines that are not empty; of one that no vote can be, its pieces."""
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            if line.strip():
                yield line
