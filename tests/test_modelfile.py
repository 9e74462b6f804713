"""The Modelfile's template gives what the chat template gives, or is not there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from engine.contract.bundled import STARTER
from engine.data.chat import DEFAULT_TEMPLATE
from engine.data.template_process import template_process
from engine.exports.modelfile import go_template, modelfile
from engine.exports.template_parts import Message, TemplateParts, conversations, parts_of
from tests import pieces
from tests.tiny import TEMPLATE, tiny_tokenizer

WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe good.<|im_end|>\\n' }}"
    "{% endif %}" + TEMPLATE
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}"
    "{% endif %}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
STARTER_TEMPLATE = (STARTER / "chat_template.jinja").read_text(encoding="utf-8")
PLAIN = {
    "starter": (STARTER_TEMPLATE, 6),
    "chatml": (TEMPLATE, 6),
    "with a default": (WITH_DEFAULT, 6),
    "ours": (DEFAULT_TEMPLATE, 6),
    "llama 2": (pieces.TEMPLATE, 3),
    "gemma": (GEMMA, 3),
}
TIMED = TEMPLATE.replace("'<|im_end|>\\n'", "'<|im_end|>' + loop.index | string")
SYSTEM_IN_QUESTION = (
    "{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}"
    "{% for m in messages %}{{ '<' + m['role'] + '>' }}{{ first if loop.first else '' }}"
    "{{ m['content'] + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
FORGETFUL = TEMPLATE.replace("in messages %}", "in messages[-2:] %}")
UPPER = TEMPLATE.replace("message['content']", "message['content'] | upper")


def tokenizer_with(template: str):
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.chat_template = template
    return tokenizer


def run_go(template: str, messages: Sequence[Message]) -> str:
    """What Go's text/template makes of it: if, else if, not, eq and range over the messages."""
    system = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    parts = re.split(r"\{\{ (.*?) \}\}", template)
    out, at = _block(parts, 0, {".System": system, ".Messages": messages}, write=True)
    assert at == len(parts), "an end too many"
    return out


def _block(parts: list[str], at: int, scope: dict, *, write: bool) -> tuple[str, int]:
    """Text and actions from `at` on, up to the `else` or `end` that closes this block."""
    out = ""
    while at < len(parts):
        if at % 2 == 0:
            out += parts[at] if write else ""
            at += 1
            continue
        action = parts[at]
        if action == "end" or action.startswith("else"):
            return out, at
        if action == "range .Messages":
            begin, end = at + 1, at
            for message in [*scope[".Messages"], None]:
                inner = {**scope, ".Role": (message or {}).get("role", "")}
                inner[".Content"] = (message or {}).get("content", "")
                said, end = _block(parts, begin, inner, write=write and message is not None)
                out += said
            at = end + 1
        elif action.startswith("if "):
            said, at = _branches(parts, at, scope, write=write)
            out += said
        else:
            assert action == ".Content"
            out += scope[".Content"] if write else ""
            at += 1
    return out, at


def _branches(parts: list[str], at: int, scope: dict, *, write: bool) -> tuple[str, int]:
    out, taken = "", False
    while parts[at] != "end":
        holds = _holds(parts[at].removeprefix("else "), scope)
        said, at = _block(parts, at + 1, scope, write=write and holds and not taken)
        out, taken = out + said, taken or holds
    return out, at + 1


def _holds(action: str, scope: dict) -> bool:
    if action == "if not .System":
        return not scope[".System"]
    found = re.fullmatch(r'if eq \.Role "(\w+)"', action)
    assert found, action
    return scope[".Role"] == found.group(1)


@pytest.mark.parametrize("name", PLAIN)
def test_the_go_template_writes_what_the_chat_template_writes(name: str) -> None:
    template, compared = PLAIN[name]
    tokenizer = tokenizer_with(template)
    parts = parts_of(tokenizer)
    assert parts is not None
    assert parts.compared == compared
    assert parts.takes_system == (compared == 6)
    written = go_template(parts, "")
    assert written is not None
    process = template_process(tokenizer)
    for messages in conversations():
        rendered = process.prompt(messages)
        if not rendered.folded and not rendered.refusal:
            assert run_go(written, messages) == rendered.text


@pytest.mark.parametrize("template", [TIMED, SYSTEM_IN_QUESTION, FORGETFUL, UPPER])
def test_what_cannot_be_proven_is_left_out(template: str) -> None:
    parts = parts_of(tokenizer_with(template))
    assert parts is None
    made = modelfile("x.gguf", parts, ["<|end|>"], "")
    assert made.text == 'FROM ./x.gguf\nPARAMETER stop "<|end|>"\n'
    assert not made.has_template
    assert "so the Modelfile has no TEMPLATE" in made.note


def test_all_of_a_modelfile() -> None:
    parts = parts_of(tiny_tokenizer())
    made = modelfile("it-q8_0.gguf", parts, ["<|im_end|>", 'a "quoted" one'], "")
    first, rest = made.text.split("\n", 1)
    assert first == "FROM ./it-q8_0.gguf"
    template, stops = rest.removeprefix('TEMPLATE """').split('"""\n')
    assert run_go(template, conversations()[1]).endswith("<|im_start|>assistant\n")
    assert stops == 'PARAMETER stop "<|im_end|>"\nPARAMETER stop "a \\"quoted\\" one"\n'
    assert "SYSTEM" not in made.text
    assert made.has_template
    assert "6 conversations" in made.note


def test_what_the_tokenizer_adds_itself_is_not_written_twice() -> None:
    parts = parts_of(AutoTokenizer.from_pretrained(STARTER))
    assert parts is not None
    assert (go_template(parts, "") or "").startswith("<|bos|>{{ range")
    assert (go_template(parts, "<|bos|>") or "").startswith("{{ range")


@pytest.mark.parametrize("mark", ["{{ x", "x }}", 'a """ b', "ends with {", 'ends with "', "} x"])
def test_marks_with_another_meaning_are_not_written(mark: str) -> None:
    usual = parts_of(tiny_tokenizer())
    assert usual is not None
    before = {**usual.before, "user": mark}
    odd = TemplateParts(usual.begin, usual.default_system, before, usual.after, usual.prompt, 6)
    assert go_template(odd, "") is None
    made = modelfile("x.gguf", odd, [], "")
    assert "text that a Modelfile cannot" in made.note
    assert "TEMPLATE" not in made.text


def test_the_starters_modelfile_is_beside_its_gguf(tmp_path: Path) -> None:
    made = modelfile("x.gguf", parts_of(AutoTokenizer.from_pretrained(STARTER)), ["<|end|>"], "")
    (tmp_path / "Modelfile").write_text(made.text, encoding="utf-8")
    lines = (tmp_path / "Modelfile").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines] == ["FROM", "TEMPLATE", "PARAMETER"]
