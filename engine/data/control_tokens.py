"""Control tokens that stand in people's words: they are read as text, never as control.

A tokenizer makes a control token of `<|im_end|>` wherever it finds these letters, in a question or
an answer too. So where a chat holds such letters, they are exchanged for others of the same length
while the template is applied; what the template itself wrote gets names that no text has, and a
copy of the tokenizer knows control tokens by these names only.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any

from tokenizers import Encoding, Tokenizer

from engine.data.reply_tokens import ListedEncoding

# Planes of Unicode for private use: what people wrote, and what the template wrote.
_WRITTEN = 0xF0000
_CONTROL = 0x100000
_PLANE = 0xFFFD
_STAND_INS = re.compile("[\U000f0000-\U000ffffd\U00100000-\U0010fffd]")


class ControlTokens:
    """The control tokens of one tokenizer, and how to read a text that talks about them.

    Attributes:
        names: Of all control tokens, by id.

    Args:
        tokenizer: A fast tokenizer of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        special = {
            str(token): number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        # A longer one is looked for before one that it begins with.
        self._names = sorted(special, key=len, reverse=True)[:_PLANE]
        self.names = {number: name for name, number in special.items()}
        pattern = "|".join(map(re.escape, self._names))
        self._pattern = re.compile(pattern) if pattern else re.compile(r"(?!)")
        self._index = {name: index for index, name in enumerate(self._names)}

    def are_in(self, text: str) -> bool:
        """Whether the text holds the letters of a control token."""
        return self._pattern.search(text) is not None

    def hide(self, text: str) -> str:
        """The same text, of the same length, without the letters of control tokens.

        What stands in for them is for private use; where a text holds such characters itself, they
        become U+FFFD.
        """
        text = _STAND_INS.sub("\ufffd", text)
        return self._pattern.sub(lambda found: self._exchanged(found[0], _WRITTEN), text)

    def hide_in(self, value: Any) -> Any:
        """The same JSON value with every text in it hidden, also the names of its fields."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, list):
            return [self.hide_in(one) for one in value]
        if isinstance(value, dict):
            return {self.hide(key): self.hide_in(one) for key, one in value.items()}
        return value

    def reveal(self, rendered: str) -> str:
        """A rendered text as people read it: what was hidden is back."""
        for index, name in enumerate(self._names):
            hidden = chr(_WRITTEN + index) * len(name)
            if hidden in rendered:
                rendered = rendered.replace(hidden, name)
        return rendered

    def encode(self, rendered: str) -> ListedEncoding:
        """The tokens of a rendered text whose words were hidden.

        Args:
            rendered: What the template made of hidden words; every control token in it is the
                template's own.
        """
        named = self._pattern.sub(lambda found: self._exchanged(found[0], _CONTROL), rendered)
        encoding: Encoding = self._copy.encode(self.reveal(named), add_special_tokens=False)
        back = self._back
        ids = [back.get(number, number) for number in encoding.ids]
        return ListedEncoding(ids, encoding.offsets)

    def _exchanged(self, name: str, plane: int) -> str:
        return chr(plane + self._index[name]) * len(name)

    @cached_property
    def _copy(self) -> Tokenizer:
        """The tokenizer with other names for its control tokens."""
        document = json.loads(self._backend.to_str())
        for token in document["added_tokens"]:
            if token["content"] in self._index:
                token["content"] = self._exchanged(token["content"], _CONTROL)
        # It adds tokens around a text, which a template does itself.
        document["post_processor"] = None
        document["truncation"] = document["padding"] = None
        return Tokenizer.from_str(json.dumps(document))

    @cached_property
    def _back(self) -> dict[int, int]:
        """From ids of added tokens in the copy to those in the tokenizer."""
        back: dict[int, int] = {}
        for number, token in self._backend.get_added_tokens_decoder().items():
            name = token.content
            named = self._exchanged(name, _CONTROL) if name in self._index else name
            copied = self._copy.token_to_id(named)
            assert copied is not None
            back[copied] = number
        return back
