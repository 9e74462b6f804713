"""Which tokens belong to a reply, and which are kept of a chat that is too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.data.template_process import Reply

Offsets = list[tuple[int, int]]


class Encoding(Protocol):
    """A text in tokens, with the place of each: `tokenizers.Encoding`, or one like it."""

    def __len__(self) -> int:
        """Number of tokens."""
        ...

    @property
    def ids(self) -> list[int]:
        """Token ids."""
        ...

    @property
    def offsets(self) -> Offsets:
        """Begin and end of each token in the text, in characters."""
        ...


@dataclass(slots=True)
class ListedEncoding:
    """An encoding that is known as two lists."""

    ids: list[int]
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True)
class ReplyTokens:
    """Tokens `first` up to, but without, `end`; only `trained` ones are targets of the loss."""

    first: int
    end: int
    reply: Reply
    trained: bool


def find_replies(
    encoding: Encoding, num_characters: int, replies: Sequence[Reply], trained: Sequence[bool]
) -> list[ReplyTokens]:
    """The tokens of each reply: all that share a character with it.

    Args:
        encoding: The whole chat.
        num_characters: Of its text.
        replies: Where they stand in the text.
        trained: Which of them are learned.
    """
    found: list[ReplyTokens] = []
    for reply, is_trained in zip(replies, trained, strict=True):
        place = _asked(encoding, num_characters, reply) or _sought(encoding, reply)
        if place is not None:
            found.append(ReplyTokens(*place, reply, is_trained))
    return found


def _asked(encoding: Any, num_characters: int, reply: Reply) -> tuple[int, int] | None:
    """The tokenizer knows quickly which token holds a character, where one does."""
    ask = getattr(encoding, "char_to_token", None)
    if ask is None or reply.end <= reply.start:
        return None
    first, last = ask(reply.start), ask(reply.end - 1)
    after = len(encoding) if reply.end >= num_characters else ask(reply.end)
    if first is None or last is None or after is None:
        return None
    # Several tokens may share the last character, and one may hold that and the next.
    return first, max(after, last + 1)


def _sought(encoding: Encoding, reply: Reply) -> tuple[int, int] | None:
    inside = [
        place
        for place, (start, end) in enumerate(encoding.offsets)
        if start < reply.end and end > reply.start
    ]
    return (inside[0], inside[-1] + 1) if inside else None


def kept_ranges(encoding: Encoding, limit: int, replies: Sequence[ReplyTokens]) -> list[range]:
    """Which tokens are kept of a chat that may have more than `limit`.

    A reply that is cut keeps its end mark, so that no reply is learned without an end. Where the
    cut falls between replies, or leaves not a word of one, the chat ends with the reply before.
    """
    num_tokens = len(encoding)
    if num_tokens <= limit:
        return [range(num_tokens)]
    whole = 0
    for one in replies:
        if not one.trained:
            continue
        if one.end <= limit:
            whole = one.end
            continue
        mark = _mark(encoding, one)
        words = limit - (one.end - mark)
        if one.first < words:
            return [range(words), range(mark, one.end)]
        break
    return [range(whole)]


def _mark(encoding: Encoding, one: ReplyTokens) -> int:
    """The first token of a reply's end mark."""
    offsets = encoding.offsets
    mark = one.end
    while mark > one.first and offsets[mark - 1][0] >= one.reply.mark:
        mark -= 1
    return mark


def marks(ranges: Sequence[range], replies: Sequence[ReplyTokens]) -> tuple[bool, ...]:
    """For each kept token, whether it is a target of the loss."""
    num_tokens = ranges[-1].stop
    every: list[bool] = []
    for one in replies:
        if one.trained and one.first < num_tokens:
            every += [False] * (one.first - len(every))
            every += [True] * (min(one.end, num_tokens) - len(every))
    every += [False] * (num_tokens - len(every))
    if len(ranges) == 1:
        return tuple(every)
    return tuple([mark for part in ranges for mark in every[part.start : part.stop]])
