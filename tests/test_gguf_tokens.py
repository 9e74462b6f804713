"""Every text has the same tokens in a GGUF, or the tokenizer is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gguf import TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from engine.contract.bundled import STARTER
from engine.contract.errors import RequestError
from engine.exports.gguf_tokenizer import GgufTokenizer, prove_tokens
from engine.exports.gguf_vocabulary import vocabulary_of
from engine.exports.text_cutting import WAYS, cutting_texts, pieces, way_of
from tests.pieces import pieces_tokenizer
from tests.tiny import VOCABULARY, tiny_tokenizer


def byte_level(pre_tokenizer: Any) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def test_each_way_of_cutting_is_known_by_what_it_does() -> None:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    cases = [
        (plain, False, "gpt-2"),
        (digits, False, "smollm"),
        (split(LLAMA_3_SPLIT), True, "llama-bpe"),
        (split(LLAMA_3_SPLIT.replace("{1,3}", "")), False, "qwen2"),
        (split(LLAMA_3_SPLIT), False, None),
        (split(LLAMA_3_SPLIT.replace("{1,3}", "{1,2}")), True, None),
        (split(r"\s+"), False, None),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), False, None),
    ]
    for pre_tokenizer, whole, name in cases:
        way = way_of(pre_tokenizer, takes_whole_words=whole)
        assert (way.name if way else None) == name


def test_all_ways_differ_on_the_texts_that_tell_them_apart() -> None:
    cuts = [[pieces(way, text) for text in cutting_texts()] for way in WAYS]
    assert len({json.dumps(one) for one in cuts}) == len(WAYS)
    assert all("".join(one) == text for text, one in zip(cutting_texts(), cuts[0], strict=True))


def test_tokenizers_that_llama_cpp_has_not_are_refused() -> None:
    stripping = tiny_tokenizer()
    stripping.backend_tokenizer.add_tokens([AddedToken("<|x|>", special=True, rstrip=True)])
    lower = tiny_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    words = tiny_tokenizer()
    words.backend_tokenizer.model = models.WordLevel({"a": 0}, unk_token="a")
    unordered = pieces_tokenizer()
    document = json.loads(unordered.backend_tokenizer.to_str())
    merges = document["model"]["merges"]
    incomplete = pieces_tokenizer()
    incomplete._tokenizer = incomplete.backend_tokenizer.from_str(
        json.dumps({**document, "model": {**document["model"], "merges": merges[:-1]}})
    )
    unordered._tokenizer = unordered.backend_tokenizer.from_str(
        json.dumps({**document, "model": {**document["model"], "merges": shuffled(merges)}})
    )
    cases = [
        (byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), "cuts text in a way of its"),
        (stripping, "<|x|> takes in the spaces beside it"),
        (lower, "it changes text first (Lowercase)"),
        (words, "its kind is WordLevel"),
        (incomplete, "its list of pairs leaves some out"),
        (unordered, "the order of its pairs is not one by scores"),
    ]
    for tokenizer, why in cases:
        with pytest.raises(RequestError) as found:
            vocabulary_of(tokenizer, 500, [])
        assert why in found.value.message
    with pytest.raises(RequestError, match="tokens and the model 100"):
        vocabulary_of(tiny_tokenizer(), 100, [])


def shuffled(merges: list[Any]) -> list[Any]:
    """Two pairs with one whole, and another between them."""
    wholes = ["".join(pair) for pair in merges]
    twice = next(n for n, whole in enumerate(wholes) if whole in wholes[:n])
    return [*merges[:twice], *merges[twice + 1 :], merges[twice]]


def test_other_tokens_are_found_out() -> None:
    tokenizer = tiny_tokenizer()
    vocabulary = vocabulary_of(tokenizer, VOCABULARY, [])
    assert prove_tokens(vocabulary, tokenizer, ["Mara bakes bread."]) > 500
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("bakes", "sells")
    with pytest.raises(RequestError, match="other tokens than the model learned, as in 'Mara"):
        prove_tokens(vocabulary, tokenizer, ["Mara bakes bread."])


STARTER_TOKENIZER = AutoTokenizer.from_pretrained(STARTER)
PIECES = pieces_tokenizer()
READERS = [
    (tokenizer, GgufTokenizer(vocabulary_of(tokenizer, len(tokenizer), [])))
    for tokenizer in (STARTER_TOKENIZER, tiny_tokenizer(), PIECES)
]
WORDS = st.sampled_from(
    [" ", "  ", "Mara", "Otto sells", "<|end|>", "<|user|>", "<s>", "</s>", "12", "'s", "\n", "é"]
)


@settings(max_examples=150, deadline=None)
@given(text=st.lists(st.one_of(WORDS, st.text(max_size=12)), max_size=12).map("".join))
def test_any_text_has_the_tokens_that_the_model_learned(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    for tokenizer, reader in READERS:
        expected = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        assert reader.encode(text) == expected


def test_a_tokenizer_of_pieces_says_what_it_does() -> None:
    vocabulary = vocabulary_of(PIECES, len(PIECES) + 5, [])
    assert vocabulary.model == "llama"
    assert (vocabulary.add_bos, vocabulary.add_eos, vocabulary.add_space) == (True, False, True)
    assert vocabulary.special == {"bos": 1, "eos": 2, "unk": 0}
    assert vocabulary.types[3:259] == [int(TokenType.BYTE)] * 256
    assert list(vocabulary.types[-5:]) == [int(TokenType.UNUSED)] * 5
    scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    firsts = [one + other for one, other in merges_of(PIECES)]
    assert scores[firsts[0]] == 0
    assert [scores[whole] for whole in firsts] == sorted(
        (scores[whole] for whole in firsts), reverse=True
    )


def merges_of(tokenizer: Any) -> list[list[str]]:
    return json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]


def test_the_end_of_a_turn_that_is_not_the_end_of_text_is_told() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    end, turn_end = (tokenizer.get_vocab()[name] for name in ("<|endoftext|>", "<|im_end|>"))
    special = vocabulary_of(tokenizer, VOCABULARY, [end, turn_end]).special
    assert (special["eos"], special["eot"]) == (end, turn_end)


def test_added_words_are_cut_out_of_a_text_first() -> None:
    tokenizer = pieces_tokenizer()
    tokenizer.backend_tokenizer.add_tokens([AddedToken("bread", normalized=False)])
    vocabulary = vocabulary_of(tokenizer, len(tokenizer), [])
    number = tokenizer.get_vocab()["bread"]
    assert vocabulary.types[number] == TokenType.USER_DEFINED
    texts = ["Mara bakes bread and breadbread.", "bread", "<s>Otto sells bread</s>"]
    assert number in GgufTokenizer(vocabulary).encode(texts[0])
    assert prove_tokens(vocabulary, tokenizer, texts) > 500
