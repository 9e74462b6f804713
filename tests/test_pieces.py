"""Pieces of a reply: whole letters with every kind of tokenizer, and no dearer the longer it is."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from engine.contract.bundled import STARTER
from engine.pieces import Pieces

WORDS = ("Hello", "\u2581world", "\u2581", "\u2581\u2581", ".", "\u6f6e", "\n", "s", "\u2581I")
TEXT = (
    "\u00dcber 20 \u20ac,  \U0001f9dc\u200d\u2640\ufe0f \u6f6e! Don't  stop .\n\n  A list:\n- one\n"
    "\u4f60\u597d \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 "
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 end."
)


def byte_level() -> Any:
    return AutoTokenizer.from_pretrained(STARTER)


def with_byte_fallback() -> Any:
    """As Llama 2 and Gemma have it: words that begin with a space, and single bytes."""
    names = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    vocabulary = {name: number for number, name in enumerate(names)}
    model = models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """Words where there are some, else bytes."""
    found: list[int] = []
    while text:
        word = next((one for one in WORDS if text.startswith(one.replace("\u2581", " "))), "")
        if word:
            found.append(tokenizer.convert_tokens_to_ids(word))
        else:
            bytes_of = text[0].encode()
            found += [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in bytes_of]
        text = text[len(word) or 1 :]
    return found


def pieces_of(tokenizer: Any, tokens: list[int]) -> tuple[Pieces, list[str]]:
    told: list[str] = []
    pieces = Pieces(tokenizer, told.append)
    pieces.put(torch.tensor([[5, 6]]))
    for token in tokens:
        pieces.put(torch.tensor([token]))
    pieces.end()
    assert "".join(told) == pieces.text
    assert all(told)
    return pieces, told


def whole(tokenizer: Any, tokens: list[int]) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=True)


def test_they_are_the_text_of_a_byte_level_tokenizer() -> None:
    tokenizer = byte_level()
    tokens = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    pieces, told = pieces_of(tokenizer, tokens)
    assert pieces.text == TEXT
    assert len(told) > 20
    assert all("\ufffd" not in piece for piece in told)


def test_they_are_the_text_of_a_tokenizer_with_single_bytes() -> None:
    tokenizer = with_byte_fallback()
    text = "Hello world  I \u4f60\u597d\U0001f9dc \u6f6e.\n worlds  \u20ac"
    pieces, told = pieces_of(tokenizer, tokens_of(tokenizer, text))
    assert pieces.text == text == whole(tokenizer, tokens_of(tokenizer, text))
    assert all("\ufffd" not in piece for piece in told)


@pytest.mark.parametrize("make", [byte_level, with_byte_fallback])
def test_cut_anywhere_they_begin_the_text(make: Any) -> None:
    tokenizer = make()
    tokens = tokens_of(tokenizer, TEXT)
    if make is byte_level:
        tokens = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    for length in range(1, len(tokens)):
        pieces, _ = pieces_of(tokenizer, tokens[:length])
        assert TEXT.startswith(pieces.text)
        # Whole, the letters before one that is cut would be spoilt by it in one of these.
        assert len(pieces.text) >= len(whole(tokenizer, tokens[:length]).rstrip("\ufffd"))


def test_a_special_token_takes_no_space_with_it() -> None:
    tokenizer = with_byte_fallback()
    hello, world, end = tokenizer.convert_tokens_to_ids(["Hello", "\u2581world", "</s>"])
    pieces, _ = pieces_of(tokenizer, [hello, end, world, end, end, world])
    assert pieces.text == "Hello world world"


@pytest.mark.parametrize("make", [byte_level, with_byte_fallback])
def test_whatever_comes_nothing_is_lost_or_said_twice(make: Any) -> None:
    tokenizer, dice = make(), random.Random(7)
    words = tokens_of(with_byte_fallback(), "Hello world. I")
    for _ in range(20):
        tokens = [dice.randrange(3, 250) for _ in range(60)]
        # Ordinary words at the end arrive, whatever was before them.
        tokens += words if make is with_byte_fallback else tokenizer(" Hello world. I")["input_ids"]
        pieces, _ = pieces_of(tokenizer, tokens)
        assert pieces.text.endswith("Hello world. I")
        if make is byte_level:
            assert pieces.text == whole(tokenizer, tokens)


def test_a_token_costs_the_same_after_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_level()
    tokens = tokenizer(TEXT * 20, add_special_tokens=False)["input_ids"]
    decoded: list[int] = []
    decode = tokenizer.decode

    def counted(some: list[int], **options: Any) -> str:
        decoded.append(len(some))
        return decode(some, **options)

    monkeypatch.setattr(tokenizer, "decode", counted)
    pieces, _ = pieces_of(tokenizer, tokens)
    assert pieces.text == TEXT * 20
    assert len(tokens) > 1000
    assert max(decoded) <= 16
