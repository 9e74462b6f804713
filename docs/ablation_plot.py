"""The picture of docs/qft.md, drawn from the ablation's result file as an SVG of text."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from benchmarks.ablation_summary import Row, is_adamw, rates, rows
from docs.tables import result

_LABELS, _PANEL, _GAP, _ROW, _TOP, _BOTTOM = 230, 290, 40, 22, 70, 34
_FULL = 110  # percent at the right edge
_MARKS = ("low", "middle", "high")
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; }
  .faint { fill: #57606a; font-size: 12px; }
  .grid { stroke: #d0d7de; }
  .whole { stroke: #57606a; stroke-dasharray: 4 3; }
  .low { fill: #0969da; stroke: #0969da; }
  .middle { fill: #bc4c00; stroke: #bc4c00; }
  .high { fill: #1a7f37; stroke: #1a7f37; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .faint { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .whole { stroke: #9198a1; }
    .low { fill: #4493f8; stroke: #4493f8; }
    .middle { fill: #f0883e; stroke: #f0883e; }
    .high { fill: #3fb950; stroke: #3fb950; }
  }
"""


def ablation_plot() -> str:
    """Share of float32's loss drop: a row for each variant, a panel for each model."""
    models: dict[str, Any] = result("qft_ablation_cpu")["models"]
    panels = {name: rows(section) for name, section in models.items()}
    names = dict.fromkeys(row.variant for found in panels.values() for row in found)
    shown = [name for name in sorted(names, key=is_adamw) if not name.startswith("fp32")]
    width = _LABELS + len(panels) * (_PANEL + _GAP)
    height = _TOP + _ROW * len(shown) + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        "<title>Share of the loss drop that float32 reaches, by variant</title>",
        f"<style>{_STYLE}</style>",
        *_legend(),
        *(_label(name, number) for number, name in enumerate(shown)),
    ]
    for number, (model, found) in enumerate(panels.items()):
        left = _LABELS + number * (_PANEL + _GAP)
        parts += _panel(model, left, height, [rates(found, name) for name in shown])
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> list[str]:
    parts: list[str] = []
    for number, name in enumerate(_MARKS):
        left = 12 + 74 * number
        parts.append(_mark(name, left, 20))
        parts.append(f'<text class="faint" x="{left + 10}" y="24">{name}</text>')
    parts.append('<text class="faint" x="7" y="46">learning rate; lines: all seeds</text>')
    return parts


def _label(name: str, number: int) -> str:
    place = f'x="{_LABELS - 14}" y="{_middle(number) + 4}" text-anchor="end"'
    return f"<text {place}>{escape(name)}</text>"


def _middle(number: int) -> int:
    """Of a row, from above."""
    return _TOP + _ROW * number + _ROW // 2


def _panel(model: str, left: int, height: int, found: list[list[Row]]) -> list[str]:
    bottom = height - _BOTTOM
    parts = [f'<text class="title" x="{left}" y="24">{escape(model)}</text>']
    parts.append(f'<text class="faint" x="{left}" y="46">% of the loss drop of float32</text>')
    for percent in (0, 25, 50, 75, 100):
        x, kind = left + _place(percent), "whole" if percent == 100 else "grid"
        parts.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{bottom}"/>')
        parts.append(
            f'<text class="faint" x="{x}" y="{bottom + 18}" text-anchor="middle">{percent}</text>'
        )
    for number, by_rate in enumerate(found):
        for place, row in enumerate(by_rate):
            y = _middle(number) + 5 * (place - 1)
            low, high = (left + _place(edge) for edge in (min(row.shares), max(row.shares)))
            parts.append(
                f'<line class="{_MARKS[place]}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
            )
            parts.append(_mark(_MARKS[place], left + _place(row.share), y))
    return parts


def _place(percent: float) -> float:
    """Of a share; what is outside stands at the edge."""
    return round(_PANEL * min(max(percent, 0.0), _FULL) / _FULL, 1)


def _mark(kind: str, x: float, y: float) -> str:
    """One shape for each rate, so that colour is not all that tells them apart."""
    if kind == "low":
        return f'<circle class="{kind}" cx="{x}" cy="{y}" r="3.5"/>'
    if kind == "middle":
        return f'<rect class="{kind}" x="{x - 3}" y="{y - 3}" width="6" height="6"/>'
    points = f"{x},{y - 4} {x + 4},{y + 3} {x - 4},{y + 3}"
    return f'<polygon class="{kind}" points="{points}"/>'
