"""What is seldom meant in a text is found; what belongs there is left alone."""

from __future__ import annotations

import pytest

from engine.data.content_marks import Mark, marks_in
from engine.data.items import Passage, Turn


def marks(text: str) -> set[Mark]:
    found = set(marks_in((Turn("user", "Hi"), Turn("assistant", text))))
    in_text = {Mark.TEMPLATE_IN_TEXT if mark is Mark.TEMPLATE else mark for mark in found}
    assert marks_in(Passage(text)) == in_text
    return found


@pytest.mark.parametrize("text", ["I am {{name}}.", "{{ user.name }}", "Dear {{first_name}}"])
def test_placeholders_in_double_braces_are_found(text: str) -> None:
    assert marks(text) == {Mark.PLACEHOLDER}


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nHi<|im_end|>",
        "[INST] Hi [/INST] Ho",
        "<start_of_turn>user\nHi",
        "<|start_header_id|>user",
        "<<SYS>>",
        "### Instruction:\nHi\n\n### Response:\nHo",
        "\n\nHuman: Hi\n\nAssistant: Ho",
        "USER: Hi ASSISTANT: Ho",
    ],
)
def test_a_template_that_was_applied_before_is_found(text: str) -> None:
    assert marks(text) == {Mark.TEMPLATE}


@pytest.mark.parametrize(
    "text",
    [
        "a\0b",
        "zero\u200bwidth",
        "word\u2060joiner",
        "late\ufeffmark",
        "\u202egnp.exe",
        "\u2066isolated\u2069",
        "Latin\u200djoined",
        "\u200cfirst",
        "tagged\U000e0041",
    ],
)
def test_characters_that_nobody_sees_are_found(text: str) -> None:
    assert marks(text) == {Mark.INVISIBLE}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Plain words, a list [1, 2] and {one: brace} or {name}.",
        "<NAME> and [NAME] and {{}} and {{ a b ( c }}",
        "### Instruction: alone",
        "Human: alone",
        "family 👨‍👩‍👧 and flag 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "می‌خواهم",  # Persian needs its joiners
        "क्‍ष",
        "naïve café – “quoted” 你好",
    ],
)
def test_what_belongs_in_a_text_has_no_mark(text: str) -> None:
    assert marks(text) == set()


def test_lost_letters_are_found_and_marks_add_up() -> None:
    assert marks("caf\ufffd") == {Mark.BROKEN}
    assert marks("{{name}} caf\ufffd \u200b[INST]") == set(Mark) - {Mark.TEMPLATE_IN_TEXT}
    chat = (Turn("user", "{{name}}"), Turn("assistant", "\0"))
    assert marks_in(chat) == {Mark.PLACEHOLDER, Mark.INVISIBLE}


def test_nothing_comes_on_top_of_a_text() -> None:
    sentence = Mark.TEMPLATE_IN_TEXT.sentence(12)
    assert sentence == (
        "12 rows of text hold marks of a chat template: they are read as letters. Use messages "
        "instead, so that the model's own template is applied."
    )
    assert "on top" in Mark.TEMPLATE.sentence(12)


def test_each_mark_has_a_sentence_with_its_count() -> None:
    for mark in Mark:
        assert mark.sentence(1).startswith("1 row ")
        assert mark.sentence(2500).startswith("2,500 rows ")
    assert "{{name}}" in Mark.PLACEHOLDER.sentence(1)
    assert "{{name}}" in Mark.PLACEHOLDER.sentence(7)
