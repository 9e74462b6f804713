"""What the Setup page answers: to a change of its inputs, a tick, and its buttons."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import gradio as gr

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.method_settings import METHOD_KINDS
from engine.contract.presets import METHOD_CHOICES
from qft_gui.applied import applied
from qft_gui.forecasts import Forecasts
from qft_gui.form import LEFT_TO_METHOD, Form, input_names
from qft_gui.navigation import choices, go_to
from qft_gui.pages.data_desk import DataDesk
from qft_gui.pages.picked import Picked
from qft_gui.pages.setup_fields import HELP, own_text
from qft_gui.pages.setup_layout import settings_title
from qft_gui.service import Service
from qft_gui.setup_frames import START, Frames, setup_frames
from qft_gui.spec_fields import SETTING_FIELDS, settings_of
from qft_gui.surroundings import Surroundings
from qft_gui.view.methods import choice_name


class Desk:
    """What the page's inputs and its buttons do."""

    def __init__(self, service: Service, forecasts: Forecasts, data: DataDesk) -> None:
        self._service = service
        self._forecasts = forecasts
        self._data = data
        self._surroundings = Surroundings(service.live_run)

    def refresh(self, old: dict[str, str], picked: Picked, *values: Any) -> Any:
        """The page for what the inputs hold now; nothing if something was picked meanwhile."""
        stamp = picked.stamp()
        listing = self._data.new_choices(picked)
        updates = _updates(self._frames(picked.form(*values), picked, listing=listing), old)
        return updates if picked.stamp() == stamp else gr.skip()

    def pick(
        self, event: gr.EventData, old: dict[str, str], picked: Picked, *values: Any
    ) -> list[Any]:
        """Another method was ticked in the table: it sets its own fields."""
        form = picked.form(*values)
        names: tuple[str, ...] = ()
        picked.notice = ""
        for choice in METHOD_CHOICES:
            if choice.key == getattr(event, "choice", None):
                # Another method starts from what the person set, not from what made this one fit.
                form, names = _given_back(form, picked)
                form = form.with_method(*choice)
        return self._filled_in(form, old, picked, (*names, *_values_of_method(form)))

    def to_preset(self, old: dict[str, str], picked: Picked, *values: Any) -> list[Any]:
        """The fields of the method go back to what it, or its preset, sets."""
        form = picked.form(*values)
        form = form.with_method(*form.choice)
        return self._filled_in(form, old, picked, _values_of_method(form))

    def act(
        self, event: gr.EventData, old: dict[str, str], picked: Picked, *values: Any
    ) -> list[Any]:
        """A button of the fit card: change settings so that it fits, take that back, or try it."""
        form, wish = picked.form(*values), getattr(event, "act", None)
        picked.notice = ""
        filled: tuple[str, ...] = ()
        if wish == "try":
            self._surroundings.try_steps(form.document())
        elif wish == "cancel":
            self._surroundings.trials.cancel()
        elif wish == "undo" and picked.applied and picked.applied.stands_in(form):
            form, filled = picked.applied.undone(form), picked.applied.touched
            picked.applied = None
        elif wish in ("fit", "apply"):
            change = getattr(event, "change", None) if wish == "apply" else None
            fitting = self._forecasts.report(form.document()).fitting
            picked.applied = applied(form, fitting, change, picked.applied)
            if picked.applied:
                form, filled = picked.applied.after, picked.applied.touched
        return self._filled_in(form, old, picked, filled)

    def act_on_data(
        self, event: gr.EventData, old: dict[str, str], picked: Picked, *values: Any
    ) -> Any:
        """A button or a field of the data card; nothing if another one was used meanwhile."""
        form, filled = self._data.act(event, picked.form(*values), picked)
        stamp = picked.stamp()
        updates = self._filled_in(form, old, picked, filled)
        return updates if picked.stamp() == stamp else gr.skip()

    def _filled_in(
        self, form: Form, old: dict[str, str], picked: Picked, names: Iterable[str]
    ) -> list[Any]:
        """The page, with values written into inputs."""
        picked.choice = (form.kind, form.preset)
        return _updates(self._frames(form, picked), old, form, frozenset(names))

    def _frames(
        self,
        form: Form,
        picked: Picked,
        refused: tuple[RequestError, ...] = (),
        listing: dict[str, Any] | None = None,
    ) -> Frames:
        now = setup_frames(
            form,
            self._forecasts,
            refused,
            data=self._data.state(form, picked),
            surroundings=self._surroundings,
            applied=picked.applied,
            notice=picked.notice,
        )
        return replace(now, looks={**now.looks, "data": listing}) if listing else now

    def begin(self, old: dict[str, str], picked: Picked, *values: Any) -> list[Any]:
        """Start the run and show it, or say why not."""
        form = picked.form(*values)
        now = self._frames(form, picked)
        stay = [gr.skip(), gr.skip()]
        if now.waits:
            return [*stay, *_updates(now, old)]
        self._surroundings.trials.cancel()
        self._data.checks.cancel()
        try:
            run = self._service.start(form.document(), form.run_name)
        except (RequestError, RequestErrors) as error:
            refused = self._frames(form, picked, mistakes(error))
            return [*stay, *_updates(refused, old)]
        return [go_to("run"), choices(self._service.names(), run), *_updates(now, old)]


def _given_back(form: Form, picked: Picked) -> tuple[Form, tuple[str, ...]]:
    """Take back what was changed to make the method fit; the form, and the inputs written into."""
    was, picked.applied = picked.applied, None
    if was is None or not (names := was.standing(form)):
        return form, ()
    picked.notice = f"What made {choice_name(was.after.choice)} fit was taken back."
    return was.undone(form), names


def _values_of_method(form: Form) -> tuple[str, ...]:
    """The inputs that a choice of the method writes into."""
    return (*(one.key for one in settings_of(form.kind)), *LEFT_TO_METHOD)


def _updates(
    now: Frames, old: dict[str, str], form: Form | None = None, names: Collection[str] = ()
) -> list[Any]:
    """New values of all outputs; an input is touched only where something about it changed.

    Args:
        now: What the page shows.
        old: The mistakes that it showed before.
        form: Holds what is written into inputs.
        names: The inputs that are written into.
    """
    written = {name: form.value(name) for name in names} if form else {}
    # Only a choice of the method changes whose settings are shown.
    settings = [
        gr.Accordion(settings_title(now.kind)),
        *(gr.Row(visible=kind == now.kind) for kind in METHOD_KINDS),
    ]
    return [
        now.model,
        now.data,
        now.seen,
        now.methods,
        *(settings if form else [gr.skip()] * len(settings)),
        now.preset_note,
        gr.Button(visible=now.is_changed),
        now.fit,
        now.refusal,
        now.dock,
        now.command,
        gr.Button(
            now.start_label,
            interactive=not now.waits,
            variant="primary" if now.start_label == START else "secondary",
        ),
        gr.Timer(active=now.is_reading),
        now.wrong,
        *(_field_update(name, now, old, form, written) for name in input_names()),
    ]


def _field_update(
    name: str, now: Frames, old: dict[str, str], form: Form | None, written: dict[str, Any]
) -> Any:
    update: dict[str, Any] = dict(now.looks.get(name, {}))
    if name in written:
        update["value"] = written[name]
        setting = SETTING_FIELDS.get(name)
        if form and setting and not setting.choices:
            update["placeholder"] = own_text(form, name)
    mistake = now.wrong.get(name)
    if name in HELP and mistake != old.get(name):
        update["info"] = mistake or HELP[name]
        update["elem_classes"] = ["q-wrong"] if mistake else []
    return gr.update(**update) if update else gr.skip()
