"""A spec file means what the person who wrote it means, or is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.spec_file import MAX_SPEC_BYTES, read_spec, validate_spec

MINIMAL = {"model": {"source": "starter"}, "data": {"source": "pirate"}, "method": {"kind": "qft"}}
TWICE = "spec: run.yaml, line 5: c is given already, in line 3. Mend that line."
YAML = b"""\
# what a person writes
model: {source: starter}
data:
  source: pirate
method: {kind: full}
train:
  learning_rate: 1e-4
  epochs: .5
  activation_checkpointing: on
"""


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_yaml_means_what_a_person_means(tmp_path: Path, prefix: bytes, ending: bytes) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(prefix + YAML.replace(b"\n", ending))
    train = read_spec(path).train
    assert (train.learning_rate, train.epochs) == (1e-4, 0.5)
    assert train.activation_checkpointing is True
    path.write_bytes(YAML.replace(b"ing: on", b"ing: off"))
    assert read_spec(path).train.activation_checkpointing is False


def test_json_and_yaml_of_the_same_spec_are_equal(tmp_path: Path) -> None:
    for name in ("run.json", "run.JSON", "run.yml"):
        (tmp_path / name).write_text(json.dumps(MINIMAL), encoding="utf-8-sig")
        assert read_spec(tmp_path / name) == validate_spec(MINIMAL)


def test_a_preset_in_a_file_is_filled_and_overruled(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    start = "model: {source: starter}\ndata: {source: pirate}\nmethod:\n  kind: qft\n"
    path.write_text(f"{start}  preset: paper\n  scale_group: row\n  outlier_percent: 0\n")
    method = read_spec(path).as_json()["method"]
    assert (method["preset"], method["rounding"], method["gradients"]) == (
        "paper",
        "nearest",
        "stack",
    )
    assert (method["scale_group"], method["outlier_percent"]) == ("row", 0)
    # YAML tells the number 64 from the text; the setting takes the number, or the word row.
    path.write_text(f"{start}  scale_group: 64\n")
    assert read_spec(path).as_json()["method"]["scale_group"] == 64
    assert file_sentence(path, f"{start}  scale_group: '64'\n".encode()).endswith(
        'but is "64". Choose row, 32, 64 or 128.'
    )


def test_a_merge_key_may_be_overruled(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    shared = "x: &x {steps: 5, seed: 1}\ny: &y {<<: *x, seed: 2}\ntrain: {<<: *y, seed: 3}\n"
    path.write_text(json.dumps(MINIMAL)[1:-1].replace("}, ", "}\n") + "\n" + shared)
    with pytest.raises(RequestErrors) as caught:
        read_spec(path)
    assert [mistake.field for mistake in caught.value.errors] == ["x", "y"]


def test_files_that_hold_no_spec_are_refused_in_one_sentence(tmp_path: Path) -> None:
    yaml, json_file = tmp_path / "run.yaml", tmp_path / "run.json"
    for content, expected in (
        (b"", "spec: no settings found."),
        (b"train: {steps: 1\n", "spec: run.yaml, line 2: expected ',' or '}'"),
        (b"a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", TWICE),
        (b"a: {b: 1}\n'a': 2\n", "spec: run.yaml, line 2: a is given already, in line 1. Mend"),
        (b"a: 1\n\tb: 2\n", "spec: run.yaml, line 2: found character '\\t'"),
        (b"a: 1\nb: !!python/object:os.system x\n", "spec: run.yaml, line 2: could not determine"),
        (b"a: 1\nb: \x00\n", "spec: run.yaml, line 2: a character that text cannot hold."),
        (b"a: \xff\n", f"spec: {yaml} is not UTF-8 text. Save it as UTF-8."),
        (b"day: 2026-13-45\n", "spec: run.yaml holds a value that cannot be read."),
        (b"a: !!bool x\n", "spec: run.yaml holds a value that cannot be read."),
        (b"a: " + b"9" * 5000, "spec: run.yaml holds a value that cannot be read."),
        (b"[" * 500, "spec: run.yaml holds a value that cannot be read."),
        (b"a" * (MAX_SPEC_BYTES + 1), f"spec: {yaml} is larger than 1 MB."),
        (b"model: {source: &a [*a]}", "model.source: it should be a valid string, but is a list."),
    ):
        assert file_sentence(yaml, content).startswith(expected), content[:40]
    for content, expected in (
        (b'{\n"a": }', "spec: run.json, line 2: Expecting value."),
        (b'{"a": {"c": 1, "c": 1}}', "spec: c is given twice. Keep one of them."),
        (b'{"a": ' + b"9" * 5000 + b"}", "spec: run.json holds a value that cannot be read."),
        (b"[" * 100_000, "spec: run.json holds a value that cannot be read."),
    ):
        assert file_sentence(json_file, content).startswith(expected), content[:40]
    with pytest.raises(RequestError, match="no such file or directory"):
        read_spec(tmp_path / "absent.yaml")
    with pytest.raises(RequestError, match="is a directory"):
        read_spec(tmp_path)


def file_sentence(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises((RequestError, RequestErrors)) as caught:
        read_spec(path)
    return "\n".join(str(mistake) for mistake in mistakes(caught.value))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(text=st.text(alphabet="ab1e-:.,{}[]&*!?|>'\"%@#\n\t \u2028\x85~<=", max_size=40))
def test_any_text_is_a_spec_or_a_sentence(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((RequestError, RequestErrors)):
        read_spec(path)
