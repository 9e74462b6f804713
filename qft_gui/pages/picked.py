"""What one window of the Setup page holds beside its inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qft_gui.applied import Applied
from qft_gui.data_wish import Reading
from qft_gui.form import Form
from qft_gui.own_datasets import OwnDataset


class Picked:
    """The ticked row, how the data is read, and what was changed to fit.

    Answers pass each other: what was asked before another row was ticked may be answered after
    it. So this is no input whose value travels with the question, but one object of the window's.

    Attributes:
        reading: How the dataset is read, where that was said by hand.
        has_opened: The card with an example was opened, so that samples are looked into too.
        downloads: Datasets and models that may be downloaded, because a person said so.
        file_notice: Why a file was not taken.
        listed: The own datasets as the page lists them; None before the first list.
    """

    def __init__(self) -> None:
        self.choice: tuple[Any, Any] = (Form.kind, Form.preset)
        self.applied: Applied | None = None
        self.notice = ""
        self.reading = Reading()
        self.has_opened = False
        self.downloads: frozenset[str] = frozenset()
        self.file_notice = ""
        self.listed: tuple[OwnDataset, ...] | None = None
        self._example = ("", 1)

    def form(self, *values: Any) -> Form:
        """The form from the values of the page's inputs."""
        return replace(Form.of(*self.choice, *values), reading=self.reading)

    def example(self, source: str) -> int:
        """The example of a dataset that is shown, from 1."""
        return self._example[1] if self._example[0] == source else 1

    def show_example(self, source: str, number: int) -> None:
        """Show another example of a dataset."""
        self._example = (source, number)

    def stamp(self) -> tuple[object, ...]:
        """Another one once something was picked: answers to what was asked before are late."""
        return (self.choice, self.reading, self._example)
