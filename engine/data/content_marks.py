"""What in a text is seldom meant: placeholders, a template applied before, letters nobody sees."""

from __future__ import annotations

import re
from enum import Enum

from engine.data.items import Item, Passage

_PLACEHOLDER = re.compile(r"\{\{\s*[\w.\- ]{1,40}\s*\}\}")
# One of these is enough.
_TEMPLATE_MARKS = (
    "<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "[INST]", "<<SYS>>", "<|user|>",
    "<|assistant|>", "<|start_of_role|>", "<|turn>",
)  # fmt: skip
# Of these, both.
_TEMPLATE_PAIRS = (
    ("### Instruction:", "### Response:"),
    ("### Human:", "### Assistant:"),
    ("\nHuman:", "\nAssistant:"),
    ("\nUser:", "\nAssistant:"),
    ("USER:", "ASSISTANT:"),
)
# Joiners belong to emoji and to Arabic and Indic letters, tags to flags; elsewhere they hide.
_PERHAPS_INVISIBLE = re.compile(
    "[\u180e\u200b-\u200d\u202a-\u202e\u2060-\u2069\ufeff\U000e0001-\U000e007f]"
)
_INVISIBLE = re.compile(
    "[\u200b\u2060-\u2064\ufeff\u180e\u202a-\u202e\u2066-\u2069]"
    "|(?:(?<=[\\x00-\u024f])|(?<![\\s\\S]))[\u200c\u200d]"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0001-\U000e007f]"
)


class Mark(Enum):
    """One thing in a text that is seldom meant: the sentence for one row, and for several."""

    PLACEHOLDER = (
        "1 row holds a placeholder such as {{name}}: it is learned as it stands.",
        "{count:,} rows hold placeholders such as {{{{name}}}}: they are learned as they stand.",
    )
    TEMPLATE = (
        "1 row looks as if a chat template had been applied already: the model's own comes on top.",
        "{count:,} rows look as if a chat template had been applied already: the model's own "
        "comes on top.",
    )
    TEMPLATE_IN_TEXT = (
        "1 row of text holds marks of a chat template: they are read as letters. Use messages "
        "instead, so that the model's own template is applied.",
        "{count:,} rows of text hold marks of a chat template: they are read as letters. Use "
        "messages instead, so that the model's own template is applied.",
    )
    INVISIBLE = (
        "1 row holds characters that nobody sees, such as zero-width ones: they are learned too.",
        "{count:,} rows hold characters that nobody sees, such as zero-width ones: they are "
        "learned too.",
    )
    BROKEN = (
        "1 row holds the replacement character U+FFFD: letters were lost before it came here.",
        "{count:,} rows hold the replacement character U+FFFD: letters were lost before they came "
        "here.",
    )

    def sentence(self, count: int) -> str:
        """It is in so many rows."""
        return self.value[0] if count == 1 else self.value[1].format(count=count)


_NONE: frozenset[Mark] = frozenset()
# A text gets no template, so nothing comes on top of what stands in it.
_IN_TEXT = {Mark.TEMPLATE: Mark.TEMPLATE_IN_TEXT}


def marks_in(item: Item) -> frozenset[Mark]:
    """What of these an item holds, in any of its texts."""
    if isinstance(item, Passage):
        return frozenset(_IN_TEXT.get(mark, mark) for mark in _marks(item.text))
    found = _NONE
    for turn in item:
        marks = _marks(turn.content)
        if marks:
            found = found.union(marks)
    return found


def _marks(text: str) -> list[Mark]:
    found: list[Mark] = []
    if "{{" in text and _PLACEHOLDER.search(text):
        found.append(Mark.PLACEHOLDER)
    if _has_template(text):
        found.append(Mark.TEMPLATE)
    if text.isascii():
        if "\0" in text:
            found.append(Mark.INVISIBLE)
        return found
    if "\0" in text or (_PERHAPS_INVISIBLE.search(text) and _INVISIBLE.search(text)):
        found.append(Mark.INVISIBLE)
    if "\ufffd" in text:
        found.append(Mark.BROKEN)
    return found


def _has_template(text: str) -> bool:
    """Whether marks of a chat template stand in a text."""
    if "<" in text or "[" in text:
        for mark in _TEMPLATE_MARKS:
            if mark in text:
                return True
    if ":" in text:
        for first, second in _TEMPLATE_PAIRS:
            if first in text and second in text:
                return True
    return False
