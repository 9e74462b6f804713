"""The Modelfile with which Ollama makes a model of a GGUF, its template in Go's language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.exports.template_parts import TemplateParts

_ROLES = ("system", "user", "assistant")
# Text that has another meaning in Go's templates or in a Modelfile.
_MARKS = ("{{", "}}", '"""')


@dataclass(frozen=True)
class Modelfile:
    """What is written, and what is to be said of it.

    Attributes:
        text: All of it.
        has_template: Whether it holds a template that was proven.
        note: A sentence for people.
    """

    text: str
    has_template: bool
    note: str


def modelfile(
    gguf: str, parts: TemplateParts | None, stops: Sequence[str], begin_by_itself: str
) -> Modelfile:
    """Write a Modelfile.

    Args:
        gguf: Name of the file beside it.
        parts: The chat template in pieces; None where it is more than that.
        stops: What ends a reply.
        begin_by_itself: What the GGUF's tokenizer puts before every text, or "".
    """
    template = go_template(parts, begin_by_itself) if parts else None
    lines = [f"FROM ./{gguf}"]
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    lines += [f'PARAMETER stop "{_quoted(stop)}"' for stop in stops]
    return Modelfile("\n".join(lines) + "\n", template is not None, _note(parts, template))


def go_template(parts: TemplateParts, begin_by_itself: str) -> str | None:
    """The pieces as a Go template over `.Messages`; None where a piece cannot be written in one.

    Args:
        parts: Proven.
        begin_by_itself: Left out at the beginning, since it would stand there twice.
    """
    begin = parts.begin.removeprefix(begin_by_itself)
    literals = [begin, parts.default_system, parts.prompt]
    literals += [*parts.before.values(), *parts.after.values()]
    # A brace at the edge of a piece would join the braces beside it.
    if any(mark in text for text in literals for mark in _MARKS):
        return None
    if any(text.startswith("}") or text.endswith(("{", '"')) for text in literals if text):
        return None
    turns = "{{ else ".join(
        f'if eq .Role "{role}" }}}}{parts.before[role]}{{{{ .Content }}}}{parts.after[role]}'
        for role in _ROLES
        if role in parts.before
    )
    default = parts.default_system
    unless_system = f"{{{{ if not .System }}}}{default}{{{{ end }}}}" if default else ""
    loop = "{{ range .Messages }}{{ " + turns + "{{ end }}{{ end }}"
    return f"{begin}{unless_system}{loop}{parts.prompt}"


def _quoted(text: str) -> str:
    return text.replace('"', '\\"')


def _note(parts: TemplateParts | None, template: str | None) -> str:
    if parts is None:
        return (
            "The chat template does more than to put text around messages, so the Modelfile has no "
            "TEMPLATE; the GGUF holds the template itself."
        )
    if template is None:
        return (
            "The chat template holds text that a Modelfile cannot, so that has no TEMPLATE; the "
            "GGUF holds the template itself."
        )
    system = "" if parts.takes_system else " It has no place for a system message."
    return (
        "The Modelfile's template gives what the chat template gives on "
        f"{parts.compared} conversations.{system}"
    )
