"""Where things are on the Run page."""

from __future__ import annotations

from typing import Any

import gradio as gr

from qft_gui.fragments import render, script
from qft_gui.navigation import Navigation
from qft_gui.pages.parts import slot
from qft_gui.service import Service

NO_RUN = "no_run"


class RunLayout:
    """The components of the page, in place."""

    def __init__(self, service: Service, navigation: Navigation, plotly_url: str) -> None:
        navigation.run.render()
        self._top()
        self.failure = slot()
        self._after()
        with gr.Column(elem_classes="q-run-body", min_width=0):
            self.charts = gr.HTML(
                html_template=render("charts", plotly=plotly_url),
                apply_default_css=False,
                js_on_load=script("plot.js", "chart.js"),
                server_functions=[_points_of(service)],
                run=None,
            )
            self.terms = slot()
            self.metrics = slot()
            with gr.Column(elem_classes="q-card", min_width=0):
                self.replies = slot(render("replies", items=[]))
        self.live = slot(render("announce", text=""))
        self.outputs = [
            self.head,
            self.failure,
            self.metrics,
            self.terms,
            self.replies,
            self.live,
            self.stop,
            self.resume,
            self.talk,
            self.compare,
            self.discard,
        ]

    def _top(self) -> None:
        with gr.Row(elem_classes="q-grid q-run-top"):
            with gr.Column(scale=6, min_width=0):
                self.head = slot(render(NO_RUN))
                self.said = slot()
            with gr.Column(scale=1, min_width=168, elem_classes="q-actions"):
                self.stop = gr.Button("Stop and keep", visible=False, min_width=140)
                self.resume = gr.Button("Resume", visible=False, variant="primary", min_width=140)

    def _after(self) -> None:
        """What can be done with the run as a whole; to discard it comes last."""
        with gr.Row(elem_classes="q-after"):
            self.talk = gr.Button("Talk to it", visible=False, variant="primary", min_width=140)
            self.compare = gr.Button("Compare with the original", visible=False, min_width=200)
            self.discard = gr.Button(
                "Discard…", visible=False, elem_classes="q-quiet q-discard", min_width=96
            )
        with gr.Column(visible=False, elem_classes="q-card", elem_id="confirm") as self.confirm:
            self.question = slot()
            with gr.Row(elem_classes="q-keep"):
                self.delete = gr.Button("Delete this run", variant="stop", min_width=140)
                self.keep = gr.Button("Keep it", min_width=140)


def _points_of(service: Service) -> Any:
    def points(request: object) -> dict[str, Any]:
        return service.points(request)

    return points
