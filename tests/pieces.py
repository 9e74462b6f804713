"""A tokenizer as SentencePiece makes them: spaces as letters, bytes for what it does not know."""

from __future__ import annotations

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.tiny import VOCABULARY, chat_rows

SPACE = "\u2581"
SPECIAL = ("<unk>", "<s>", "</s>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('no system message') }}{% endif %}{% endfor %}"
)


def pieces_tokenizer(size: int = VOCABULARY + 80) -> PreTrainedTokenizerFast:
    """With all pairs that its tokens allow, the best scored first, as transformers lists them."""
    plain = _learned(size - len(SPECIAL) - 256)
    named = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *plain]
    vocabulary = {token: number for number, token in enumerate(named)}
    known = set(plain)
    merges = [
        (whole[:at], whole[at:])
        for whole in plain
        for at in range(1, len(whole))
        if whole[:at] in known and whole[at:] in known
    ]
    bpe = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    bpe.normalizer = normalizers.Sequence(  # pyright: ignore
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    bpe.decoder = decoders.Sequence(  # pyright: ignore
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    bpe.add_special_tokens(list(SPECIAL))
    bpe.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=TEMPLATE,
    )


def _learned(count: int) -> list[str]:
    """Letters, then words and parts of words in the order in which they were found."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore
    trainer = trainers.BpeTrainer(vocab_size=count, show_progress=False)  # pyright: ignore
    texts = (turn["content"] for row in chat_rows(60) for turn in row["messages"])
    bpe.train_from_iterator(texts, trainer)
    vocabulary = bpe.get_vocab()
    return sorted(vocabulary, key=lambda token: vocabulary[token])
