"""From a chat to tokens, with the mark of which of them are trained."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from engine.contract.errors import RequestError
from engine.data.control_tokens import ControlTokens
from engine.data.item_batches import ItemBatch, next_batch, words_of
from engine.data.items import Chat, Item, Passage
from engine.data.records import RowError
from engine.data.reply_tokens import (
    Encoding,
    ListedEncoding,
    Offsets,
    find_replies,
    kept_ranges,
    marks,
)
from engine.data.template_process import Rendered, template_process
from engine.data.tool_words import fitting_messages

# For models without a template of their own. It is saved with the result, so chat uses the same.
DEFAULT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token + '\\n' }}"
    "{% else %}"
    "{{ message['role'].capitalize() + ': ' + message['content'] + '\\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_AHEAD = 3  # batches on their way


@dataclass(frozen=True)
class Example:
    """One chat in tokens. `trained[i]` says whether token i is a target of the loss."""

    tokens: tuple[int, ...]
    trained: tuple[bool, ...]

    @property
    def num_trained(self) -> int:
        """Tokens that the loss counts."""
        return sum(self.trained)


@dataclass(slots=True)
class Encoded:
    """What became of one item.

    Attributes:
        examples: One for a chat; a passage may be cut into several.
        text: What the model reads, before any cut.
        encoding: The same in tokens.
        kept: For each example, the ranges of the encoding's tokens that it consists of.
        num_tokens: Of a chat before any cut; of a passage, which is never cut short, its longest
            piece.
        num_before: Tokens that each example has before these, such as the begin of a text.
        folded: The system message stands in the first question.
        has_control: The words held letters of a control token, which are read as letters.
        in_words: The template has no place for tools, so calls and results are written as words.
        unthought: The template has no place for thoughts, so they are not read.
    """

    examples: tuple[Example, ...]
    text: str
    encoding: Encoding
    kept: tuple[Sequence[range], ...]
    num_tokens: int
    num_before: int = 0
    folded: bool = False
    has_control: bool = False
    in_words: bool = False
    unthought: bool = False

    def offsets(self, index: int) -> Offsets:
        """Where in the text each token of an example stands, in characters."""
        places = self.encoding.offsets
        before: Offsets = [(0, 0)] * self.num_before
        return [*before, *(places[place] for part in self.kept[index] for place in part)]


class ChatEncoder:
    """Renders chats with a model's template and marks the replies.

    Args:
        tokenizer: A fast tokenizer of transformers with a chat template.
        sequence_length: Longer chats are cut: within a reply, which keeps its end mark, or after
            the last reply that is whole. Passages are cut into pieces of this many tokens.
        train_on: `replies` marks what the assistant says and its end-of-turn token; `all` marks
            every token.
    """

    def __init__(
        self, tokenizer: Any, sequence_length: int, train_on: Literal["replies", "all"]
    ) -> None:
        assert tokenizer.chat_template, "give the tokenizer DEFAULT_TEMPLATE first"
        self._tokenizer = tokenizer
        self._backend = _unlimited_backend(tokenizer)
        self._process = template_process(tokenizer)
        self._control = ControlTokens(tokenizer)
        self._sequence_length = sequence_length
        self._train_on = train_on
        template = tokenizer.get_chat_template()
        self._takes_tool_calls = "tool_calls" in template
        self._takes_reasoning = "reasoning_content" in template

    def encode(self, chat: Chat) -> Example:
        """Tokens and marks of one chat.

        Raises:
            RequestError: The template refuses this chat, or cuts leave nothing of it to learn.
        """
        (encoded,) = self.encode_all([chat])
        if isinstance(encoded, RowError):
            raise RequestError("data.source", f"{encoded}.", "Use other chats.") from encoded
        return encoded.examples[0]

    def encode_all(self, items: Iterable[Item]) -> Iterator[Encoded | RowError]:
        """What becomes of each item, in order; why nothing, where nothing does.

        Raises:
            RequestError: The template cannot be used at all.
        """
        waiting = iter(items)
        ahead: deque[Future[ItemBatch]] = deque()
        # While one batch is used here, the next is cut into tokens, and the one after rendered.
        with ThreadPoolExecutor(1) as renderer, ThreadPoolExecutor(1) as encoder:
            while True:
                while len(ahead) < _AHEAD and (batch := next_batch(waiting)):
                    rendered = renderer.submit(self._rendered, batch)
                    ahead.append(encoder.submit(self._in_tokens, rendered))
                if not ahead:
                    return
                yield from self._encode_batch(ahead.popleft().result())

    def prompt_tokens(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Tokens of a conversation up to where the assistant begins to speak.

        Raises:
            RequestError: The template refuses it.
        """
        return self.prompt(messages)[1]

    def prompt(self, messages: Sequence[dict[str, Any]]) -> tuple[str, list[int]]:
        """What `prompt_tokens` are the tokens of, and these.

        Raises:
            RequestError: The template refuses it.
        """
        hidden = [self._hidden(message) for message in messages]
        rendered = self._process.prompt(hidden)
        if rendered.refusal:
            raise RequestError(
                "messages",
                f"the model's chat template refuses this conversation: {rendered.refusal}.",
                "Use turns as the model expects them.",
            )
        if hidden == list(messages):
            encoding = self._backend.encode(rendered.text, add_special_tokens=False)
            return rendered.text, list(encoding.ids)
        return self._control.reveal(rendered.text), self._control.encode(rendered.text).ids

    @property
    def control_names(self) -> dict[int, str]:
        """Ids that are no words, such as the end of a turn, and what they are called."""
        return self._control.names

    def _messages(self, chat: Chat) -> list[dict[str, Any]]:
        """A chat as the template takes it."""
        messages = [turn.as_message() for turn in chat]
        if any(turn.tool_calls or turn.reasoning or turn.role == "tool" for turn in chat):
            return fitting_messages(messages, self._takes_tool_calls, self._takes_reasoning)
        return messages

    def _hidden(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message without the letters of control tokens, in calls and thoughts neither."""
        hidden = {key: self._control.hide_in(value) for key, value in message.items()}
        return {**hidden, "role": message["role"]}

    def _rendered(self, items: Sequence[Item]) -> ItemBatch:
        chats = [item for item in items if not isinstance(item, Passage)]
        odd = [any(map(self._control.are_in, words_of(chat))) for chat in chats]
        messages = [
            [self._hidden(message) for message in self._messages(chat)]
            if is_odd
            else self._messages(chat)
            for chat, is_odd in zip(chats, odd, strict=True)
        ]
        rendered = self._process.chats(messages) if chats else []
        return ItemBatch(items, chats, odd, rendered)

    def _in_tokens(self, rendered: Future[ItemBatch]) -> ItemBatch:
        batch = rendered.result()
        plain = [
            one.text
            for one, is_odd in zip(batch.rendered, batch.odd, strict=True)
            if not (one.refusal or is_odd)
        ]
        batch.encodings = self._backend.encode_batch(plain, add_special_tokens=False)
        return batch

    def _encode_batch(self, batch: ItemBatch) -> Iterator[Encoded | RowError]:
        of_chats = self._encode_chats(batch)
        for item in batch.items:
            yield self._passage(item) if isinstance(item, Passage) else next(of_chats)

    def _encode_chats(self, batch: ItemBatch) -> Iterator[Encoded | RowError]:
        encodings = iter(batch.encodings)
        for chat, one, is_odd in zip(batch.chats, batch.rendered, batch.odd, strict=True):
            if one.refusal:
                yield RowError(f"the model's chat template refuses it: {one.refusal}")
            else:
                encoding = self._control.encode(one.text) if is_odd else next(encodings)
                yield self._encoded(chat, one, encoding, is_odd=is_odd)

    def _encoded(
        self, chat: Chat, rendered: Rendered, encoding: Encoding, *, is_odd: bool
    ) -> Encoded | RowError:
        text = self._control.reveal(rendered.text) if is_odd else rendered.text
        ids, limit = encoding.ids, self._sequence_length
        if self._train_on == "all":
            example = _piece(ids[:limit])
            kept = [range(len(example.tokens))]
        else:
            trained = [turn.trained for turn in chat if turn.role == "assistant"]
            replies = find_replies(encoding, len(text), rendered.replies, trained)
            kept = kept_ranges(encoding, limit, replies)
            first, *rest = kept
            tokens = ids[: first.stop]
            for part in rest:
                tokens += ids[part.start : part.stop]
            example = Example(tuple(tokens), marks(kept, replies))
            if not any(example.trained[1:]):
                return RowError(f"no reply begins within {limit:,} tokens")
        return Encoded(
            (example,),
            text,
            encoding,
            (kept,),
            len(ids),
            folded=rendered.folded,
            has_control=is_odd,
            in_words=not self._takes_tool_calls and any(turn.tool_calls for turn in chat),
            unthought=not self._takes_reasoning and any(turn.reasoning for turn in chat),
        )

    def _passage(self, passage: Passage) -> Encoded:
        """Plain text, all of it trained, in pieces of at most the sequence length."""
        begin = [token for token in [self._tokenizer.bos_token_id] if token is not None]
        end = [token for token in [self._tokenizer.eos_token_id] if token is not None]
        is_odd = self._control.are_in(passage.text)
        encoding: Encoding = (
            self._control.encode(self._control.hide(passage.text))
            if is_odd
            else self._backend.encode(passage.text, add_special_tokens=False)
        )
        if passage.is_whole and end:
            after = (len(passage.text), len(passage.text))
            encoding = ListedEncoding([*encoding.ids, *end], [*encoding.offsets, after])
        ids = encoding.ids
        size = max(2, self._sequence_length - len(begin))
        parts = [range(at, min(at + size, len(ids))) for at in range(0, len(ids), size)]
        examples = tuple(_piece([*begin, *ids[part.start : part.stop]]) for part in parts)
        kept = tuple([part] for part in parts)
        longest = max((len(example.tokens) for example in examples), default=0)
        return Encoded(
            examples, passage.text, encoding, kept, longest, len(begin), has_control=is_odd
        )


def _unlimited_backend(tokenizer: Any) -> Any:
    """The tokenizer proper; it must tell where in a text each token stands.

    Raises:
        RequestError: It cannot.
    """
    if not tokenizer.is_fast:
        raise RequestError(
            "model.source",
            "its tokenizer does not tell where in a text its tokens stand.",
            "Choose a model with a tokenizer.json.",
        )
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer.backend_tokenizer


def _piece(tokens: Sequence[int]) -> Example:
    return Example(tuple(tokens), (True,) * len(tokens))
