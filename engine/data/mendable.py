"""Refusals of rows that have a way out of their own."""

from __future__ import annotations

from engine.data.containers.record_file import RowError


class MendableRow(RowError):
    """A row that cannot be learned from, and what a person can do about it.

    Attributes:
        advice: A whole sentence.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice
