"""Runs: all of them, with what was promised beside what was measured."""

from __future__ import annotations

from typing import Any

import gradio as gr

from qft_gui.fragments import render
from qft_gui.navigation import QUIETLY, Navigation, choices, go_to
from qft_gui.pages.parts import fragment, slot
from qft_gui.service import Service
from qft_gui.view.runs import runs_table

REFRESH_S = 3


def build(service: Service, navigation: Navigation, tab: gr.Tab) -> None:
    """Lay the page out and wire it."""
    fragment("title", title="Runs", lede="Every run is a folder. Open one to see its curves.")
    with gr.Column(elem_classes="q-card", min_width=0):
        table = slot(render("runs_table", runs=[]), "runs.js")
    clock = gr.Timer(REFRESH_S, active=False)

    def refresh() -> tuple[str, Any]:
        """The table, and whether it is worth looking again."""
        found = service.snapshots()
        goes_on = any(not snapshot.is_over for snapshot in found)
        return render("runs_table", **runs_table(found)), gr.Timer(active=goes_on)

    def open_run(event: gr.EventData) -> tuple[Any, Any]:
        names = service.names()
        name = getattr(event, "run", None)
        return go_to("run"), choices(names, name if name in names else None)

    gr.on([tab.select, clock.tick], refresh, None, [table, clock], **QUIETLY)
    table.select(open_run, None, [navigation.tabs, navigation.run], **QUIETLY)
