"""Writes what the documents take from elsewhere: `python -m docs.generate`.

Tables and plots come from the result files in benchmarks/results/ and from the memory plans, the
commands from the parser, the tree from the first line of each file.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from functools import partial
from pathlib import Path

from docs import data_tables, forecast_tables, methods_tables, qft_tables
from docs.ablation_plot import ablation_plot
from docs.tables import measured_on, result, setting_table, table
from engine.commands.parser import build_parser
from engine.contract.method_settings import (
    FullSettings,
    LomoSettings,
    QftSettings,
    QloraSettings,
)
from engine.demo import HEADINGS, Row

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("engine", "qft_gui")


def demo_table() -> str:
    """The table of `start.py demo`, with a line that says where it was measured."""
    found = result("demo_cpu")
    return (
        f"{table(HEADINGS, (Row(**row).cells() for row in found['rows']))}\n\n"
        f"{found['steps']} steps of 8 conversations of `{found['data']}`, on a "
        f"{measured_on(found)}."
    )


def command_list() -> str:
    """Every command with its arguments and its one line."""
    actions = build_parser()._actions
    commands = next(a for a in actions if isinstance(a, argparse._SubParsersAction))
    words = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    usages = [(_usage(parser), words[name]) for name, parser in commands.choices.items()]
    return "\n".join(["```", *(f"{usage}\n    {help}" for usage, help in usages), "```"])


def _usage(parser: argparse.ArgumentParser) -> str:
    """On one line, from the command's name on."""
    usage = " ".join(parser.format_usage().replace("[-h]", "").split())
    return usage.removeprefix("usage: python -m engine ")


def tree() -> str:
    """Every file of the program with what it is for."""
    lines = ["```", "app.py", "start.py"]
    for package in PACKAGES:
        lines.append(f"{package}/")
        lines.extend(_entries(PROJECT / package, depth=1))
    return "\n".join([*lines, "```"])


def _entries(folder: Path, depth: int) -> list[str]:
    lines: list[str] = []
    for path in sorted(folder.iterdir(), key=lambda entry: (entry.is_dir(), entry.name)):
        indent = "  " * depth
        if path.suffix == ".py" and path.name != "__init__.py":
            lines.append(f"{indent}{path.name:<{24 - len(indent)}} {_first_line(path)}")
        elif (path / "__init__.py").exists():
            about = _first_line(path / "__init__.py")
            lines.append(f"{indent}{path.name + '/':<{24 - len(indent)}} {about}")
            lines.extend(_entries(path, depth + 1))
    return lines


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "demo": ("README.md", demo_table),
    "commands": ("README.md", command_list),
    "tree": ("ARCHITECTURE.md", tree),
    "promises": ("docs/qft.md", qft_tables.promise_table),
    "lengths": ("docs/qft.md", qft_tables.length_table),
    "shares": ("docs/qft.md", qft_tables.share_table),
    "presets": ("docs/qft.md", qft_tables.preset_table),
    "settings": ("docs/qft.md", partial(setting_table, QftSettings)),
    "phases": ("docs/qft.md", qft_tables.phase_table),
    "speed": ("docs/qft.md", qft_tables.speed_table),
    "outliers": ("docs/qft.md", qft_tables.outlier_table),
    "offload": ("docs/qft.md", qft_tables.offload_table),
    "ledger": ("docs/qft.md", qft_tables.ledger_table),
    "memory": ("docs/methods.md", methods_tables.memory_table),
    "fits": ("docs/methods.md", methods_tables.fits_table),
    "rates": ("docs/methods.md", methods_tables.rate_table),
    "qlora": ("docs/methods.md", partial(setting_table, QloraSettings)),
    "lomo": ("docs/methods.md", partial(setting_table, LomoSettings)),
    "full": ("docs/methods.md", partial(setting_table, FullSettings)),
    "measured": ("docs/methods.md", demo_table),
    "sweep": ("docs/methods.md", methods_tables.sweep_table),
    "bf16": ("docs/methods.md", methods_tables.bf16_table),
    "steps": ("docs/methods.md", methods_tables.step_table),
    "terms": ("docs/forecast.md", forecast_tables.term_table),
    "bands": ("docs/forecast.md", forecast_tables.band_table),
    "errors": ("docs/forecast.md", partial(forecast_tables.error_table, "methods")),
    "kinds": ("docs/forecast.md", partial(forecast_tables.error_table, "architectures")),
    "worst": ("docs/forecast.md", forecast_tables.worst_line),
    "published": ("docs/forecast.md", forecast_tables.published_table),
    "changes": ("docs/forecast.md", forecast_tables.change_table),
    "fitted": ("docs/forecast.md", forecast_tables.fit_table),
    "times": ("docs/forecast.md", forecast_tables.time_table),
    "check": ("docs/data.md", data_tables.check_table),
    "cards": ("docs/forecast.md", forecast_tables.gpu_table),
}
# Whole files.
FILES: dict[str, Callable[[], str]] = {"docs/pictures/qft_ablation.svg": ablation_plot}


def replace_block(document: str, name: str, content: str) -> str:
    """Put `content` between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Raises:
        ValueError: The document has no such markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = document.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the markers of {name} are missing")
    return f"{before}{begin}\n{content}\n{end}{after}"


def main() -> None:
    """Write every file and every block."""
    for file, content in FILES.items():
        (PROJECT / file).write_text(content(), encoding="utf-8")
    for name, (file, content) in BLOCKS.items():
        path = PROJECT / file
        text = path.read_text(encoding="utf-8")
        path.write_text(replace_block(text, name, content()), encoding="utf-8")


if __name__ == "__main__":
    main()
