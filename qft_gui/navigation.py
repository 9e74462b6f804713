"""What pages share: the tabs, which run each of them shows, and how events are wired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

Page = Literal["setup", "run", "compare", "xray", "runs"]
# One short request, no queue, no flicker, and no entry in the API's description.
QUIETLY: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}


@dataclass(frozen=True)
class Navigation:
    """The handles that lead from one page to another.

    Attributes:
        talk: Which run is to be talked to, and how: `run`, `mode` and `at`, the moment of the wish.
    """

    blocks: gr.Blocks
    tabs: gr.Tabs
    run: gr.Dropdown
    talk: gr.State


def run_picker(elem_id: str) -> gr.Dropdown:
    """A dropdown of runs that takes any name; the service checks it.

    A page that outlived the app still shows a run that this process never offered, and Gradio
    would refuse it before anyone could look it up. No subclass: Gradio writes a stub file beside
    the module of every component class. An update makes a new instance of the component, so what
    may be picked is said in the constructor too.
    """
    picker = gr.Dropdown([], label="Run", elem_id=elem_id, allow_custom_value=True, render=False)
    picker.preprocess = lambda payload: payload if isinstance(payload, str) else None
    return picker


def go_to(page: Page) -> gr.Tabs:
    """The update that opens a page."""
    return gr.Tabs(selected=page)


def choices(names: list[str], chosen: str | None) -> gr.Dropdown:
    """The update of a run picker: all runs, and the one shown."""
    return gr.Dropdown(choices=list(names), value=chosen, interactive=bool(names))
