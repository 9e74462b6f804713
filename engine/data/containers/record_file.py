"""What every reader gives: records with their places, one after another, never the whole file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol

from engine.contract.errors import RequestError

FIELD = "data.source"
MAX_RECORD = 16 << 20  # characters of one record; what is larger was meant to be something else
SNIPPET = 200  # characters


class RowError(ValueError):
    """Why one row cannot be learned from, in words that follow its number.

    Attributes:
        snippet: How the row begins in the file, as far as its reader kept it; empty where the
            row itself is at hand.
    """

    def __init__(self, reason: str, snippet: str = "") -> None:
        super().__init__(reason)
        self.snippet = snippet[:SNIPPET]


class RecordFile(Protocol):
    """A file as records. Each iteration reads it anew, in pieces, from its beginning."""

    @property
    def container(self) -> str:
        """What the file is, for people, such as `JSON Lines`."""
        ...

    @property
    def encoding(self) -> str | None:
        """How its text is kept, such as `UTF-8`; None where the container says so itself."""
        ...

    @property
    def unit(self) -> Literal["line", "row"]:
        """What the numbers count: the line where a record begins, or records from 1."""
        ...

    @property
    def is_running_text(self) -> bool:
        """Whether its texts are cut out of one that goes on, so that none of them has an end."""
        ...

    @property
    def notes(self) -> list[str]:
        """What a person should know, as whole sentences; complete after an iteration."""
        ...

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Number and value: a dict, a str (a passage of text), a `RowError`, or other JSON.

        Raises:
            RequestError: The file turns out to be damaged. What came before is no whole file.
        """
        ...


def mistake(message: str, advice: str) -> RequestError:
    """A mistake in the file itself."""
    return RequestError(FIELD, message, advice)
