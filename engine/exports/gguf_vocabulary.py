"""A tokenizer as a GGUF holds it: tokens with their kinds, and merges or scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gguf import TokenType

from engine.contract.errors import RequestError
from engine.exports.text_cutting import Way, way_of

FIELD = "--to"
SPACE = "\u2581"
_UNUSED_SCORE = -10_000.0
_ADDED_SCORE = -1000.0
_ADVICE = "Use --to hf, which any tokenizer can go with."


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp needs to know of a tokenizer.

    Attributes:
        model: `gpt2` for byte-level pairs, `llama` for pairs as SentencePiece keeps them.
        way: How byte-level text is cut; None where it is not.
        tokens: One for each row of the token table, in its order.
        types: `gguf.TokenType` of each.
        scores: Of each, where the model is `llama`: of two pairs the higher is joined first.
        merges: Pairs as `one other`, the first before all others, where it is `gpt2`.
        special: Ids by what they are for: bos, eos, eot, unk, pad.
        add_bos: Whether a text begins with the bos token by itself.
        add_eos: Whether it ends with the eos token by itself.
        add_space: Whether a space is put before a text, where the model is `llama`.
    """

    model: Literal["gpt2", "llama"]
    way: Way | None
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float]
    merges: Sequence[str]
    special: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    add_space: bool
    notes: Sequence[str] = field(default=())


def vocabulary_of(tokenizer: Any, num_tokens: int, turn_ends: Sequence[int]) -> Vocabulary:
    """Read a tokenizer.

    Args:
        tokenizer: A fast one of transformers.
        num_tokens: Rows of the model's token table.
        turn_ends: Tokens that end a reply.

    Raises:
        RequestError: llama.cpp has no tokenizer that would do the same.
    """
    document = _document(tokenizer, num_tokens)
    bpe = document["model"]
    added = {int(one["id"]): one for one in document["added_tokens"]}
    is_pieces = bool(bpe.get("byte_fallback"))
    way, notes = (None, ()) if is_pieces else _byte_level(tokenizer, document)
    tokens, types = _tokens(bpe["vocab"], added, num_tokens, bytes_too=is_pieces)
    merges = [_pair(merge) for merge in bpe["merges"]]
    plain = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    return Vocabulary(
        model="llama" if is_pieces else "gpt2",
        way=way,
        tokens=tokens,
        types=types,
        scores=_scores(tokens, types, merges) if is_pieces else (),
        merges=() if is_pieces else [f"{one} {other}" for one, other in merges],
        special=_special(tokenizer, turn_ends),
        add_bos=bool(plain) and plain[0] == tokenizer.bos_token_id and plain[0] != bare[0],
        add_eos=bool(plain) and plain[-1] == tokenizer.eos_token_id and plain[-1] != bare[-1],
        add_space=is_pieces and tokenizer.convert_ids_to_tokens(bare[0]).startswith(SPACE),
        notes=notes,
    )


def _document(tokenizer: Any, num_tokens: int) -> dict[str, Any]:
    """What tokenizer.json says of pairs of bytes or of pieces."""
    if not tokenizer.is_fast:
        raise _refusal("it has no tokenizer.json")
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe = document["model"]
    if bpe["type"] != "BPE" or bpe.get("dropout"):
        raise _refusal(f"its kind is {bpe['type']}")
    for one in document["added_tokens"]:
        if one["lstrip"] or one["rstrip"] or one["single_word"]:
            raise _refusal(f"{one['content']} takes in the spaces beside it")
    if len(tokenizer) > num_tokens:
        raise _refusal(f"it has {len(tokenizer):,} tokens and the model {num_tokens:,}")
    return document


def _byte_level(tokenizer: Any, document: dict[str, Any]) -> tuple[Way, Sequence[str]]:
    normalizer = (document.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):
        raise _refusal(f"it changes text first ({normalizer})")
    backend = tokenizer.backend_tokenizer
    if backend.pre_tokenizer is None:
        raise _refusal("it cuts no text into pieces")
    whole = bool(document["model"].get("ignore_merges"))
    way = way_of(backend.pre_tokenizer, takes_whole_words=whole)
    if way is None:
        raise _refusal("it cuts text in a way of its own")
    note = "Text that is not in Unicode's form NFC is read as it is, not normalised first."
    return way, (note,) if normalizer else ()


def _tokens(
    vocabulary: Mapping[str, int],
    added: Mapping[int, Mapping[str, Any]],
    num_tokens: int,
    *,
    bytes_too: bool,
) -> tuple[list[str], list[int]]:
    by_id = {number: token for token, number in vocabulary.items()}
    tokens: list[str] = []
    types: list[int] = []
    for number in range(num_tokens):
        token = by_id.get(number)
        if number in added:
            one = added[number]
            token = str(one["content"])
            kind = TokenType.CONTROL if one["special"] else TokenType.USER_DEFINED
            if kind == TokenType.USER_DEFINED and bytes_too:
                token = token.replace(SPACE, " ")
        elif token is None:
            token, kind = f"[PAD{number}]", TokenType.UNUSED
        else:
            kind = TokenType.BYTE if bytes_too and _is_byte(token) else TokenType.NORMAL
        tokens.append(token)
        types.append(int(kind))
    return tokens, types


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _pair(merge: Any) -> tuple[str, str]:
    one, other = merge.split(" ") if isinstance(merge, str) else merge
    return one, other


def _scores(
    tokens: Sequence[str], types: Sequence[int], merges: Sequence[tuple[str, str]]
) -> list[float]:
    """SentencePiece joins the pair whose whole scores best; `tokenizers` the first in its list.

    Raises:
        RequestError: No scores give the order of the list.
    """
    places: dict[str, int] = {}
    last = ""
    for one, other in merges:
        whole = one + other
        if whole != last:
            if whole in places:
                raise _refusal("the order of its pairs is not one by scores")
            places[whole] = len(places)
            last = whole
    _check_complete(tokens, types, merges)
    scores: list[float] = []
    for token, kind in zip(tokens, types, strict=True):
        if kind == TokenType.UNUSED:
            scores.append(_UNUSED_SCORE)
        elif kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
            scores.append(_ADDED_SCORE)
        else:
            scores.append(-float(places[token]) if token in places else 0.0)
    return scores


def _check_complete(
    tokens: Sequence[str], types: Sequence[int], merges: Sequence[tuple[str, str]]
) -> None:
    """By scores every two tokens are a pair that together are one; a list may leave some out.

    Added words are cut out of a text before, so pairs that make one are of no account.
    """
    kinds = dict(zip(tokens, types, strict=True))
    plain = {token for token, kind in kinds.items() if kind == TokenType.NORMAL}
    listed = set(merges)
    for whole in plain:
        if any(pair not in listed for pair in _halves(whole, plain)):
            raise _refusal("its list of pairs leaves some out")
    if any(kinds.get(one + other) == TokenType.CONTROL for one, other in merges):
        raise _refusal("it joins pairs to a control token")


def _halves(whole: str, plain: set[str]) -> Iterator[tuple[str, str]]:
    for at in range(1, len(whole)):
        one, other = whole[:at], whole[at:]
        if one in plain and other in plain:
            yield one, other


def _special(tokenizer: Any, turn_ends: Sequence[int]) -> dict[str, int]:
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    other = [token for token in turn_ends if token != tokenizer.eos_token_id]
    if other:
        ids["eot"] = other[0]
    return {name: int(number) for name, number in ids.items() if number is not None}


def _refusal(why: str) -> RequestError:
    return RequestError(FIELD, f"llama.cpp has no tokenizer like this one: {why}.", _ADVICE)
