"""X-ray: distributions, outliers and the cost of 8 bits, of a model or a run."""

from __future__ import annotations

from typing import Any

import gradio as gr

from engine.contract.errors import RequestError
from qft_gui.form import OTHER
from qft_gui.fragments import render
from qft_gui.navigation import QUIETLY, Navigation
from qft_gui.pages.xray_layout import OTHER_CHOICE, OWN, STARTER_CHOICE, XrayLayout
from qft_gui.service import Service
from qft_gui.view import xray as view
from qft_gui.view.sentences import sentence
from qft_gui.xrays import Job, Wish, XrayAnswer, Xrays

RUN = "run:"
FORGOTTEN = "This X-ray is no longer in memory; take it again."


def build(
    service: Service, xrays: Xrays, navigation: Navigation, tab: gr.Tab, plotly_url: str
) -> None:
    """Lay the page out and wire it."""
    page, desk = XrayLayout(plotly_url), _Desk(service, xrays)
    key = gr.State("")
    wishes = [page.target, page.target_path, page.data, page.data_path]
    shown = [page.head, page.kind, page.part, page.charts, page.table]
    outputs = [page.said, page.clock, page.cancel, page.body, *shown]
    chosen = [key, page.kind, page.part]
    gr.on([tab.select, navigation.blocks.load], desk.offer, page.target, page.target, **QUIETLY)
    page.target.change(_is_other, page.target, page.target_path, **QUIETLY)
    page.data.change(_is_other, page.data, page.data_path, **QUIETLY)
    typed = [page.target_path.submit, page.data_path.submit]
    gr.on(
        [page.take.click, *typed],
        desk.take,
        [*wishes, page.kind, page.part],
        [key, *outputs],
        **QUIETLY,
    )
    page.clock.tick(desk.look, chosen, outputs, **QUIETLY)
    page.cancel.click(desk.cancel, key, [page.said, page.clock, page.cancel], **QUIETLY)
    gr.on(
        [page.kind.input, page.part.input],
        desk.show,
        chosen,
        [page.said, page.charts, page.table],
        **QUIETLY,
    )


class _Desk:
    """What the page's inputs and its buttons do."""

    def __init__(self, service: Service, xrays: Xrays) -> None:
        self._service = service
        self._xrays = xrays

    def offer(self, chosen: str | None) -> Any:
        """The starter, all runs, and whatever else a person names."""
        runs = [(f"Run · {name}", RUN + name) for name in self._service.names()]
        choices = [STARTER_CHOICE, *runs, OTHER_CHOICE]
        kept = chosen if chosen in {value for _, value in choices} else "starter"
        return gr.Dropdown(choices=choices, value=kept)

    def take(
        self,
        target: str | None,
        target_path: str | None,
        data: str | None,
        data_path: str | None,
        *chosen: str | None,
    ) -> list[Any]:
        """Begin, and show what is known already."""
        try:
            wish = self._wish(target, target_path or "", data, data_path or "")
        except RequestError as error:
            return ["", *_problem(sentence(error))]
        key = self._xrays.take(wish)
        return [key, *self.look(key, *chosen)]

    def look(self, key: str, kind: str | None = None, part: str | None = None) -> list[Any]:
        """The page for what is known of an X-ray now."""
        job = self._xrays.look(key)
        if job is None or job.is_cancelled:
            return _problem(FORGOTTEN)
        if job.error is not None:
            return _problem(sentence(job.error))
        if job.answer is None:
            return _waiting(job)
        return ["", *_over(), gr.Column(visible=True), *_answered(job.answer, kind, part)]

    def cancel(self, key: str) -> list[Any]:
        """End its engine."""
        self._xrays.cancel(key)
        return [render("sentence", tone="plain", text="The X-ray is cancelled."), *_over()]

    def show(self, key: str, kind: str | None, part: str | None) -> list[Any]:
        """Another kind of tensor, or another matrix."""
        job = self._xrays.look(key)
        if job is None or job.answer is None:
            return [render("sentence", tone="plain", text=FORGOTTEN), gr.skip(), gr.skip()]
        return ["", *_drawn(job.answer, *_known(job.answer, kind, part))]

    def _wish(self, target: str | None, target_path: str, data: str | None, data_path: str) -> Wish:
        source = data_path.strip() if data == OTHER else data
        if source == "":
            raise RequestError("data.source", "no file is named.", "Type its whole path.")
        chosen = None if source in (None, OWN) else source
        if target and target.startswith(RUN):
            name = target.removeprefix(RUN)
            if name not in self._service.names():
                raise RequestError("run", "there is no such run.", "It may have been deleted.")
            return Wish(str(self._service.runs / name), chosen)
        model = target_path.strip() if target == OTHER else target
        if not model:
            raise RequestError("model.source", "no model is named.", "Type a folder or a hub id.")
        return Wish(model, chosen)


def _is_other(value: str | None) -> Any:
    return gr.Textbox(visible=value == OTHER)


def _over() -> list[Any]:
    """Nothing more will come: the clock rests, and there is nothing to cancel."""
    return [gr.Timer(active=False), gr.Button(visible=False)]


def _problem(why: str) -> list[Any]:
    """One sentence, and whatever was shown before stays."""
    said = render("sentence", tone="bad", text=why)
    return [said, *_over(), *[gr.skip() for _ in range(6)]]


def _waiting(job: Job) -> list[Any]:
    said = render("xray_wait", phase=job.phase.capitalize(), seconds=job.seconds)
    running = [gr.Timer(active=True), gr.Button(visible=True)]
    return [said, *running, gr.Column(visible=False), *[gr.skip() for _ in range(5)]]


def _answered(answer: XrayAnswer, kind: str | None, part: str | None) -> list[Any]:
    kind, part = _known(answer, kind, part)
    return [
        render("xray_head", **view.head(answer)),
        gr.Radio(choices=view.kind_choices(answer), value=kind),
        gr.Dropdown(choices=view.part_choices(answer), value=part),
        *_drawn(answer, kind, part),
    ]


def _known(answer: XrayAnswer, kind: str | None, part: str | None) -> tuple[str, str]:
    """What was chosen, as far as this answer has it."""
    kinds = [value for _, value in view.kind_choices(answer)]
    parts = [value for _, value in view.part_choices(answer)]
    return (
        kind if kind in kinds else kinds[0],
        part if part in parts else view.ALL,
    )


def _drawn(answer: XrayAnswer, kind: str, part: str) -> list[Any]:
    figure = view.figure(answer, kind, part)
    return [
        gr.HTML(figure={**figure, "readings": view.readings(answer, kind, part)}),
        render("xray_table", **view.table(answer, kind, part)),
    ]
