"""The inputs of the Setup page."""

from __future__ import annotations

from typing import Any

import gradio as gr

from engine.contract.bundled import catalogue, sample_datasets
from qft_gui.form import LABELS, OTHER, Form
from qft_gui.uploads import UPLOAD_SUFFIXES
from qft_gui.view.numbers import parameters

Inputs = dict[str, Any]
DEFAULT = Form()
HELP: dict[str, str] = {
    "model_path": "A folder on this computer, or an id such as owner/name.",
    "data_path": "The whole path of a .json or .jsonl file on this computer.",
    "steps": "Updates of the weights.",
    "batch_size": "Chats an update learns from.",
    "sequence_length": "Longest chat, in tokens.",
    "learning_rate": "Size of an update. Empty: the method's own.",
    "eval_percent": "Rows kept apart to measure progress.",
    "rounding": "Nearest, as published, loses most small updates.",
    "device": "Where to train.",
    "seed": "Same seed, same run.",
    "name": "Letters, digits, dots and dashes. Empty: date, method, model.",
}


def model_inputs() -> Inputs:
    """Which model: bundled, well known, or one's own."""
    known = [
        (f"{model.title} · {parameters(model.num_parameters)}", name)
        for name, model in catalogue().items()
    ]
    return {
        "model": gr.Dropdown(
            [("Starter · comes with the app", "starter"), *known, ("A folder or a hub id…", OTHER)],
            value=DEFAULT.model,
            label=LABELS["model"],
            show_label=False,
            container=False,
        ),
        "model_path": gr.Textbox(
            label=LABELS["model_path"], info=HELP["model_path"], visible=False, max_lines=1
        ),
    }


def data_inputs() -> tuple[Inputs, gr.UploadButton]:
    """Which chats: a sample, or a file of one's own."""
    samples = [(sample.title, name) for name, sample in sample_datasets().items()]
    inputs: Inputs = {
        "data": gr.Dropdown(
            [*samples, ("A file of your own…", OTHER)],
            value=DEFAULT.data,
            label=LABELS["data"],
            show_label=False,
            container=False,
        ),
        "data_path": gr.Textbox(
            label=LABELS["data_path"], info=HELP["data_path"], visible=False, max_lines=1
        ),
    }
    upload = gr.UploadButton(
        "Upload a file…",
        file_types=list(UPLOAD_SUFFIXES),
        elem_classes="q-quiet q-left",
        min_width=120,
    )
    return inputs, upload


def fine_inputs() -> Inputs:
    """What a preset decides well enough for most."""
    with gr.Row(elem_classes="q-fields"):
        first: Inputs = {
            "steps": _count("steps"),
            "batch_size": _count("batch_size"),
            "sequence_length": _count("sequence_length"),
            "learning_rate": gr.Textbox(
                label=LABELS["learning_rate"],
                info=HELP["learning_rate"],
                max_lines=1,
                min_width=140,
            ),
            "eval_percent": _count("eval_percent"),
            "rounding": gr.Dropdown(
                [("Stochastic", "stochastic"), ("Nearest", "nearest")],
                value=DEFAULT.rounding,
                label=LABELS["rounding"],
                info=HELP["rounding"],
                min_width=140,
                filterable=False,
            ),
            "device": gr.Dropdown(
                ["auto", "cpu", "cuda"],
                value=DEFAULT.device,
                label=LABELS["device"],
                info=HELP["device"],
                min_width=140,
                filterable=False,
            ),
            "seed": _count("seed"),
            "name": gr.Textbox(label=LABELS["name"], info=HELP["name"], max_lines=1, min_width=140),
        }
    return first


def _count(name: str) -> gr.Number:
    # No minimum and no precision: Gradio would answer with a toast or round in silence, and the
    # spec has a sentence for the field.
    return gr.Number(
        getattr(DEFAULT, name),
        label=LABELS[name],
        info=HELP[name],
        min_width=140,
    )
