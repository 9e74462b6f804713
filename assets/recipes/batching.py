"""Conversations as padded batches of token ids and loss weights, sorted by length."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from assets.recipes.world import Message, World, conversations

CHUNK = 12_000
WIDTHS = (16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 112, 128, 192, 256, 320, 384, 512)
MAX_LENGTH = 512
PROMPT_WEIGHT = 0.1

Encoded = tuple[list[int], list[float]]


def encode(tokenizer: PreTrainedTokenizerFast, chats: Sequence[list[Message]]) -> list[Encoded]:
    """Token ids, the same as the chat template gives, and the loss weight of each.

    Replies weigh 1, what the user says a little: every token gets a use as an output that way.
    """
    ids_of = tokenizer.get_vocab()
    texts = [turn["content"] for chat in chats for turn in chat]
    pieces = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    encoded = []
    for chat in chats:
        tokens, weights = [tokenizer.bos_token_id], [0.0]
        for turn in chat:
            body = [*next(pieces), tokenizer.eos_token_id]
            weight = 1.0 if turn["role"] == "assistant" else PROMPT_WEIGHT
            tokens += [ids_of[f"<|{turn['role']}|>"], *body]
            weights += [PROMPT_WEIGHT] + [weight] * len(body)
        if len(tokens) <= MAX_LENGTH:
            encoded.append((tokens, weights))
    return encoded


def _grouped(encoded: list[Encoded], batch_tokens: int) -> Iterator[tuple[int, list[Encoded]]]:
    """Rows of a width and the width, few different shapes: kernels are built once for each."""
    by_width: dict[int, list[Encoded]] = defaultdict(list)
    for pair in encoded:
        by_width[next(width for width in WIDTHS if width >= len(pair[0]))].append(pair)
    for width, pairs in sorted(by_width.items()):
        size = max(1, batch_tokens // width)
        for start in range(0, len(pairs) - size + 1, size):
            yield width, pairs[start : start + size]


def batches(
    tokenizer: PreTrainedTokenizerFast, world: World, seed: int, batch_tokens: int = 4096
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and weights, both (rows, width) and padded at the right; endless.

    A few conversations at the end of each stretch do not fill a batch and are left out.
    """
    pad = tokenizer.pad_token_id
    for stretch in count():
        chunk_seed = seed * 1_000_003 + stretch
        encoded = encode(tokenizer, list(conversations(world, CHUNK, chunk_seed)))
        groups = list(_grouped(encoded, batch_tokens))
        random.Random(chunk_seed).shuffle(groups)
        for width, group in groups:
            ids = torch.tensor([tokens + [pad] * (width - len(tokens)) for tokens, _ in group])
            yield ids, torch.tensor([w + [0.0] * (width - len(w)) for _, w in group])
