"""Facts beside the inputs of the Setup page: the model, the preset, the command."""

from __future__ import annotations

from typing import Any

import yaml

from engine.contract.bundled import catalogue
from engine.contract.presets import MethodChoice
from qft_gui.forecasts import Report
from qft_gui.view.methods import choice_name
from qft_gui.view.numbers import MISSING, parameters


def preset_note(choice: MethodChoice, changed: list[str]) -> dict[str, Any]:
    """Whether a method's settings are its own, or its preset's, and which are not."""
    return {"name": choice_name(choice), "changed": ", ".join(changed)}


def model_facts(report: Report) -> dict[str, Any]:
    """Size and origin of the chosen model."""
    model, shape = report.model, report.shape
    if model is None:
        return {"known": False}
    known = catalogue().get(model.name) if model.kind == "catalogue" else None
    notes = {
        "starter": "Comes with the app. Small, but it learns a new style in a minute.",
        "catalogue": "Its weights are downloaded from the hub when training starts.",
        "hub": "It is downloaded from the hub when training starts.",
        "folder": "On this computer. No download needed.",
    }
    size = shape.num_parameters if shape else known.num_parameters if known else None
    return {
        "known": True,
        "size": parameters(size) if size else MISSING,
        "vocabulary": f"{shape.vocab_size:,}" if shape else MISSING,
        "note": notes[model.kind],
        "is_reading": report.is_reading,
    }


def command(document: dict[str, Any], name: str | None) -> dict[str, str]:
    """The same run from a terminal."""
    named = f" --name {name}" if name else ""
    return {
        "spec": yaml.safe_dump(document, sort_keys=False, allow_unicode=True).strip(),
        "line": f"python -m engine run spec.yaml{named}",
    }
