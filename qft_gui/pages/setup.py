"""Setup: choose a model, some data and a method; see what it costs; start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.spec import METHOD_KINDS
from qft_gui.forecasts import Forecasts
from qft_gui.form import OTHER, Form, field_names
from qft_gui.navigation import QUIETLY, Navigation, choices, go_to
from qft_gui.pages.setup_fields import HELP
from qft_gui.pages.setup_layout import SetupLayout
from qft_gui.service import Service
from qft_gui.setup_frames import Frames, setup_frames
from qft_gui.uploads import keep_upload


def build(service: Service, forecasts: Forecasts, navigation: Navigation) -> None:
    """Lay the page out and wire it."""
    page = SetupLayout(setup_frames(Form(), forecasts))
    wrong = gr.State({})
    inputs = [wrong, *page.fields]
    shown = [*page.outputs, wrong, *page.fields]

    def refresh(old: dict[str, str], *values: Any) -> list[Any]:
        return _updates(setup_frames(Form.of(*values), forecasts), old)

    def pick(event: gr.EventData, old: dict[str, str], *values: Any) -> list[Any]:
        kind = getattr(event, "kind", None)
        return refresh(old, kind if kind in METHOD_KINDS else values[0], *values[1:])

    def receive(file: str) -> tuple[Any, Any]:
        try:
            kept = keep_upload(service.runs, Path(file))
        except RequestError as error:
            return OTHER, gr.Textbox(info=error.message, visible=True)
        return OTHER, gr.Textbox(value=str(kept), visible=True)

    def begin(old: dict[str, str], *values: Any) -> list[Any]:
        form = Form.of(*values)
        now = setup_frames(form, forecasts)
        if now.waits:
            return [gr.skip(), gr.skip(), *_updates(now, old)]
        try:
            run = service.start(form.document(), form.run_name)
        except (RequestError, RequestErrors) as error:
            refused = setup_frames(form, forecasts, mistakes(error))
            return [gr.skip(), gr.skip(), *_updates(refused, old)]
        return [go_to("run"), choices(service.names(), run), *_updates(now, old)]

    changes = [field.change for field in page.fields[1:]]  # type: ignore[attr-defined]
    triggers = [*changes, page.reading.tick, navigation.blocks.load]
    gr.on(triggers, refresh, inputs, shown, trigger_mode="always_last", **QUIETLY)
    page.methods.select(pick, inputs, shown, trigger_mode="always_last", **QUIETLY)
    upload_outputs = [page.inputs["data"], page.inputs["data_path"]]
    page.upload.upload(receive, page.upload, upload_outputs, **QUIETLY)
    page.start.click(
        begin,
        inputs,
        [navigation.tabs, navigation.run, *shown],
        trigger_mode="once",
        show_progress="hidden",
        api_visibility="private",
    )


def _updates(now: Frames, old: dict[str, str]) -> list[Any]:
    """New values of all outputs; an input is touched only where something about it changed."""
    return [
        now.model,
        now.data,
        now.methods,
        now.fit,
        now.dock,
        now.command,
        gr.Button(interactive=not now.waits),
        gr.Timer(active=now.is_reading),
        now.wrong,
        *(_field_update(name, now, old) for name in field_names()),
    ]


def _field_update(name: str, now: Frames, old: dict[str, str]) -> Any:
    if name == "kind":
        return now.kind
    update: dict[str, Any] = dict(now.looks.get(name, {}))
    mistake = now.wrong.get(name)
    if name in HELP and mistake != old.get(name):
        update["info"] = mistake or HELP[name]
        update["elem_classes"] = ["q-wrong"] if mistake else []
    return gr.update(**update) if update else gr.skip()
