"""A chat template as plain pieces of text around each message, where it is no more than that.

The pieces are found by rendering a few conversations, and kept only if putting them together gives
what the template gives, letter by letter, for conversations of every shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.data.template_process import TemplateProcess, template_process

Message = dict[str, str]
_SYSTEM, _USER, _REPLY, _AGAIN = "SystemWords", "FirstQuestion", "FirstReply", "SecondQuestion"


@dataclass(frozen=True)
class TemplateParts:
    """What a template writes.

    Attributes:
        begin: Before everything.
        default_system: After that, where no system message is given.
        before: By role, before a message.
        after: By role, after it.
        prompt: Where the assistant is to begin.
        compared: With how many conversations this was proven.
    """

    begin: str
    default_system: str
    before: dict[str, str]
    after: dict[str, str]
    prompt: str
    compared: int = 0

    @property
    def takes_system(self) -> bool:
        """Whether a system message has a place of its own."""
        return "system" in self.before

    def compose(self, messages: Sequence[Message]) -> str:
        """A conversation up to where the assistant begins."""
        has_system = any(message["role"] == "system" for message in messages)
        turns = (
            self.before[message["role"]] + message["content"] + self.after[message["role"]]
            for message in messages
        )
        begin = self.begin if has_system else self.begin + self.default_system
        return begin + "".join(turns) + self.prompt


def conversations() -> list[list[Message]]:
    """Of every shape: with and without a system message, of one to three questions."""
    question = {"role": "user", "content": "What is a {tide}? Say it in 12 words."}
    reply = {"role": "assistant", "content": "Water that rises,\n\nand falls."}
    second = {"role": "user", "content": "And <why> is that so?"}
    other = {"role": "assistant", "content": "The moon pulls at it: 100 % sure."}
    third = {"role": "user", "content": "Thanks! Give me `code`:\n    x = {{1}}"}
    system = {"role": "system", "content": 'Be brief. Today is "Monday".'}
    return [
        [question],
        [system, question],
        [question, reply, second],
        [system, question, reply, second],
        [question, reply, second, other, third],
        [system, second, other, third, reply, question],
    ]


def parts_of(tokenizer: Any) -> TemplateParts | None:
    """The pieces of a tokenizer's template; None where it is more than pieces.

    Raises:
        RequestError: The template cannot be used at all.
    """
    process = template_process(tokenizer)
    found = _without_system(process)
    if found is None:
        return None
    found = _with_system(process, found, str(tokenizer.bos_token or ""))
    compared = 0
    for messages in conversations():
        has_system = messages[0]["role"] == "system"
        rendered = process.prompt(messages)
        if has_system and not found.takes_system:
            if rendered.refusal or rendered.folded:
                continue
            return None  # it puts the system message somewhere else
        if rendered.refusal or rendered.folded or rendered.text != found.compose(messages):
            return None
        compared += 1
    return TemplateParts(
        found.begin, found.default_system, found.before, found.after, found.prompt, compared
    )


def _without_system(process: TemplateProcess) -> TemplateParts | None:
    question, reply = _turn("user", _USER), _turn("assistant", _REPLY)
    two = process.prompt([question, reply, _turn("user", _AGAIN)])
    (whole,) = process.chats([[question, reply]])
    begin, to_reply, to_second, to_prompt = _around(two.text, _USER, _REPLY, _AGAIN)
    *_, ending = _around(whole.text, _USER, _REPLY)
    if begin is None or to_reply is None or to_second is None or to_prompt is None:
        return None
    if ending is None or not to_second.startswith(ending):
        return None
    before_user = to_second[len(ending) :]
    if not begin.endswith(before_user):
        return None
    after_user = ending if to_reply.startswith(ending) and to_prompt.startswith(ending) else ""
    after_user = after_user or _common_start(to_reply, to_prompt)
    return TemplateParts(
        begin=begin[: len(begin) - len(before_user)],
        default_system="",
        before={"user": before_user, "assistant": to_reply[len(after_user) :]},
        after={"user": after_user, "assistant": ending},
        prompt=to_prompt[len(after_user) :],
    )


def _with_system(process: TemplateProcess, found: TemplateParts, bos: str) -> TemplateParts:
    """Add the place of a system message; what stands there without one is a default."""
    rendered = process.prompt([_turn("system", _SYSTEM), _turn("user", _USER)])
    head, between, _ = _around(rendered.text, _SYSTEM, _USER)
    before_user = found.before["user"]
    if rendered.refusal or rendered.folded or head is None or between is None:
        return found
    if not between.endswith(before_user):
        return found
    begin = found.begin
    if not head.startswith(begin):
        begin = bos if bos and begin.startswith(bos) and head.startswith(bos) else ""
    return TemplateParts(
        begin=begin,
        default_system=found.begin[len(begin) :],
        before={**found.before, "system": head[len(begin) :]},
        after={**found.after, "system": between[: len(between) - len(before_user)]},
        prompt=found.prompt,
    )


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _around(text: str, *words: str) -> list[str | None]:
    """The text before, between and after some words; all None unless each stands there once."""
    found: list[str | None] = []
    for word in words:
        if text.count(word) != 1:
            return [None] * (len(words) + 1)
        before, _, text = text.partition(word)
        found.append(before)
    return [*found, text]


def _common_start(one: str, other: str) -> str:
    for place, (letter, letter_there) in enumerate(zip(one, other, strict=False)):
        if letter != letter_there:
            return one[:place]
    return min(one, other, key=len)
