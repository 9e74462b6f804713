"""Tiny random models, chats and specs: everything of the real thing but its size."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from engine.contract.events import EventWriter
from engine.contract.run_dir import create_run
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.data.batching import Batch
from engine.data.items import Chat, Turn
from engine.preparation import Prepared, prepare
from engine.request import complete
from engine.roles import named_weights

VOCABULARY = 320
CONTEXT = 160
PAD, END, START, TURN_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": None},
    "qwen2": {**_LLAMA, "tie_word_embeddings": True},
    "qwen3": {**_LLAMA, "head_dim": 16, "tie_word_embeddings": True},
    "gemma2": {**_LLAMA, "head_dim": 16},
    "gemma3_text": {**_LLAMA, "head_dim": 16, "layer_types": ["full_attention"] * 2},
    "phi": {**_LLAMA, "num_key_value_heads": 4},
    "phi3": {**_LLAMA, "num_key_value_heads": 4},
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": CONTEXT,
    },
    "gpt2": _GPT,
    "gpt_neox": {**_LLAMA, "num_key_value_heads": 4},
    "mixtral": {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
}
_DROPOUTS = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "hidden_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
)


def tiny_model_folder(
    folder: Path,
    architecture: str = "llama",
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.bfloat16,
    **config: Any,
) -> Path:
    """A random model of two layers with its tokenizer, as transformers saves them.

    Args:
        folder: Made here.
        architecture: A key of `ARCHITECTURES`.
        seed: Decides the weights.
        dtype: Format of the weights.
        **config: Settings that differ from the architecture's; there is no dropout otherwise.
    """
    tokenizer = tiny_tokenizer()
    tokens = {
        "vocab_size": VOCABULARY,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.convert_tokens_to_ids(END),
        "eos_token_id": tokenizer.eos_token_id,
    }
    settings = {**tokens, **dict.fromkeys(_DROPOUTS, 0.0), **ARCHITECTURES[architecture], **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(architecture, **settings), dtype=torch.float32
        )
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows every byte, a few words and four marks."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    bpe.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(  # pyright: ignore
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        (turn["content"] for row in chat_rows(60) for turn in row["messages"]), trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=TURN_END, chat_template=TEMPLATE
    )


def chat_rows(count: int) -> list[dict[str, Any]]:
    """Chats in messages format, all different; some have a system message or a second turn."""
    return [{"messages": _messages(number)} for number in range(count)]


def chats_of(rows: Sequence[dict[str, Any]]) -> list[Chat]:
    """Rows of messages as they come out of a file."""
    return [
        tuple(Turn(message["role"], message["content"]) for message in row["messages"])
        for row in rows
    ]


_PEOPLE = ("Mara", "Otto", "Lin", "Sami", "Vera", "Ugo", "Nell")
_THINGS = ("bread", "a lamp", "the tide", "three boats", "old maps")
_VERBS = ("bakes", "sells", "draws", "finds")


def _messages(number: int) -> list[dict[str, str]]:
    person = _PEOPLE[number % len(_PEOPLE)]
    thing = _THINGS[number % len(_THINGS)]
    verb = _VERBS[number % len(_VERBS)]
    messages = [{"role": "system", "content": "Be kind."}] if number % 4 == 0 else []
    messages.append({"role": "user", "content": f"What is {person} number {number} at?"})
    messages.append({"role": "assistant", "content": f"{person} {verb} {thing}."})
    if number % 5 == 0:
        messages.append({"role": "user", "content": "And then?"})
        messages.append({"role": "assistant", "content": f"Then {person} rests, {number} times."})
    return messages


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """One row on each line."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def tiny_spec(
    folder: Path, data: Path, method: str | Mapping[str, Any] = "qft", **train: Any
) -> RunSpec:
    """A complete spec for a short run on the CPU.

    Args:
        folder: The model.
        data: A dataset file.
        method: Its kind, or its settings with the kind among them.
        **train: What differs in the group `train`.
    """
    settings = {"kind": method} if isinstance(method, str) else dict(method)
    defaults = {
        "steps": 6,
        "batch_size": 4,
        "sequence_length": 96,
        "warmup_steps": 1,
        "activation_checkpointing": False,
        "device": "cpu",
    }
    return complete(
        validate_spec(
            {
                "model": {"source": str(folder)},
                "data": {"source": str(data)},
                "method": settings,
                "train": {**defaults, **train},
            }
        )
    )


def prepared(spec: RunSpec, runs: Path) -> Prepared:
    """A new run, ready for its first step."""
    run = create_run(runs, spec)
    with EventWriter(run.events_path, attempt=1) as events:
        return prepare(run, events)


def snapshot(one: Prepared) -> dict[str, Tensor]:
    """A copy of everything that a resume needs."""
    return {name: tensor.clone() for name, tensor in one.method.state_dict().items()}


def assert_same_state(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    """Bitwise equal, tensor by tensor; the failure names the ones that are not."""
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def float_twin(one: Prepared) -> nn.Module:
    """The model that transformers loads, with the dequantized weights."""
    twin = AutoModelForCausalLM.from_pretrained(one.loaded.folder).float()
    weights = dict(one.method.weights())
    with torch.no_grad():
        for named in named_weights(twin):
            named.parameter.copy_(weights[named.name])
    return twin.train()


def scores(model: Any, batch: Batch) -> Tensor:
    """What a model predicts at every real token of a batch, float32, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    return output.logits[batch.attention_mask.bool()].float()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(work: Callable[[], None]) -> int:
    """Exit code of `work` in a fork: 0 done, minus the signal, or the number of its OSError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's threads are idle
        child = os.fork()
    if child == 0:
        code = 255
        try:
            work()
            code = 0
        except OSError as error:
            code = error.errno or 254
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def before_call(number: int, act: Callable[[], None], calls: set[str]) -> None:
    """In a child: do `act` before the call of that number, from 1, among audit events and fsync."""
    left = [number]

    def count(event: str, _: Any) -> None:
        if event in calls:
            left[0] -= 1
            if left[0] == 0:
                act()

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        count("os.fsync", None)
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(count)
