"""The inputs of the Setup page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gradio as gr

from engine.contract.bundled import catalogue, sample_datasets
from engine.contract.method_settings import MethodKind
from engine.contract.spec import TrainSpec
from qft_gui.form import LABELS, NEVER, OTHER, Form
from qft_gui.fragments import render
from qft_gui.own_datasets import MAX_UPLOAD_BYTES, OwnDataset
from qft_gui.spec_fields import (
    SETTING_FIELDS,
    Choice,
    SettingField,
    choices_of,
    own_settings,
    settings_of,
)
from qft_gui.view.data import size
from qft_gui.view.numbers import parameters

Inputs = dict[str, Any]
DEFAULT = Form()
_TRAIN = TrainSpec.model_fields
CHOICES: dict[str, tuple[Choice, ...]] = {
    **{key: setting.choices for key, setting in SETTING_FIELDS.items() if setting.choices},
    **{
        name: choices_of(_TRAIN[name], name)
        for name in ("batching", "schedule", "activation_checkpointing")
    },
    "device": (("Auto", "auto"), ("CPU", "cpu"), ("CUDA", "cuda")),
}
HELP: dict[str, str] = {
    "model_path": "A folder on this computer, or an id such as owner/name.",
    "data_path": "The whole path of a file on this computer, or a hub id such as owner/name.",
    **{key: setting.help for key, setting in SETTING_FIELDS.items()},
    "steps": "Updates of the weights.",
    "batch_size": "Rows in a batch.",
    "batching": "Grouped: chats of like length. Packed: several chats joined into one row. "
    "Shuffled: neither.",
    "grad_accumulation": "Batches that make one update.",
    "sequence_length": "Longest chat, in tokens.",
    "learning_rate": "Size of an update. Empty: the method's own.",
    "schedule": "How the rate falls over the run.",
    "weight_decay": "Pull of the weights to zero.",
    "max_grad_norm": f"Clip a longer gradient. Empty: the method's own; {NEVER}: never.",
    "activation_checkpointing": "Less memory, a third slower. Auto: only if need be.",
    "eval_percent": "Rows kept apart to measure progress.",
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


def data_choices(own: Iterable[OwnDataset] = ()) -> list[tuple[str, str]]:
    """Samples, one's own datasets with the newest first, and whatever else there is."""
    samples = [
        (f"{sample.title} · {sample.description}", name)
        for name, sample in sample_datasets().items()
    ]
    files = [(f"{one.path.name} · {size(one.size_bytes)}", str(one.path)) for one in own]
    return [*samples, *files, ("A path or a hub id…", OTHER)]


def data_inputs() -> Inputs:
    """Which chats: a sample, a file of one's own folder, or one that is named."""
    return {
        # A file may be added while the page is open, so any value is taken; the engine checks it.
        "data": gr.Dropdown(
            data_choices(),
            value=DEFAULT.data,
            label=LABELS["data"],
            show_label=False,
            container=False,
            allow_custom_value=True,
            elem_classes="q-data-choice",
        ),
        "data_path": gr.Textbox(
            label=LABELS["data_path"], info=HELP["data_path"], visible=False, max_lines=1
        ),
    }


def upload_button() -> gr.UploadButton:
    """Takes any file: what it is, its content tells."""
    return gr.UploadButton("Choose a file…", elem_classes="q-quiet q-left", min_width=120)


def drop_text(folder: Path) -> str:
    """What stands beside the button that takes files."""
    return render("data_drop", limit=f"{MAX_UPLOAD_BYTES >> 20} MB", folder=str(folder))


def method_inputs(kind: MethodKind, *, is_shown: bool) -> tuple[gr.Row, Inputs]:
    """All that one method can be told; whatever is not its own is asked for by name."""
    with gr.Row(elem_classes="q-fields q-wide-fields", visible=is_shown) as row:
        return row, {setting.key: _setting(setting) for setting in settings_of(kind)}


def fine_inputs() -> Inputs:
    """What a preset decides well enough for most."""
    with gr.Row(elem_classes="q-fields"):
        return {
            "steps": _number("steps"),
            "batch_size": _number("batch_size"),
            "batching": _choice("batching"),
            "grad_accumulation": _number("grad_accumulation"),
            "sequence_length": _number("sequence_length"),
            "learning_rate": _text("learning_rate"),
            "schedule": _choice("schedule"),
            "weight_decay": _number("weight_decay", step=0.01),
            "max_grad_norm": _text("max_grad_norm", placeholder=NEVER),
            "activation_checkpointing": _choice("activation_checkpointing"),
            "eval_percent": _number("eval_percent"),
            "device": _choice("device"),
            "seed": _number("seed"),
            "name": _text("name"),
        }


def own_text(form: Form, name: str) -> str:
    """What an emptied field stands for: the method's own, or what the form began with."""
    own = own_settings(*form.choice)
    value = own[name] if name in own else DEFAULT.value(name)
    return value if isinstance(value, str) else f"{value:g}"


def _setting(setting: SettingField) -> Any:
    if setting.choices:
        return _choice(setting.key)
    if setting.is_text:
        return _text(setting.key, placeholder=own_text(DEFAULT, setting.key))
    return _number(setting.key, step=1 if setting.is_whole else 0.1)


def _choice(name: str) -> gr.Dropdown:
    return gr.Dropdown(
        CHOICES[name],
        value=DEFAULT.value(name),
        label=LABELS[name],
        info=HELP[name],
        min_width=140,
        filterable=False,
    )


def _text(name: str, placeholder: str | None = None) -> gr.Textbox:
    return gr.Textbox(
        DEFAULT.value(name),
        label=LABELS[name],
        info=HELP[name],
        placeholder=placeholder,
        max_lines=1,
        min_width=140,
    )


def _number(name: str, step: float = 1) -> gr.Number:
    # No minimum and no precision: Gradio would answer with a toast or round in silence, and the
    # spec has a sentence for the field.
    return gr.Number(
        DEFAULT.value(name),
        label=LABELS[name],
        info=HELP[name],
        placeholder=own_text(DEFAULT, name),
        visible=name not in DEFAULT.silent,
        step=step,
        min_width=140,
    )
