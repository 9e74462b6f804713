"""The process that renders chats, as its caller sees it: batches in, texts out, within limits."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from engine.contract.errors import RequestError

_CHILD = Path(__file__).with_name("template_child.py")
FIELD = "model.source"
MEMORY_BYTES = 512 << 20
MOST_CHARACTERS = 1 << 16
MOST_SOURCE = 1 << 18
SECONDS = 10.0
_MOST_REFUSED = 3  # chats of a batch; more of them, and it is the template's fault

Message = dict[str, Any]


@dataclass(slots=True)
class Reply:
    """Where a reply stands in a rendered chat, in characters: its words, its end mark, its end."""

    start: int
    mark: int
    end: int


@dataclass(slots=True)
class Rendered:
    """A chat as the model reads it.

    Attributes:
        text: All of it.
        replies: In order.
        folded: The template takes no system message, so that stands in the first question.
        refusal: Why there is no text, in words that follow "the model's chat template"; or "".
    """

    text: str
    replies: tuple[Reply, ...] = ()
    folded: bool = False
    refusal: str = ""


class _Limit(RequestError):
    """The template took too much; `refusal` says what, in words that follow "it"."""

    def __init__(self, refusal: str) -> None:
        super().__init__(FIELD, f"its chat template fails: {refusal}.", "Choose another model.")
        self.refusal = refusal


class TemplateProcess:
    """Renders with one template in a process of its own, begun when first needed.

    Args:
        template: Source of the template.
        variables: Names it may use, such as `eos_token`.
        seconds: A batch that takes longer is refused.
        memory_bytes: What the process may take, where the system can limit it.

    Raises:
        RequestError: The template is too large to be one.
    """

    def __init__(
        self,
        template: str,
        variables: dict[str, Any],
        seconds: float = SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if len(template) > MOST_SOURCE:
            raise RequestError(
                FIELD,
                f"its chat template has {len(template):,} characters, more than {MOST_SOURCE:,}.",
                "Choose another model.",
            )
        self._first = {
            "template": template,
            "variables": variables,
            "memory_bytes": memory_bytes,
            "most_characters": MOST_CHARACTERS,
        }
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def chats(self, chats: Sequence[Sequence[Message]]) -> list[Rendered]:
        """Every chat, in order, with the place of its replies.

        A chat by which the template breaks a limit is refused by itself.

        Raises:
            RequestError: It is no template, or breaks a limit by several chats.
        """
        try:
            answers = self._ask({"op": "chats", "chats": chats})
            return [_rendered(answer) for answer in answers]
        except _Limit:
            if len(chats) == 1:
                raise
            return self._one_by_one(chats)

    def _one_by_one(self, chats: Sequence[Sequence[Message]]) -> list[Rendered]:
        rendered: list[Rendered] = []
        num_refused = 0
        for chat in chats:
            try:
                rendered += self.chats([chat])
            except _Limit as error:
                num_refused += 1
                if num_refused > _MOST_REFUSED or num_refused == len(chats):
                    raise
                rendered.append(Rendered("", refusal=error.refusal))
        return rendered

    def prompt(self, messages: Sequence[Message]) -> Rendered:
        """A conversation up to where the assistant begins to speak.

        Raises:
            RequestError: The template breaks a limit, or is no template.
        """
        return _rendered(self._ask({"op": "prompt", "messages": messages}))

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            process = self._process or self._started()
            return self._exchange(process, request)

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._process = process
        # Whoever forgets the template forgets the process, too.
        self._ending = weakref.finalize(self, _end, process)
        answer = self._exchange(process, self._first)
        if "error" in answer:
            self._end()
            raise RequestError(
                FIELD, f"its chat template is broken: {answer['error']}", "Choose another model."
            )
        return process

    def _exchange(self, process: subprocess.Popen[bytes], request: dict[str, Any]) -> Any:
        assert process.stdin
        assert process.stdout
        watch = threading.Timer(self._seconds, process.kill)
        watch.start()
        try:
            _write(process.stdin, request)
            return _read(process.stdout)
        except (EOFError, OSError, ValueError) as error:
            late = not watch.is_alive()
            self._end()
            raise _Limit(
                f"it takes more than {self._seconds:g} s"
                if late
                else "the process that renders it ended, perhaps for lack of memory"
            ) from error
        finally:
            watch.cancel()

    def _end(self) -> None:
        if self._process is not None:
            self._process = None
            self._ending()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream
        with suppress(OSError):  # what it did not take any more
            stream.close()


@lru_cache(maxsize=8)
def _shared(template: str, variables: str) -> TemplateProcess:
    return TemplateProcess(template, json.loads(variables))


def template_process(tokenizer: Any) -> TemplateProcess:
    """The process for a tokenizer's template; the same for the same template.

    Args:
        tokenizer: Of transformers, with a chat template.
    """
    variables = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return _shared(tokenizer.get_chat_template(), json.dumps(variables, sort_keys=True))


def _rendered(answer: dict[str, Any]) -> Rendered:
    if "error" in answer:
        return Rendered("", refusal=answer["error"])
    replies = tuple(Reply(*place) for place in answer.get("replies", ()))
    return Rendered(answer["text"], replies, answer["folded"])


def _write(stream: IO[bytes], value: Any) -> None:
    body = json.dumps(value).encode()
    stream.write(struct.pack("<I", len(body)) + body)
    stream.flush()


def _read(stream: IO[bytes]) -> Any:
    header = stream.read(4)
    if len(header) < 4:
        raise EOFError
    body = stream.read(struct.unpack("<I", header)[0])
    return json.loads(body)
