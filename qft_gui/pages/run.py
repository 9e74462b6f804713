"""Run: what the training does now, and the few things that can be done about it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from engine.contract.errors import RequestError, RequestErrors, mistakes
from qft_gui.fragments import render
from qft_gui.navigation import QUIETLY, Navigation, choices, go_to
from qft_gui.pages.run_layout import NO_RUN, RunLayout
from qft_gui.service import Service
from qft_gui.view import run as view
from qft_gui.view.setup import sentence


def build(service: Service, navigation: Navigation, plotly_url: str) -> None:
    """Lay the page out and wire it."""
    page = RunLayout(service, navigation, plotly_url)
    last = gr.State("")
    clock = gr.Timer(1)

    def look(name: str | None, seen: str) -> list[Any]:
        """Everything about a run; nothing if nothing happened since."""
        stamp = _stamp(service, name)
        if stamp == seen:
            return [gr.skip() for _ in page.outputs] + [seen]
        return [*_updates(service, name), stamp]

    def attach() -> Any:
        """On every page load: the live run, else the newest."""
        names = service.names()
        live = service.live_run()
        chosen = live or (names[0] if names else None)
        return choices(names, chosen), go_to("run") if live else gr.skip()

    def stop(name: str | None) -> str:
        return _said(lambda: service.stop(name))

    def resume(name: str | None) -> str:
        return _said(lambda: service.resume(name))

    def discard(name: str | None) -> tuple[str, Any, Any]:
        said = _said(lambda: service.discard(name))
        left = [other for other in service.names() if other != name]
        return said, gr.Column(visible=False), choices(left, left[0] if left else None)

    def ask_first(name: str) -> tuple[Any, str]:
        return gr.Column(visible=True), render("confirm", name=name)

    navigation.blocks.load(attach, None, [navigation.run, navigation.tabs], **QUIETLY)
    gr.on(
        [clock.tick, navigation.run.change],
        look,
        [navigation.run, last],
        [*page.outputs, last],
        **QUIETLY,
    )
    navigation.run.change(lambda name: gr.HTML(run=name), navigation.run, page.charts, **QUIETLY)
    page.stop.click(stop, navigation.run, page.said, **QUIETLY)
    page.resume.click(resume, navigation.run, page.said, trigger_mode="once", **QUIETLY)
    page.discard.click(ask_first, navigation.run, [page.confirm, page.question], **QUIETLY)
    page.keep.click(lambda: gr.Column(visible=False), None, page.confirm, **QUIETLY)
    page.delete.click(discard, navigation.run, [page.said, page.confirm, navigation.run], **QUIETLY)
    for button, mode in ((page.talk, "tuned"), (page.compare, "both")):
        button.click(
            lambda name, mode=mode: (go_to("compare"), choices(_ready(service), name), mode),
            navigation.run,
            [navigation.tabs, navigation.compared, navigation.chat_mode],
            **QUIETLY,
        )


def _ready(service: Service) -> list[str]:
    return [snapshot.name for snapshot in service.snapshots() if snapshot.has_export]


def _stamp(service: Service, name: str | None) -> str:
    """Changes whenever the page would: the run, its status, and how much of its log is read."""
    try:
        now = service.snapshot(name)
    except (RequestError, FileNotFoundError):
        return f"{name}: gone"
    return f"{now.name}: {now.status.status} {now.curves.seen} {now.has_export}"


def _updates(service: Service, name: str | None) -> list[Any]:
    hidden = gr.Button(visible=False)
    try:
        now = service.snapshot(name)
    except (RequestError, FileNotFoundError):
        nothing = [render(NO_RUN), "", render("replies", items=[]), render("announce", text="")]
        return [*nothing, hidden, hidden, hidden, gr.Row(visible=False), gr.skip()]
    failed = view.failure(now)
    return [
        render("run_head", **view.run_head(now)),
        render("failure", **failed) if failed else "",
        render("replies", **view.replies(now)),
        render("announce", text=view.announcement(now)),
        gr.Button(visible=not now.is_over, interactive=now.status.status != "stopping"),
        gr.Button(visible=now.is_resumable),
        gr.Button(visible=True),
        gr.Row(visible=now.is_over and now.has_export),
        # One filled button a page: where Resume is offered, that is the one.
        gr.Button(variant="secondary" if now.is_resumable else "primary"),
    ]


def _said(act: Any) -> str:
    """Run an action; what is in its way becomes one sentence on the page."""
    try:
        act()
    except (RequestError, RequestErrors) as error:
        return render("sentence", tone="bad", text=sentence(mistakes(error)[0]))
    return ""
