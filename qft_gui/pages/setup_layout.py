"""Where things are on the Setup page."""

from __future__ import annotations

import gradio as gr

from engine.contract.method_settings import METHOD_KINDS, MethodKind
from qft_gui.form import input_names
from qft_gui.own_datasets import MAX_UPLOAD_BYTES, OwnDatasets
from qft_gui.pages.parts import fragment, slot
from qft_gui.pages.setup_fields import (
    Inputs,
    data_inputs,
    drop_text,
    fine_inputs,
    method_inputs,
    model_inputs,
    upload_button,
)
from qft_gui.setup_frames import START, Frames
from qft_gui.view.methods import METHOD_NAMES


class SetupLayout:
    """The components of the page, in place."""

    def __init__(self, first: Frames, own: OwnDatasets) -> None:
        fragment(
            "title",
            title="New run",
            lede="Choose a model, some data and a method. You see what it costs before anything "
            "starts.",
        )
        self.inputs: Inputs = {}
        with gr.Row(elem_classes="q-grid"):
            with gr.Column(elem_classes="q-stack", scale=8, min_width=0):
                with gr.Row(elem_classes="q-grid q-pair"):
                    self._model_and_data(first, own)
                with gr.Column(elem_classes="q-card q-seen-card", min_width=0):
                    self.seen = slot(first.seen, "data.js")
                with gr.Column(elem_classes="q-card q-flush", min_width=0):
                    fragment("card_title", number="3", title="How")
                    self.methods = slot(first.methods, "methods.js")
                    self._method_settings(first)
                    with gr.Accordion("More", open=False, elem_classes="q-more"):
                        self.inputs |= fine_inputs()
            with gr.Column(elem_classes="q-card q-aside", scale=5, min_width=0):
                self._will_it_fit(first)
        self.fields = [self.inputs[name] for name in input_names()]
        self.reading = gr.Timer(1, active=False)
        self.outputs = [
            self.model,
            self.data,
            self.seen,
            self.methods,
            self.settings,
            *self.methods_own.values(),
            self.preset_note,
            self.to_preset,
            self.fit,
            self.refusal,
            self.dock,
            self.command,
            self.start,
            self.reading,
        ]

    def _model_and_data(self, first: Frames, own: OwnDatasets) -> None:
        with gr.Column(elem_classes="q-card", min_width=0):
            fragment("card_title", number="1", title="Model")
            self.inputs |= model_inputs()
            self.model = slot(first.model)
        with gr.Column(elem_classes="q-card", min_width=0):
            fragment("card_title", number="2", title="Data")
            self.inputs |= data_inputs()
            with gr.Column(elem_classes="q-drop", min_width=0):
                self.upload = upload_button()
                self.drop = slot(drop_text(own.folder), "drop.js", limit=MAX_UPLOAD_BYTES)
            self.data = slot(first.data, "data.js")

    def _method_settings(self, first: Frames) -> None:
        self.settings = gr.Accordion(settings_title(first.kind), open=False, elem_classes="q-more")
        self.methods_own: dict[MethodKind, gr.Row] = {}
        with self.settings:
            with gr.Row(elem_classes="q-preset"):
                self.preset_note = slot(first.preset_note)
                self.to_preset = gr.Button(
                    "Undo the changes", visible=False, size="md", elem_classes="q-quiet", scale=0
                )
            for kind in METHOD_KINDS:
                row, inputs = method_inputs(kind, is_shown=kind == first.kind)
                self.methods_own[kind] = row
                self.inputs |= inputs

    def _will_it_fit(self, first: Frames) -> None:
        fragment("card_title", number="4", title="Will it fit?")
        self.fit = slot(first.fit, "fit.js")
        with gr.Row(elem_classes="q-dock"):
            self.refusal = slot(first.refusal)
            self.dock = slot(first.dock)
            self.start = gr.Button(START, variant="primary", min_width=120)
        with gr.Accordion("Show command", open=False, elem_classes="q-more"):
            self.command = slot(first.command)


def settings_title(kind: MethodKind) -> str:
    """What the settings of a method stand under."""
    return f"{METHOD_NAMES[kind]} settings"
