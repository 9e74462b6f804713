"""Pieces of HTML: Jinja templates that escape every value.

They are rendered here and not by `gr.HTML`, whose own templates pass a value through a JavaScript
string: there a `${...}` in a dataset, a model's reply or a run's name would be executed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

STATIC = Path(__file__).resolve().parent / "static"


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(STATIC / "fragments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(name: str, /, **frame: Any) -> str:
    """A fragment filled in.

    Args:
        name: The template's name without its suffix.
        frame: What the template shows; a missing key is an error of the program.
    """
    return _environment().get_template(f"{name}.html").render(**frame)


def script(*names: str) -> str:
    """The text of our scripts, one after the other."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)
