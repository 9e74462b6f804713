import ast
import doctest
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.preset_sweep import Sweep, Trial, document
from docs import tables
from docs.generate import BLOCKS, FILES, PROJECT, replace_block
from docs.methods_tables import sweep_of
from engine.commands.parser import build_parser
from engine.contract.method_settings import METHOD_KINDS
from engine.contract.presets import preset_of
from engine.contract.spec import Schedule
from engine.contract.spec_file import read_spec, validate_spec

EXAMPLES = sorted((PROJECT / "examples").glob("*.yaml"))
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")])


@pytest.mark.parametrize("name", BLOCKS)
def test_generated_blocks_say_what_is_true_now(name: str) -> None:
    file, content = BLOCKS[name]
    text = (PROJECT / file).read_text(encoding="utf-8")
    assert replace_block(text, name, content()) == text


@pytest.mark.parametrize("file", FILES)
def test_generated_files_say_what_is_true_now(file: str) -> None:
    assert (PROJECT / file).read_text(encoding="utf-8") == FILES[file]()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_valid_spec(path: Path) -> None:
    read_spec(path)


def test_the_spec_in_the_readme_is_the_example() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"```yaml\n# (examples/\S+)\n(.*?)```", readme, re.DOTALL)
    assert shown is not None
    example = (PROJECT / shown[1]).read_text(encoding="utf-8")
    assert "".join(line for line in example.splitlines(True) if line[0] != "#") == shown[2]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_in_documents_exist(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith("http")]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_are_commands(path: Path) -> None:
    """What comes after some spaces says what it does."""
    text = path.read_text(encoding="utf-8")
    for line in re.findall(r"^\$ python -m engine (.+)$", text, re.MULTILINE):
        build_parser().parse_args(shlex.split(line.partition("  ")[0]))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_places_that_links_point_to_exist(path: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", path.read_text(encoding="utf-8"))
    missing = [
        (target, place)
        for target, place in links
        if place not in _places_in(path.parent / target if target else path)
    ]
    assert missing == []


def _places_in(path: Path) -> set[str]:
    """Headings as GitHub names them, and anchors."""
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return named | set(re.findall(r'<a id="([^"]+)">', text))


def test_learning_rates_look_as_the_examples_say() -> None:
    assert doctest.testmod(tables).failed == 0


def test_every_method_has_a_section_with_its_paper() -> None:
    text = (PROJECT / "docs" / "methods.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0].lower(): part for part in text.split("\n## ")[1:]}
    without = [kind for kind in METHOD_KINDS if "arxiv.org/abs/" not in sections.get(kind, "")]
    assert without == []


def test_the_sweep_table_tells_best_next_and_where_the_default_stands() -> None:
    default = preset_of(
        validate_spec(
            {
                "model": {"source": "starter"},
                "data": {"source": "pirate"},
                "method": {"kind": "qft"},
            }
        ).method
    )
    rate = default.learning_rate_small
    trials = [
        _trial(rate / 8, default.schedule, 0.9),
        _trial(rate, default.schedule, 0.25),
        _trial(rate / 4, default.schedule, 0.125),
        _trial(rate * 4, default.schedule, None),
    ]
    row = _cells(sweep_of(document(trials, Sweep(["pirate"], 1, 60))))
    assert [row[2], row[4], row[5], row[6]] == ["0.125", "0.250", "0.250", "4"]
    row = _cells(sweep_of(document(trials[:2], Sweep(["pirate"], 1, 60))))
    assert [row[2], row[4], row[5], row[6]] == ["0.250", "0.900", "the best", "2"]
    row = _cells(sweep_of(document(trials[:1], Sweep(["pirate"], 1, 60))))
    assert [row[2], row[4], row[5], row[6]] == ["0.900", "", "not tried", "1"]


def _trial(rate: float, schedule: Schedule, mean: float | None) -> Trial:
    return Trial("qft", rate, schedule, None, [mean], mean, is_preset=False)


def _cells(table: str) -> list[str]:
    """Of the first row below the headings."""
    return [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]


def test_every_invariant_names_a_test_that_exists() -> None:
    text = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("| invariant | test |")[2]
    named = re.findall(r"`(test_\w+)\.py::(\w+)`", table)
    assert len(named) >= 10
    missing = [f"{file}::{test}" for file, test in named if test not in _tests_in(file)]
    assert missing == []


def _tests_in(file: str) -> set[str]:
    tree = ast.parse((PROJECT / "tests" / f"{file}.py").read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
