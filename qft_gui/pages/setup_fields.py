"""The inputs of the Setup page."""

from __future__ import annotations

from typing import Any

import gradio as gr

from engine.contract.bundled import catalogue, sample_datasets
from qft_gui.form import LABELS, OTHER, QFT_FIELDS, Form
from qft_gui.uploads import UPLOAD_SUFFIXES
from qft_gui.view.numbers import parameters

Inputs = dict[str, Any]
Choices = list[tuple[str, str | int]]
DEFAULT = Form()
HELP: dict[str, str] = {
    "model_path": "A folder on this computer, or an id such as owner/name.",
    "data_path": "The whole path of a .json or .jsonl file on this computer.",
    "update": "AdamW keeps two moments, Lion one.",
    "rounding": "Nearest, as published, loses most small updates.",
    "residual_bits": "Kept of what an 8-bit code cannot hold.",
    "outlier_percent": "Largest weights, kept in 32 bits.",
    "gradients": "Stack keeps all of them, for clipping and accumulation.",
    "scale_group": "Weights that share one scale.",
    "moment_bits": "4 bits are leaner and less exact.",
    "matmul": "Int8 is faster on some hardware, less exact.",
    "quantize": "Which weights become 8-bit codes.",
    "steps": "Updates of the weights.",
    "batch_size": "Chats an update learns from.",
    "grad_accumulation": "Batches that make one update.",
    "sequence_length": "Longest chat, in tokens.",
    "learning_rate": "Size of an update. Empty: the method's own.",
    "schedule": "How the rate falls over the run.",
    "weight_decay": "Pull of the weights to zero.",
    "max_grad_norm": "Clip a longer gradient. Empty: never.",
    "eval_percent": "Rows kept apart to measure progress.",
    "device": "Where to train.",
    "seed": "Same seed, same run.",
    "name": "Letters, digits, dots and dashes. Empty: date, method, model.",
}


CHOICES: dict[str, Choices] = {
    "update": [("Lion", "lion"), ("AdamW", "adamw")],
    "rounding": [("Stochastic", "stochastic"), ("Nearest", "nearest")],
    "residual_bits": [("None", 0), ("1 bit", 1), ("4 bits", 4), ("8 bits", 8)],
    "gradients": [("Fused", "fused"), ("Stack", "stack")],
    "scale_group": [("Row", "row"), ("32 weights", 32), ("64 weights", 64), ("128 weights", 128)],
    "moment_bits": [("8 bits", 8), ("4 bits", 4)],
    "matmul": [("Dequantize", "dequantize"), ("Int8", "int8")],
    "quantize": [("Linear layers", "linear"), ("All, norms too", "all")],
    "schedule": [("Cosine", "cosine"), ("Linear", "linear"), ("Constant", "constant")],
    "device": [(name, name) for name in ("auto", "cpu", "cuda")],
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


def qft_inputs() -> Inputs:
    """What a preset of QFT sets together; whatever differs from it is asked for by name."""
    with gr.Row(elem_classes="q-fields"):
        return {
            name: _choice(name) if name in CHOICES else _number(name, step=0.1)
            for name in QFT_FIELDS
        }


def fine_inputs() -> Inputs:
    """What a preset decides well enough for most."""
    with gr.Row(elem_classes="q-fields"):
        return {
            "steps": _number("steps"),
            "batch_size": _number("batch_size"),
            "grad_accumulation": _number("grad_accumulation"),
            "sequence_length": _number("sequence_length"),
            "learning_rate": _text("learning_rate"),
            "schedule": _choice("schedule"),
            "weight_decay": _number("weight_decay", step=0.01),
            "max_grad_norm": _text("max_grad_norm", placeholder="none"),
            "eval_percent": _number("eval_percent"),
            "device": _choice("device"),
            "seed": _number("seed"),
            "name": _text("name"),
        }


def _choice(name: str) -> gr.Dropdown:
    return gr.Dropdown(
        CHOICES[name],
        value=getattr(DEFAULT, name),
        label=LABELS[name],
        info=HELP[name],
        min_width=140,
        filterable=False,
    )


def _text(name: str, placeholder: str | None = None) -> gr.Textbox:
    return gr.Textbox(
        label=LABELS[name], info=HELP[name], placeholder=placeholder, max_lines=1, min_width=140
    )


def _number(name: str, step: float = 1) -> gr.Number:
    # No minimum and no precision: Gradio would answer with a toast or round in silence, and the
    # spec has a sentence for the field.
    return gr.Number(
        getattr(DEFAULT, name), label=LABELS[name], info=HELP[name], step=step, min_width=140
    )
