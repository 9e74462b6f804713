"""The ways in which llama.cpp cuts text into pieces, in which tokens are then sought.

A GGUF names its way in `tokenizer.ggml.pre`. The patterns are those of llama.cpp's vocabulary code;
which of them a tokenizer cuts like is found by comparing pieces, not by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from tokenizers import Regex, pre_tokenizers

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDINGS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Way:
    """One way to cut.

    Attributes:
        name: What a GGUF calls it.
        patterns: Applied one after the other; each cuts the pieces of the one before.
        whole_words: A piece that is a token is taken as it is, whatever merges would make of it.
    """

    name: str
    patterns: tuple[str, ...]
    whole_words: bool = False


WAYS = (
    Way("gpt-2", (_GPT2,)),
    Way("smollm", (r"\p{N}", _GPT2)),
    Way("llama-bpe", (rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}",), True),
    Way("qwen2", (rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}",)),
)

# One of each kind that the patterns tell apart.
_KINDS = ("a", "B", "é", "中", "1", "٣", "²", "'", "s", "L", "!", "_", " ", "\t", "\n", "\r", "😀")
_WORDS = (
    "She'd said: 'TIS we'LL see, don't you? It's 7, 42, 365, 1024 or 3.14159!!  (no...)\n\n"
    "\tdef f(x_1):\r\n    return x_1 ** 2  # ok?\n\n\n naïve Ñandú, Übergröße; 北京に12人。"
    " Привет, мир! "
    "مرحبا ١٢٣ \U0001f469\u200d\U0001f680 \u2705\u2705 e\u0301 \u00a0x\u3000y ---=== '' ``` \\\\ "
)


@cache
def cutting_texts() -> tuple[str, ...]:
    """Texts in which all ways differ: every three kinds of characters in a row, and words."""
    return (*("".join(three) for three in product(_KINDS, repeat=3)), _WORDS)


def pieces(way: Way, text: str) -> list[str]:
    """What a way cuts a text into."""
    return [piece for piece, _ in _cutter(way).pre_tokenize_str(text)] if text else []


@cache
def _cutter(way: Way) -> Any:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in way.patterns]
    return pre_tokenizers.Sequence(splits)


def way_of(pre_tokenizer: Any, *, takes_whole_words: bool) -> Way | None:
    """The way that cuts all of `cutting_texts` as a byte-level pre-tokenizer does.

    Args:
        pre_tokenizer: Of the `tokenizers` library.
        takes_whole_words: Whether its model ignores merges where a piece is a token.
    """
    for way in WAYS:
        if way.whole_words == takes_whole_words and _cuts_like(way, pre_tokenizer):
            return way
    return None


def _cuts_like(way: Way, pre_tokenizer: Any) -> bool:
    return all(
        [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]
        == [as_byte_letters(piece) for piece in pieces(way, text)]
        for text in cutting_texts()
    )


@cache
def byte_letters() -> Sequence[str]:
    """A letter for each byte: itself where it can be seen, else one from U+0100 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + hidden.index(byte)) for byte in range(256)]


def as_byte_letters(text: str) -> str:
    """A text as byte-level tokens spell it."""
    return "".join(byte_letters()[byte] for byte in text.encode())
