"""Where things are on the X-ray page."""

from __future__ import annotations

import gradio as gr

from engine.contract.bundled import sample_datasets
from qft_gui.form import OTHER
from qft_gui.fragments import render, script
from qft_gui.pages.parts import fragment, slot
from qft_gui.view.xray import ALL

OWN = "__own__"
STARTER_CHOICE = ("Starter · comes with the app", "starter")
OTHER_CHOICE = ("A folder or a hub id…", OTHER)


class XrayLayout:
    """The components of the page, in place."""

    def __init__(self, plotly_url: str) -> None:
        fragment(
            "title",
            title="X-ray",
            lede="The numbers inside a model, layer by layer, and what rounding them to 8 bits "
            "costs. A run shows the moments of its optimizer too, where it has any.",
        )
        with gr.Column(elem_classes="q-card", min_width=0):
            self._wishes()
        self.said = slot()
        with gr.Column(visible=False, elem_classes="q-run-body", min_width=0) as self.body:
            self._answer(plotly_url)
        self.clock = gr.Timer(1, active=False)

    def _wishes(self) -> None:
        with gr.Row(elem_classes="q-pickers"):
            self.target = _any_text(
                gr.Dropdown(
                    [STARTER_CHOICE, OTHER_CHOICE],
                    value="starter",
                    label="Model or run",
                    allow_custom_value=True,
                    min_width=220,
                )
            )
            samples = [(sample.title, name) for name, sample in sample_datasets().items()]
            self.data = gr.Dropdown(
                [("Its own, or the pirate sample", OWN), *samples, ("A file…", OTHER)],
                value=OWN,
                label="Gradients from",
                min_width=220,
            )
        with gr.Row(elem_classes="q-pickers"):
            self.target_path = gr.Textbox(
                label="Folder or hub id",
                info="A folder on this computer, or an id such as owner/name, which is downloaded.",
                visible=False,
                max_lines=1,
            )
            self.data_path = gr.Textbox(
                label="File",
                info="The whole path of a .json or .jsonl file on this computer.",
                visible=False,
                max_lines=1,
            )
        with gr.Row(elem_classes="q-after"):
            self.take = gr.Button("Take the X-ray", variant="primary", min_width=160)
            self.cancel = gr.Button("Cancel", visible=False, min_width=96)

    def _answer(self, plotly_url: str) -> None:
        self.head = slot()
        with gr.Row(elem_classes="q-pickers"):
            self.kind = gr.Radio([], label="Show", elem_id="xray-kind")
            self.part = _any_text(
                gr.Dropdown(
                    [("All matrices of a layer", ALL)],
                    value=ALL,
                    label="Matrices",
                    allow_custom_value=True,
                )
            )
            # A later answer may have other kinds than the ones that this process last offered.
            self.kind.preprocess = _text
        self.charts = gr.HTML(
            html_template=render("xray_charts", plotly=plotly_url),
            apply_default_css=False,
            js_on_load=script("plot.js", "xray.js"),
            figure=None,
            elem_id="xray-charts",
        )
        with gr.Column(elem_id="xray-table", min_width=0):
            self.table = slot()


def _text(payload: object) -> str | None:
    return payload if isinstance(payload, str) else None


def _any_text(picker: gr.Dropdown) -> gr.Dropdown:
    """Takes what a page that outlived the app still shows; it is checked when it is used."""
    picker.preprocess = _text
    return picker
