"""The Setup page at one moment: every fragment filled in, and what is wrong at which field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.contract.errors import RequestError
from engine.contract.method_settings import MethodKind
from engine.contract.presets import preset_of, resolve_presets
from qft_gui.applied import Applied
from qft_gui.checks import NOT_LOOKED, Look
from qft_gui.forecasts import Forecasts, Report
from qft_gui.form import CLIP_OF, LABELS, NEVER, OTHER, Form, early_mistakes, field_names, place_of
from qft_gui.fragments import render
from qft_gui.surroundings import NOTHING_KNOWN, Situation, Surroundings
from qft_gui.view import setup as view
from qft_gui.view.data import data_card, still_checking
from qft_gui.view.example import seen_card
from qft_gui.view.fit_card import fit_card
from qft_gui.view.fitting import change_lines
from qft_gui.view.method_table import method_table
from qft_gui.view.numbers import learning_rate
from qft_gui.view.sentences import sentence

START, START_ANYWAY = "Start training", "Start anyway"


@dataclass(frozen=True)
class DataState:
    """What is known of the dataset beside the form, and which of its examples is shown.

    Attributes:
        notice: Why a file was not taken.
    """

    look: Look = NOT_LOOKED
    example: int = 1
    notice: str = ""


@dataclass(frozen=True)
class Frames:
    """HTML by place, and the state of the inputs.

    Attributes:
        kind: The chosen method, whose settings are shown.
        is_changed: They are not all its own, or its preset's.
        refusal: What stands above Start while it waits, or did not start.
        start_label: What the Start button says.
        waits: Why Start waits, a sentence for every reason; empty when it does not.
        is_reading: Whether there is more to come by itself.
        wrong: Sentences by field.
        looks: Properties of inputs that follow from the other inputs.
    """

    model: str
    data: str
    seen: str
    methods: str
    preset_note: str
    kind: MethodKind
    is_changed: bool
    fit: str
    refusal: str
    dock: str
    command: str
    start_label: str
    waits: tuple[str, ...]
    is_reading: bool
    wrong: dict[str, str]
    looks: dict[str, dict[str, Any]]


def setup_frames(
    form: Form,
    forecasts: Forecasts,
    refused: tuple[RequestError, ...] = (),
    *,
    data: DataState = DataState(),
    surroundings: Surroundings | None = None,
    applied: Applied | None = None,
    notice: str = "",
) -> Frames:
    """Everything the page shows for these inputs.

    Args:
        form: The inputs' values.
        forecasts: What answers what a run would need.
        refused: Mistakes that only the engine could find.
        data: What is known of the dataset.
        surroundings: What knows what goes on meanwhile.
        applied: What the page changed to make the request fit.
        notice: What the page did by itself, in a sentence.
    """
    report = forecasts.report(form.document(), data.look)
    situation = _situation(surroundings, report, form)
    wrong = {**_by_field(report.errors, form), **early_mistakes(form)}
    waits = _start_waits(report, wrong, form)
    refusals = _by_field(refused, form)
    word = "Start waits" if waits else "Not started"
    said = {"waits": waits or _sentences(refused, refusals, form), "waits_word": word}
    fit = {**fit_card(report, situation, _applied_lines(applied, form)), **said, "notice": notice}
    data_is = (form.data_source, form.reading, data.look)
    seen = seen_card(form.data_source, data.look, data.example)
    return Frames(
        model=render("model_facts", **view.model_facts(report)),
        data=render("data_facts", **data_card(*data_is, data.notice)),
        seen=render("data_seen", **seen),
        methods=render("method_table", **method_table(report)),
        preset_note=render("preset_note", **view.preset_note(form.choice, _labels(form.changed))),
        kind=form.kind,
        is_changed=bool(form.changed),
        fit=render("fit_card", **fit),
        refusal=render("waits", **said, checking=still_checking(form.data_source, data.look)),
        dock=render("dock", **fit),
        command=render("command", **_command(form, bool(wrong or report.errors or refused))),
        start_label=START_ANYWAY if _will_not_fit(report) else START,
        waits=waits,
        is_reading=report.is_reading or data.look.is_checking or situation.is_changing,
        wrong=wrong | refusals,
        looks=_looks(form, report),
    )


def _will_not_fit(report: Report) -> bool:
    return report.chosen is not None and report.chosen.verdict == "too_large"


def _situation(surroundings: Surroundings | None, report: Report, form: Form) -> Situation:
    return surroundings.at(report.device, form.document()) if surroundings else NOTHING_KNOWN


def _applied_lines(applied: Applied | None, form: Form) -> list[dict[str, Any]]:
    """What the page changed, as long as it stands."""
    if applied is None or not applied.stands_in(form):
        return []
    return change_lines(applied.changes, applied.before_bytes, applied.before.kind)


def _command(form: Form, is_wrong: bool) -> dict[str, str]:
    if is_wrong:
        return {"spec": "", "line": ""}
    return view.command(form.document(), form.run_name)


def _looks(form: Form, report: Report) -> dict[str, dict[str, Any]]:
    return {
        "model_path": {"visible": form.model == OTHER},
        "data_path": {"visible": form.data == OTHER},
        "learning_rate": {"placeholder": _preset_rate(report)},
        "max_grad_norm": {"placeholder": _preset_norm(report)},
        **{key: {"visible": key not in form.silent} for key in CLIP_OF},
    }


def _labels(names: tuple[str, ...]) -> list[str]:
    return [LABELS[name] for name in names]


def _by_field(errors: tuple[RequestError, ...], form: Form) -> dict[str, str]:
    """Sentences by field; mistakes that belong to no field are left out."""
    places = [(place_of(error, form), sentence(error)) for error in reversed(errors)]
    return {place: text for place, text in places if place is not None}


def _start_waits(report: Report, wrong: dict[str, str], form: Form) -> tuple[str, ...]:
    """Why Start waits: a sentence for every mistake, naming its field; empty when it does not."""
    if wrong or report.errors:
        return _sentences(report.errors, wrong, form)
    return ("The model is being read.",) if report.is_reading else ()


def _sentences(
    errors: tuple[RequestError, ...], by_field: dict[str, str], form: Form
) -> tuple[str, ...]:
    """Every mistake once, in the order of the page; last what belongs to no field."""
    placed = [f"{LABELS[name]}: {by_field[name]}" for name in field_names() if name in by_field]
    homeless = [sentence(error) for error in errors if place_of(error, form) is None]
    return (*placed, *homeless)


def _preset_rate(report: Report) -> str:
    if report.spec is None or report.model is None:
        return "default"
    unset = report.spec.train.model_copy(update={"learning_rate": None})
    preset = resolve_presets(report.spec.model_copy(update={"train": unset}), report.model)
    return learning_rate(preset.train.learning_rate or 0.0)


def _preset_norm(report: Report) -> str:
    norm = preset_of(report.spec.method).max_grad_norm if report.spec else None
    return NEVER if norm is None else f"{norm:g}"
