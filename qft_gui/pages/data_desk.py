"""What the data card answers: files that come in, columns that are mapped, examples turned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from engine.contract.errors import RequestError
from engine.contract.spec import ColumnRole, DataFormat
from qft_gui.checks import NOT_LOOKED, Checks, Look
from qft_gui.data_wish import DataWish, Reading, data_kind
from qft_gui.form import Form
from qft_gui.own_datasets import OwnDatasets
from qft_gui.pages.picked import Picked
from qft_gui.pages.setup_fields import data_choices
from qft_gui.setup_frames import DataState
from qft_gui.view.mapping import ENCODINGS
from qft_gui.view.sentences import sentence

_MOST_CHARACTERS = 4096


class DataDesk:
    """What the data card and the card with an example do.

    Args:
        own: The folder of a person's own datasets.
        checks: What looks into datasets.
    """

    def __init__(self, own: OwnDatasets, checks: Checks) -> None:
        self._own = own
        self.checks = checks

    def state(self, form: Form, picked: Picked) -> DataState:
        """What is known of the form's dataset now; what is missing is asked for."""
        number = picked.example(form.data_source)
        return DataState(self._look(form, picked, number), number, picked.file_notice)

    def act(self, event: gr.EventData, form: Form, picked: Picked) -> tuple[Form, tuple[str, ...]]:
        """One wish of the card's; the form after it, and the inputs that are written into."""
        act, role, value = (getattr(event, name, None) for name in ("act", "role", "value"))
        text = value[:_MOST_CHARACTERS] if isinstance(value, str) else ""
        picked.file_notice = ""
        if act in ("format", "column", "encoding", "config", "split", "by-itself"):
            picked.reading = _read_otherwise(form, str(act), role, text)
            return replace(form, reading=picked.reading), ()
        if act == "length" and text.isdecimal():
            return form.with_values({"sequence_length": int(text)}), ("sequence_length",)
        if act == "example" and text.isdecimal():
            picked.show_example(form.data_source, max(1, int(text)))
        elif act == "open":
            picked.has_opened = picked.has_opened or text == "seen"
        elif act == "download":
            picked.downloads |= {form.data_source, form.model_source}
        elif act == "cancel":
            self.checks.cancel()
        elif act == "again":
            self.checks.again(_wish(form, picked))
        elif act == "too_large":
            picked.file_notice = f"{text} is {self._own.too_large()}"
        return form, ()

    def receive(self, file: str, picked: Picked) -> Any:
        """A dataset was uploaded: the update of the field that chooses one."""
        try:
            kept = self._own.keep(Path(file))
        except RequestError as error:
            picked.file_notice = sentence(error)
            return gr.skip()
        picked.file_notice = ""
        return gr.Dropdown(choices=data_choices(self._list(picked)), value=str(kept))

    def new_choices(self, picked: Picked) -> dict[str, Any]:
        """Properties of the field that chooses data, where the folder is not what it lists."""
        before = picked.listed
        listed = self._list(picked)
        return {} if listed == before else {"choices": data_choices(listed)}

    def _list(self, picked: Picked) -> Any:
        picked.listed = self._own.files()
        return picked.listed

    def _look(self, form: Form, picked: Picked, number: int) -> Look:
        kind = data_kind(form.data_source)
        if kind == "missing":
            return NOT_LOOKED
        # A sample is known to be right, and nothing is downloaded that nobody asked for.
        may_ask = {"sample": picked.has_opened, "hub": form.data_source in picked.downloads}
        return self.checks.look(_wish(form, picked), number, may_ask=may_ask.get(kind, True))


def _wish(form: Form, picked: Picked) -> DataWish:
    sources = {form.data_source, form.model_source}
    return DataWish.of(form.document(), may_download=bool(sources & picked.downloads))


def _read_otherwise(form: Form, act: str, role: object, text: str) -> Reading:
    reading = form.reading.of(form.data_source)
    if act == "by-itself":
        return Reading(reading.source, config=reading.config, split=reading.split)
    if act == "column":
        return reading.with_column(str(role), text) if role in get_args(ColumnRole) else reading
    if act == "format" and text and text not in get_args(DataFormat):
        return reading
    if act == "encoding" and text and text not in ENCODINGS:
        return reading
    return replace(reading, **{act: text})
