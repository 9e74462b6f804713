"""Building blocks of all pages."""

from __future__ import annotations

from typing import Any

import gradio as gr

from qft_gui.fragments import render, script


def slot(value: str = "", on_load: str | None = None, **props: Any) -> gr.HTML:
    """A place for a fragment, without Gradio's own styles on its children.

    Args:
        value: The first fragment, already rendered.
        on_load: Name of the script that wires it.
        props: What the script is told.
    """
    wiring = script(on_load) if on_load else None
    return gr.HTML(value, apply_default_css=False, js_on_load=wiring, **props)


def fragment(name: str, /, **frame: object) -> gr.HTML:
    """A fragment that never changes."""
    return slot(render(name, **frame))
