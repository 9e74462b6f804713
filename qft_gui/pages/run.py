"""Run: what the training does now, and the few things that can be done about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from engine.contract.errors import RequestError, RequestErrors, mistakes
from qft_gui.chat_room import ChatRoom
from qft_gui.fragments import render
from qft_gui.navigation import QUIETLY, Navigation, choices, go_to
from qft_gui.pages.run_layout import NO_RUN, RunLayout
from qft_gui.service import Service
from qft_gui.view import run as view
from qft_gui.view.memory import memory_terms
from qft_gui.view.metrics import step_metrics
from qft_gui.view.sentences import sentence


def build(service: Service, room: ChatRoom, navigation: Navigation, plotly_url: str) -> None:
    """Lay the page out and wire it."""
    page = RunLayout(service, navigation, plotly_url)
    actions = _Actions(service, room)
    last = gr.State("")
    clock = gr.Timer(1)
    picker = navigation.run

    def look(name: str | None, seen: str) -> list[Any]:
        """Everything about a run; nothing if nothing happened since."""
        stamp = _stamp(service, name)
        if stamp == seen:
            return [gr.skip() for _ in page.outputs] + [seen]
        return [*_updates(service, name), stamp]

    navigation.blocks.load(actions.attach, None, [picker, navigation.tabs], **QUIETLY)
    gr.on([clock.tick, picker.change], look, [picker, last], [*page.outputs, last], **QUIETLY)
    picker.change(lambda name: gr.HTML(run=name), picker, page.charts, **QUIETLY)
    page.stop.click(actions.stop, picker, page.said, **QUIETLY)
    page.resume.click(actions.resume, picker, page.said, trigger_mode="once", **QUIETLY)
    page.discard.click(_ask_first, picker, [page.confirm, page.question], **QUIETLY)
    page.keep.click(lambda: gr.Column(visible=False), None, page.confirm, **QUIETLY)
    page.delete.click(actions.discard, picker, [page.said, page.confirm, picker], **QUIETLY)
    to_chat = [navigation.tabs, navigation.talk]
    page.talk.click(partial(actions.chat, "alone"), picker, to_chat, **QUIETLY)
    page.compare.click(partial(actions.chat, "both"), picker, to_chat, **QUIETLY)


class _Actions:
    """What the page's buttons do."""

    def __init__(self, service: Service, room: ChatRoom) -> None:
        self._service = service
        self._room = room

    def attach(self) -> tuple[Any, Any]:
        """On every page load: the live run, else the newest."""
        names = self._service.names()
        live = self._service.live_run()
        chosen = live or (names[0] if names else None)
        return choices(names, chosen), go_to("run") if live else gr.skip()

    def stop(self, name: str | None) -> str:
        """Stop after this step and keep what it learned."""
        return _said(lambda: self._service.stop(name))

    def resume(self, name: str | None) -> str:
        """Go on after the last checkpoint."""
        return _said(lambda: self._service.resume(name))

    def discard(self, name: str | None) -> tuple[str, Any, Any]:
        """Delete the run, and show another one."""
        said = _said(lambda: self._discard(name))
        if said:
            return said, gr.Column(visible=False), gr.skip()
        left = [other for other in self._service.names() if other != name]
        return said, gr.Column(visible=False), choices(left, left[0] if left else None)

    def _discard(self, name: str | None) -> None:
        self._room.let_go(self._service.runs / (name or ""))
        self._service.discard(name)

    def chat(self, mode: str, name: str | None) -> tuple[Any, dict[str, Any]]:
        """Talk to what the run became, alone or beside what it was."""
        return go_to("compare"), {"run": name, "mode": mode, "at": time.time_ns()}


def _ask_first(name: str | None) -> tuple[Any, str]:
    return gr.Column(visible=True), render("confirm", name=name)


def _stamp(service: Service, name: str | None) -> str:
    """Changes whenever the page would: the run, its status, and how much of its log is read."""
    try:
        now = service.snapshot(name)
    except (RequestError, FileNotFoundError):
        return f"{name}: gone"
    status = now.status.status
    return f"{now.name}: {status} {now.curves.seen} {now.has_export} {now.attempt} {now.notice}"


def _updates(service: Service, name: str | None) -> list[Any]:
    hidden = gr.Button(visible=False)
    try:
        now = service.snapshot(name)
    except (RequestError, FileNotFoundError):
        empty = [render("replies", items=[]), render("announce", text="")]
        nothing = [render(NO_RUN), "", "", "", *empty]
        return [*nothing, *[hidden] * 5]
    failed = view.failure(now)
    is_ready = now.is_over and now.has_export
    return [
        render("run_head", **view.run_head(now)),
        render("failure", **failed) if failed else "",
        render("metrics", **step_metrics(now)),
        render("memory_terms", **memory_terms(now)),
        render("replies", **view.replies(now)),
        render("announce", text=view.announcement(now)),
        gr.Button(visible=not now.is_over, interactive=now.status.status != "stopping"),
        gr.Button(visible=now.is_resumable),
        # One filled button a page: where Resume is offered, that is the one.
        gr.Button(visible=is_ready, variant="secondary" if now.is_resumable else "primary"),
        gr.Button(visible=is_ready),
        gr.Button(visible=True),
    ]


def _said(act: Callable[[], None]) -> str:
    """Run an action; what is in its way becomes one sentence on the page."""
    try:
        act()
    except (RequestError, RequestErrors) as error:
        return render("sentence", tone="bad", text=sentence(mistakes(error)[0]))
    return ""
