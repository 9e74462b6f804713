"""Items that are rendered and encoded together: enough to keep both processes busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from engine.data.items import Chat, Item, Passage
from engine.data.reply_tokens import Encoding
from engine.data.template_process import Rendered

_BATCH = 256
_BATCH_CHARACTERS = 1 << 20


@dataclass(slots=True)
class ItemBatch:
    """Items whose chats are rendered, and encoded but for `odd` ones about control tokens."""

    items: Sequence[Item]
    chats: Sequence[Chat]
    odd: Sequence[bool]
    rendered: Sequence[Rendered]
    encodings: Sequence[Encoding] = ()


def next_batch(items: Iterator[Item]) -> list[Item]:
    """The next items: so many of them, or so many characters, whichever comes first."""
    batch: list[Item] = []
    size = 0
    for item in islice(items, _BATCH):
        batch.append(item)
        words = (item.text,) if isinstance(item, Passage) else (turn.content for turn in item)
        size += sum(map(len, words))
        if size > _BATCH_CHARACTERS:
            break
    return batch


def words_of(chat: Chat) -> Iterator[str]:
    """All that people, models and tools said in a chat."""
    for turn in chat:
        yield turn.content
        if turn.reasoning:
            yield turn.reasoning
        for call in turn.tool_calls:
            yield call.name
            yield call.arguments
