"""Setup: choose a model, some data and a method; see what it costs; start."""

from __future__ import annotations

from typing import Any

import gradio as gr

from qft_gui.checks import Checks
from qft_gui.forecasts import Forecasts
from qft_gui.form import Form
from qft_gui.navigation import QUIETLY, Navigation
from qft_gui.own_datasets import OwnDatasets
from qft_gui.pages.data_desk import DataDesk
from qft_gui.pages.picked import Picked
from qft_gui.pages.setup_desk import Desk
from qft_gui.pages.setup_layout import SetupLayout
from qft_gui.service import Service
from qft_gui.setup_frames import setup_frames
from qft_gui.spec_fields import SETTING_FIELDS


def build(service: Service, forecasts: Forecasts, navigation: Navigation) -> None:
    """Lay the page out and wire it."""
    own = OwnDatasets(service.runs)
    data = DataDesk(own, Checks())
    page = SetupLayout(setup_frames(Form(), forecasts), own)
    desk = Desk(service, forecasts, data)
    wrong, picked = gr.State({}), gr.State(Picked())
    inputs, shown = [wrong, picked, *page.fields], [*page.outputs, wrong, *page.fields]
    latest = {**QUIETLY, "trigger_mode": "always_last"}
    # "always_last" sends the first event's data again in place of the last one's.
    each = {**QUIETLY, "trigger_mode": "multiple"}
    triggers = [*_changes(page), page.reading.tick, navigation.blocks.load]
    gr.on(triggers, desk.refresh, inputs, shown, **latest)
    page.methods.select(desk.pick, inputs, shown, **latest)
    page.fit.select(desk.act, inputs, shown, **latest)
    page.to_preset.click(desk.to_preset, inputs, shown, **latest)
    for card in (page.data, page.seen, page.drop):
        card.select(desk.act_on_data, inputs, shown, **each)
    page.upload.upload(data.receive, [page.upload, picked], page.inputs["data"], **QUIETLY).then(
        desk.refresh, inputs, shown, **latest
    )
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
