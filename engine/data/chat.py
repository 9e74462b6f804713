"""From a chat to tokens, with the mark of which of them are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jinja2

from engine.contract.errors import RequestError
from engine.data.formats import Chat

# For models without a template of their own. It is saved with the result, so chat uses the same.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token + '\\n' }}"
    "{% else %}"
    "{{ message['role'].capitalize() + ': ' + message['content'] + '\\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

# A character for private use, so it is in no real text.
_STAND_IN = "\ue000"


@dataclass(frozen=True)
class Example:
    """One chat in tokens. `trained[i]` says whether token i is a target of the loss."""

    tokens: tuple[int, ...]
    trained: tuple[bool, ...]

    @property
    def num_trained(self) -> int:
        """Tokens that the loss counts."""
        return sum(self.trained)


class ChatEncoder:
    """Renders chats with a model's template and marks the replies.

    Args:
        tokenizer: A fast tokenizer of transformers with a chat template.
        sequence_length: Longer chats are cut at this many tokens.
        train_on: `replies` marks what the assistant says and its end-of-turn token; `all` marks
            every token.
    """

    def __init__(
        self, tokenizer: Any, sequence_length: int, train_on: Literal["replies", "all"]
    ) -> None:
        assert tokenizer.chat_template, "give the tokenizer DEFAULT_TEMPLATE first"
        self._tokenizer = tokenizer
        self._sequence_length = sequence_length
        self._train_on = train_on

    def encode(self, chat: Chat) -> Example:
        """Tokens and marks of one chat.

        Raises:
            RequestError: The template refuses this chat.
        """
        text = self._render(chat)
        encoded = self._tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            truncation=True,
            max_length=self._sequence_length,
        )
        spans = [(0, len(text))] if self._train_on == "all" else self._reply_spans(chat, text)
        trained = tuple(
            any(start < span_end and end > span_start for span_start, span_end in spans)
            for start, end in encoded["offset_mapping"]
        )
        return Example(tuple(encoded["input_ids"]), trained)

    def prompt_tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokens of a conversation up to where the assistant begins to speak."""
        text = self._render_messages(messages, add_generation_prompt=True)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, chat: Chat) -> str:
        return self._render_messages([turn.as_message() for turn in chat])

    def _render_messages(
        self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool = False
    ) -> str:
        try:
            return self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateError as error:
            raise RequestError(
                "data.source",
                f"the model's chat template refuses a chat: {error}.",
                "Use chats that take turns as the model expects.",
            ) from error

    def _reply_spans(self, chat: Chat, text: str) -> list[tuple[int, int]]:
        """Where in the rendered text each reply stands, its end-of-turn mark included."""
        messages = [turn.as_message() for turn in chat]
        spans: list[tuple[int, int]] = []
        for index, turn in enumerate(chat):
            if turn.role != "assistant":
                continue
            said = self._render_messages(messages[:index])
            prompt = self._render_messages(messages[:index], add_generation_prompt=True)
            through = self._render_messages(messages[: index + 1])
            # A prompt may promise an empty thought where this reply has one.
            given = _common_start(prompt, text)
            if prompt[:given].startswith(said) and text.startswith(through):
                spans.append((given, len(through.rstrip())))
            else:
                spans.append(self._rewritten_span(messages, index, text))
        return spans

    def _rewritten_span(
        self, messages: Sequence[dict[str, str]], index: int, text: str
    ) -> tuple[int, int]:
        """Where a template rewrites earlier turns, a stand-in shows the place of their reply."""
        marked = list(messages)
        marked[index] = {**marked[index], "content": _STAND_IN}
        before, found, after = self._render_messages(marked).partition(_STAND_IN)
        end_mark = self._render_messages(marked[: index + 1]).partition(_STAND_IN)[2].rstrip()
        end = len(text) - len(after)
        if not (found and text.startswith(before) and text.endswith(after) and end >= len(before)):
            raise RequestError(
                "data.source",
                "the model's chat template changes a reply, so the words to learn cannot be found.",
                "Set data.train_on to all, or use chats with a single reply.",
            )
        return len(before), end + len(end_mark) * after.startswith(end_mark)


def _common_start(one: str, other: str) -> int:
    """Number of characters that two texts have in common from their beginning."""
    if other.startswith(one):
        return len(one)
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
