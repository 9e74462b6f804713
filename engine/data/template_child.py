"""Chat templates at work: a program of its own, with limits, that only renders.

A template is a small program that came with a model. Here it can neither reach the tuning process
nor use up its memory or time: `engine.data.template_process` starts this file with `python -I`,
reads no file and no network from it, and kills it when it takes too long.

Each message on the pipes is four bytes of length and that much JSON. The first names the template:
`{"template", "variables", "memory_bytes", "most_characters"}`. Then come batches: `{"op": "chats",
"chats": [...]}`, answered by a list of `{"text", "replies", "folded"}` or `{"error"}`, and `{"op":
"prompt", "messages": [...]}`, answered by `{"text", "folded"}` or `{"error"}`.
"""
# Standard library and Jinja only, so that it starts at once and stays small.

from __future__ import annotations

import datetime
import json
import struct
import sys
from typing import Any, BinaryIO

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

# A character for private use, so it is in no real text.
_STAND_IN = "\ue000"
# From so many replies on, only the first few are looked for one by one.
_MANY_REPLIES = 16
_ALIKE = 8
# Some templates write the date. What a run learns must not depend on the day it is resumed.
_DAY_OF_TRAINING = datetime.datetime(2026, 1, 1)

Message = dict[str, Any]


class _Unfit(Exception):
    """Why a chat cannot be rendered, in words."""


class _Generation(Extension):
    """`{% generation %}` marks replies for other programs; here its content is just rendered."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> list[nodes.Node]:
        """The statements up to `endgeneration`."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Renderer:
    """One template.

    Args:
        template: Its source.
        variables: What it may call by name, such as `eos_token`.
        most_characters: A rendered chat of more is refused, beyond four times what its messages
            hold.
    """

    def __init__(self, template: str, variables: dict[str, Any], most_characters: int) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        self._template = environment.from_string(template)
        self._variables = variables
        self._most_characters = most_characters

    def prompt(self, messages: list[Message]) -> dict[str, Any]:
        """A conversation up to where the assistant begins to speak, today."""
        today = datetime.datetime.now()
        shown, folded = self._accepted(messages, today)
        text = self._render(shown, today, add_generation_prompt=True)
        return {"text": text, "folded": folded}

    def chat(self, messages: list[Message]) -> dict[str, Any]:
        """A whole chat, with the place of each reply: its begin, its end mark, and its end.

        The end mark is what a template puts after a reply's words, such as an end-of-turn token.
        """
        shown, folded = self._accepted(messages, _DAY_OF_TRAINING)
        text = self._render(shown, _DAY_OF_TRAINING)
        replies = self._replies(shown, text)
        return {"text": text, "replies": replies, "folded": folded}

    def _accepted(
        self, messages: list[Message], day: datetime.datetime
    ) -> tuple[list[Message], bool]:
        """The messages, or where the template takes no system message, with it in the question."""
        if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
            return messages, False
        try:
            self._render(messages, day)
        except _Unfit:
            system, first, *rest = messages
            folded = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
            self._render(folded, day)
            return folded, True
        return messages, False

    def _render(
        self,
        messages: list[Message],
        day: datetime.datetime,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        held = sum(len(str(value)) for message in messages for value in message.values())
        limit = self._most_characters + 4 * held
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                strftime_now=day.strftime,
                **self._variables,
            ):
                size += len(piece)
                if size > limit:
                    raise _Unfit(f"it writes more than {limit:,} characters")
                pieces.append(piece)
        except jinja2.TemplateError as error:
            raise _Unfit(_first_line(error)) from error
        except MemoryError as error:
            raise _Unfit("it takes too much memory") from error
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise _Unfit(f"{type(error).__name__}: {_first_line(error)}") from error
        except RecursionError as error:
            raise _Unfit("it calls itself without end") from error
        return "".join(pieces)

    def _replies(self, messages: list[Message], text: str) -> list[list[int]]:
        """Where in the rendered text each reply stands, its end mark included."""
        replies = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
        if len(replies) > _MANY_REPLIES:
            found = self._like_the_first(messages, replies, text)
            if found is not None:
                return found
        return [self._reply(messages, index, text) for index in replies]

    def _reply(self, messages: list[Message], index: int, text: str) -> list[int]:
        start, end = self._span(messages, index, text)
        words = _words(messages[index])
        place = text.rfind(words, start, end) if words else -1
        return [start, end if place < 0 else place + len(words), end]

    def _like_the_first(
        self, messages: list[Message], replies: list[int], text: str
    ) -> list[list[int]] | None:
        """The places of many replies at once; None where they do not all look like the first.

        A stand-in shows where the words of each are, in one pass. What stands around them is taken
        from the first replies and has to be the same everywhere.
        """
        marked = [
            {**one, "content": _STAND_IN} if one["role"] == "assistant" else one for one in messages
        ]
        pieces = self._render(marked, _DAY_OF_TRAINING).split(_STAND_IN)
        said = [str(messages[index]["content"] or "") for index in replies]
        if len(pieces) != len(said) + 1 or text != _woven(pieces, said):
            return None
        begins: list[int] = []
        place = 0
        for piece, words in zip(pieces, said, strict=False):
            begins.append(place + len(piece))
            place = begins[-1] + len(words)
        around: set[tuple[str, str]] = set()
        for index, begin, words in zip(replies[:_ALIKE], begins, said, strict=False):
            start, _, end = self._reply(messages, index, text)
            around.add((text[start:begin], text[begin + len(words) : end]))
        if len(around) != 1:
            return None
        before, after = around.pop()
        found = [
            [begin - len(before), begin + len(words.rstrip()), begin + len(words) + len(after)]
            for begin, words in zip(begins, said, strict=True)
            if text.endswith(before, 0, begin) and text.startswith(after, begin + len(words))
        ]
        # Templates are fond of exceptions for the last one.
        found[-1:] = [self._reply(messages, replies[-1], text)]
        return found if len(found) == len(replies) else None

    def _span(self, messages: list[Message], index: int, text: str) -> tuple[int, int]:
        day = _DAY_OF_TRAINING
        is_last = index + 1 == len(messages)
        prompt = self._render(messages[:index], day, add_generation_prompt=True)
        through = text if is_last else self._render(messages[: index + 1], day)
        given = _common_start(prompt, text)
        if text.startswith(through):
            if given == len(prompt):
                return given, len(through.rstrip())
            # A prompt may promise an empty thought where this reply has one.
            said = self._render(messages[:index], day) if index else ""
            if prompt[:given].startswith(said):
                return given, len(through.rstrip())
        return self._rewritten_span(messages, index, text)

    def _rewritten_span(self, messages: list[Message], index: int, text: str) -> tuple[int, int]:
        """Where a template rewrites earlier turns, a stand-in shows the place of their reply."""
        day = _DAY_OF_TRAINING
        marked = list(messages)
        marked[index] = {**marked[index], "content": _STAND_IN}
        before, found, after = self._render(marked, day).partition(_STAND_IN)
        through = self._render(marked[: index + 1], day)
        end_mark = through.partition(_STAND_IN)[2].rstrip()
        end = len(text) - len(after)
        if not (found and text.startswith(before) and text.endswith(after) and end >= len(before)):
            raise _Unfit("it changes a reply, so the words to learn cannot be found")
        return len(before), end + len(end_mark) * after.startswith(end_mark)


