import ast
import re
from pathlib import Path

import pytest

from docs.generate import BLOCKS, FILES, PROJECT, replace_block
from engine.contract.spec_file import read_spec

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
