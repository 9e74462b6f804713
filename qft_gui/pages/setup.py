"""Setup: choose a model, some data and a method; see what it costs; start."""

from __future__ import annotations

from typing import Any

import gradio as gr

from qft_gui.forecasts import Forecasts
from qft_gui.form import Form
from qft_gui.navigation import QUIETLY, Navigation
from qft_gui.pages.setup_desk import Desk, Picked
from qft_gui.pages.setup_layout import SetupLayout
from qft_gui.service import Service
from qft_gui.setup_frames import setup_frames
from qft_gui.spec_fields import SETTING_FIELDS


def build(service: Service, forecasts: Forecasts, navigation: Navigation) -> None:
    """Lay the page out and wire it."""
    page, desk = SetupLayout(setup_frames(Form(), forecasts)), Desk(service, forecasts)
    wrong, picked = gr.State({}), gr.State(Picked())
    inputs, shown = [wrong, picked, *page.fields], [*page.outputs, wrong, *page.fields]
    latest = {**QUIETLY, "trigger_mode": "always_last"}
    triggers = [*_changes(page), page.reading.tick, navigation.blocks.load]
    gr.on(triggers, desk.refresh, inputs, shown, **latest)
    page.methods.select(desk.pick, inputs, shown, **latest)
    page.fit.select(desk.act, inputs, shown, **latest)
    page.to_preset.click(desk.to_preset, inputs, shown, **latest)
    file_fields = [page.inputs["data"], page.inputs["data_path"]]
    page.upload.upload(desk.receive, page.upload, file_fields, **QUIETLY)
    page.start.click(
        desk.begin,
        inputs,
        [navigation.tabs, navigation.run, *shown],
        trigger_mode="once",
        show_progress="hidden",
        api_visibility="private",
    )


def _changes(page: SetupLayout) -> list[Any]:
    """What is a reason to look again.

    A method sets its choices all at once, so of these only what a person changes is one. Typing
    is told by the value that it leaves: Gradio's `input` does not tell of pasting.
    """
    return [
        field.input if name in SETTING_FIELDS and SETTING_FIELDS[name].choices else field.change
        for name, field in page.inputs.items()
    ]
