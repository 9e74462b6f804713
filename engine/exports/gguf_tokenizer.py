"""Tokens as llama.cpp finds them, from what a GGUF holds: to prove that they are the tokenizer's.

Written after what llama.cpp's vocabulary code does, and as slow as it is simple.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from gguf import TokenType

from engine.contract.errors import RequestError
from engine.exports.gguf_vocabulary import FIELD, SPACE, Vocabulary
from engine.exports.text_cutting import as_byte_letters, cutting_texts, pieces

_FOUND_IN_TEXT = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)


class GgufTokenizer:
    """Reads text with the vocabulary of a GGUF."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; names of control tokens in it are these tokens."""
        found: list[int] = []
        after_control = True
        for part in self._parts(text):
            if isinstance(part, int):
                found.append(part)
                after_control = True
            else:
                found += self._encode_plain(part, after_control=after_control)
                after_control = False
        return found

    def _parts(self, text: str) -> list[str | int]:
        parts: list[str | int] = [text]
        for token, number in self._named:
            parts = [piece for part in parts for piece in _cut_out(part, token, number)]
        return [part for part in parts if part != ""]

    @cached_property
    def _named(self) -> list[tuple[str, int]]:
        """Longest first."""
        vocabulary = self._vocabulary
        named = [
            (token, number)
            for number, token in enumerate(vocabulary.tokens)
            if vocabulary.types[number] in _FOUND_IN_TEXT and token
        ]
        return sorted(named, key=lambda one: -len(one[0].encode()))

    def _encode_plain(self, text: str, *, after_control: bool) -> list[int]:
        vocabulary = self._vocabulary
        if vocabulary.model == "gpt2":
            assert vocabulary.way is not None
            whole = vocabulary.way.whole_words
            words = (as_byte_letters(piece) for piece in pieces(vocabulary.way, text))
            return [token for word in words for token in self._word(word, whole=whole)]
        if vocabulary.add_space and after_control:
            text = " " + text
        symbols = _joined(list(text.replace(" ", SPACE)), self._score)
        return [token for symbol in symbols for token in self._symbol(symbol)]

    def _word(self, word: str, *, whole: bool) -> list[int]:
        if whole and word in self._numbers:
            return [self._numbers[word]]
        return [self._numbers[symbol] for symbol in _joined(list(word), self._rank)]

    def _symbol(self, symbol: str) -> list[int]:
        if symbol in self._numbers:
            return [self._numbers[symbol]]
        return [self._numbers[f"<0x{byte:02X}>"] for byte in symbol.encode()]

    def _rank(self, one: str, other: str) -> float | None:
        return self._ranks.get((one, other))

    def _score(self, one: str, other: str) -> float | None:
        number = self._numbers.get(one + other)
        return None if number is None else -self._vocabulary.scores[number]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self._vocabulary.tokens)}

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        pairs = (merge.split(" ") for merge in self._vocabulary.merges)
        return {(one, other): rank for rank, (one, other) in enumerate(pairs)}


def _cut_out(part: str | int, token: str, number: int) -> Iterator[str | int]:
    if isinstance(part, int) or token not in part:
        yield part
        return
    for index, rest in enumerate(part.split(token)):
        if index:
            yield number
        yield rest


def _joined(symbols: list[str], cost: Callable[[str, str], float | None]) -> list[str]:
    """Join the neighbours that cost least, the leftmost of equals, until none can be joined."""
    while True:
        costs = [
            (price, at)
            for at, (one, other) in enumerate(pairwise(symbols))
            if (price := cost(one, other)) is not None
        ]
        if not costs:
            return symbols
        _, at = min(costs)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def prove_tokens(vocabulary: Vocabulary, tokenizer: Any, texts: Sequence[str]) -> int:
    """Compare the tokens of texts, and of texts in which ways of cutting differ.

    Args:
        vocabulary: Read off the tokenizer.
        tokenizer: Of transformers.
        texts: As the model reads them, control tokens included.

    Returns:
        How many texts were compared.

    Raises:
        RequestError: Tokens of one differ.
    """
    as_gguf = GgufTokenizer(vocabulary)
    backend = tokenizer.backend_tokenizer
    normal = [text for text in (*texts, *cutting_texts()[::7]) if _is_normal(backend, text)]
    for text in normal:
        if as_gguf.encode(text) != backend.encode(text, add_special_tokens=False).ids:
            raise RequestError(
                FIELD,
                f"llama.cpp would read other tokens than the model learned, as in {text[:40]!r}.",
                "Use --to hf.",
            )
    return len(normal)


def _is_normal(backend: Any, text: str) -> bool:
    """Text that byte-level normalisers would change is outside of what is promised."""
    normalizer = backend.normalizer
    if normalizer is None or type(normalizer).__name__ != "NFC":
        return True
    return normalizer.normalize_str(text) == text
