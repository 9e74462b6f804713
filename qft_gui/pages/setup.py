"""Setup: choose a model, some data and a method; see what it costs; start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.method_settings import METHOD_KINDS
from engine.contract.presets import METHOD_CHOICES
from qft_gui.forecasts import Forecasts
from qft_gui.form import LEFT_TO_METHOD, OTHER, Form, input_names
from qft_gui.navigation import QUIETLY, Navigation, choices, go_to
from qft_gui.pages.setup_fields import HELP, own_text
from qft_gui.pages.setup_layout import SetupLayout, settings_title
from qft_gui.service import Service
from qft_gui.setup_frames import Frames, setup_frames
from qft_gui.spec_fields import SETTING_FIELDS
from qft_gui.uploads import keep_upload
from qft_gui.view.setup import sentence


def build(service: Service, forecasts: Forecasts, navigation: Navigation) -> None:
    """Lay the page out and wire it."""
    page, desk = SetupLayout(setup_frames(Form(), forecasts)), _Desk(service, forecasts)
    wrong, picked = gr.State({}), gr.State(_Picked())
    inputs, shown = [wrong, picked, *page.fields], [*page.outputs, wrong, *page.fields]
    latest = {**QUIETLY, "trigger_mode": "always_last"}
    triggers = [*_changes(page), page.reading.tick, navigation.blocks.load]
    gr.on(triggers, desk.refresh, inputs, shown, **latest)
    page.methods.select(desk.pick, inputs, shown, **latest)
    page.to_preset.click(desk.to_preset, inputs, shown, **latest)
    file_fields = [page.inputs["data"], page.inputs["data_path"]]
    page.upload.upload(desk.receive, page.upload, file_fields, **QUIETLY)
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


class _Picked:
    """The row of the method table that is ticked in one window.

    Answers pass each other: what was asked before another row was ticked may be answered after
    it. So this is no input whose value travels with the question, but one object of the window's.
    """

    def __init__(self) -> None:
        self.choice: tuple[Any, Any] = (Form.kind, Form.preset)


class _Desk:
    """What the page's inputs and its button do."""

    def __init__(self, service: Service, forecasts: Forecasts) -> None:
        self._service = service
        self._forecasts = forecasts

    def refresh(self, old: dict[str, str], picked: _Picked, *values: Any) -> Any:
        """The page for what the inputs hold now; nothing if another method was ticked meanwhile."""
        choice = picked.choice
        updates = _updates(setup_frames(Form.of(*choice, *values), self._forecasts), old)
        return updates if picked.choice is choice else gr.skip()

    def pick(
        self, event: gr.EventData, old: dict[str, str], picked: _Picked, *values: Any
    ) -> list[Any]:
        """Another method was ticked in the table: it sets its own fields."""
        form = Form.of(*picked.choice, *values)
        for choice in METHOD_CHOICES:
            if choice.key == getattr(event, "choice", None):
                form = form.with_method(*choice)
        picked.choice = (form.kind, form.preset)
        return _updates(setup_frames(form, self._forecasts), old, chosen=form)

    def to_preset(self, old: dict[str, str], picked: _Picked, *values: Any) -> list[Any]:
        """The fields of the method go back to what it, or its preset, sets."""
        form = Form.of(*picked.choice, *values)
        form = form.with_method(*form.choice)
        return _updates(setup_frames(form, self._forecasts), old, chosen=form)

    def receive(self, file: str) -> tuple[str, Any]:
        """A dataset was uploaded."""
        try:
            kept = keep_upload(self._service.runs, Path(file))
        except RequestError as error:
            return OTHER, gr.Textbox(info=sentence(error), visible=True)
        return OTHER, gr.Textbox(value=str(kept), visible=True)

    def begin(self, old: dict[str, str], picked: _Picked, *values: Any) -> list[Any]:
        """Start the run and show it, or say why not."""
        form = Form.of(*picked.choice, *values)
        now = setup_frames(form, self._forecasts)
        stay = [gr.skip(), gr.skip()]
        if now.waits:
            return [*stay, *_updates(now, old)]
        try:
            run = self._service.start(form.document(), form.run_name)
        except (RequestError, RequestErrors) as error:
            refused = setup_frames(form, self._forecasts, mistakes(error))
            return [*stay, *_updates(refused, old)]
        return [go_to("run"), choices(self._service.names(), run), *_updates(now, old)]


def _updates(now: Frames, old: dict[str, str], chosen: Form | None = None) -> list[Any]:
    """New values of all outputs; an input is touched only where something about it changed.

    Args:
        now: What the page shows.
        old: The mistakes that it showed before.
        chosen: The form after a choice of the method, whose settings go into the fields.
    """
    return [
        now.model,
        now.data,
        now.methods,
        gr.Accordion(settings_title(now.kind)),
        *(gr.Row(visible=kind == now.kind) for kind in METHOD_KINDS),
        now.preset_note,
        gr.Button(visible=now.is_changed),
        now.fit,
        now.dock,
        now.command,
        gr.Button(interactive=not now.waits),
        gr.Timer(active=now.is_reading),
        now.wrong,
        *(_field_update(name, now, old, chosen) for name in input_names()),
    ]


def _field_update(name: str, now: Frames, old: dict[str, str], chosen: Form | None) -> Any:
    update: dict[str, Any] = dict(now.looks.get(name, {}))
    setting = SETTING_FIELDS.get(name)
    if chosen and setting and setting.kind == chosen.kind:
        update["value"] = chosen.value(name)
        if not setting.choices:
            update["placeholder"] = own_text(chosen, name)
    elif chosen and name in LEFT_TO_METHOD:
        update["value"] = chosen.value(name)
    mistake = now.wrong.get(name)
    if name in HELP and mistake != old.get(name):
        update["info"] = mistake or HELP[name]
        update["elem_classes"] = ["q-wrong"] if mistake else []
    return gr.update(**update) if update else gr.skip()