def _words(message: Message) -> str:
    return str(message["content"] or "").rstrip()


def _woven(pieces: list[str], words: list[str]) -> str:
    """A text whose stand-ins are words again."""
    return "".join(
        [*(part for pair in zip(pieces, words, strict=False) for part in pair), pieces[-1]]
    )


def _raise(message: str) -> None:
    """What templates call to refuse a chat.

    Raises:
        TemplateError: Always.
    """
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, **options: Any) -> str:
    """Jinja's own filter escapes HTML, which no model wants."""
    known = {key: options[key] for key in ("separators", "sort_keys") if key in options}
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **known)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _common_start(one: str, other: str) -> int:
    """Number of characters that two texts have in common from their beginning."""
    if other.startswith(one):
        return len(one)
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _answer(renderer: Renderer, request: dict[str, Any]) -> Any:
    if request["op"] == "prompt":
        return _told(renderer.prompt, request["messages"])
    return [_told(renderer.chat, chat) for chat in request["chats"]]


def _told(render: Any, messages: list[Message]) -> dict[str, Any]:
    try:
        return render(messages)
    except _Unfit as error:
        return {"error": str(error)}


def _read(stream: BinaryIO) -> Any:
    header = stream.read(4)
    if len(header) < 4:
        return None
    return json.loads(stream.read(struct.unpack("<I", header)[0]))


def _write(stream: BinaryIO, value: Any) -> None:
    body = json.dumps(value).encode()
    stream.write(struct.pack("<I", len(body)) + body)
    stream.flush()


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # Windows knows no such limit; the time-out holds there too
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def main() -> None:
    """Answer until the input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    first = _read(requests)
    _limit_memory(first["memory_bytes"])
    try:
        renderer = Renderer(first["template"], first["variables"], first["most_characters"])
    except (jinja2.TemplateError, MemoryError, RecursionError, ArithmeticError) as error:
        _write(answers, {"error": _first_line(error)})
        return
    _write(answers, {"ok": True})
    while (request := _read(requests)) is not None:
        _write(answers, _answer(renderer, request))


if __name__ == "__main__":
    main()
