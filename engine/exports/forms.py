"""The three forms in which a result is handed on: a model folder, an adapter, a GGUF."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from engine.contract.durable import read_json, write_json
from engine.data.template_process import template_process
from engine.exports.end_of_turn import turn_end_tokens
from engine.exports.gguf_file import (
    GgufFacts,
    GgufType,
    PlacedTensor,
    place_tensors,
    write_gguf,
)
from engine.exports.gguf_layouts import notes_of
from engine.exports.gguf_tokenizer import prove_tokens
from engine.exports.gguf_vocabulary import Vocabulary, vocabulary_of
from engine.exports.model_card import CardForm, MergeError, model_card
from engine.exports.modelfile import Modelfile, modelfile
from engine.exports.new_folder import new_folder
from engine.exports.result_folder import ResultFolder, copy_files, merged_bytes, write_merged
from engine.exports.run_facts import CARD, facts_of
from engine.exports.template_parts import conversations, parts_of
from engine.tokenizer import load_tokenizer

_GENERATION = "generation_config.json"
_QUESTIONS = (
    *("Hello!", "Who are you?", "What is 12 plus 30?", "Name 3 rivers, please.", "And then?"),
    *("Is it true that 7 x 8 = 56?", "don't you know?", 'Write JSON: {"a": [1, 2]}', "¿Por qué?"),
    *("Tell me about\n\n- bread\n- salt", "What's the time at 23:59?", "  Two spaces first", "Ok"),
    *("你好 今天天气怎么样", "Где мой ключ?", "C'est déjà l'été", "x = y**2 + 3.5e-4", "A\tB\tC"),
    *('Say "I\'ll be back" twice.', "🙂 how are you 🙂🙂"),
)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        merge: Of an adapter that was merged into its base.
        notes: What a person should know, a sentence each.
        details: More for programs.
    """

    merge: MergeError | None = None
    notes: Sequence[str] = field(default=())
    details: dict[str, Any] = field(default_factory=dict[str, Any])


def export_model_folder(result: ResultFolder, out: Path) -> Exported:
    """A model folder for plain transformers; an adapter is merged into its base.

    Raises:
        RequestError: The base cannot be had, or `out` cannot be written.
    """
    needed = merged_bytes(result) if result.is_adapter else result.file_bytes
    with new_folder(out, needed, result.run.path) as draft:
        merge = _fill_model_folder(result, draft)
        form = CardForm("merged" if merge else "model", _stored_format(draft), merge)
        _write_card(result, draft, form)
    return Exported(merge, (merge.sentence(),) if merge else ())


def export_adapter(result: ResultFolder, out: Path) -> Exported:
    """The adapter alone, for plain PEFT.

    Args:
        result: Of a run that trained one.
        out: Where to.

    Raises:
        RequestError: `out` cannot be written.
    """
    assert result.is_adapter, "whoever asks has made sure"
    with new_folder(out, result.file_bytes, result.run.path) as draft:
        copy_files(result.folder, draft)
        _write_card(result, draft, CardForm("adapter", "float32, adapter only"))
    return Exported()


def export_gguf(result: ResultFolder, out: Path, kind: GgufType) -> Exported:
    """A GGUF with a Modelfile for Ollama.

    Raises:
        RequestError: llama.cpp would not do the same, or `out` cannot be written.
    """
    needed = merged_bytes(result) * 2 if result.is_adapter else result.file_bytes
    name = f"{result.name}-{kind}.gguf"
    with new_folder(out, needed, result.run.path) as draft:
        source, merge = result.folder, None
        if result.is_adapter:
            source = draft / "merged"
            source.mkdir()
            merge = write_merged(result, source)
        written = _write_gguf(result, source, draft / name, kind)
        (draft / "Modelfile").write_text(written.modelfile.text, encoding="utf-8")
        form = CardForm("gguf", _gguf_format(kind), merge, written.notes, name)
        _write_card(result, draft, form)
        shutil.rmtree(draft / "merged", ignore_errors=True)
    notes = [*([merge.sentence()] if merge else []), *written.notes, written.modelfile.note]
    details = {
        "type": kind,
        "tokenizer": {
            "model": written.vocabulary.model,
            "pre": written.vocabulary.way.name if written.vocabulary.way else "default",
            "texts_compared": written.texts_compared,
        },
        "modelfile": {"has_template": written.modelfile.has_template},
    }
    return Exported(merge, notes, details)


@dataclass(frozen=True)
class _WrittenGguf:
    vocabulary: Vocabulary
    texts_compared: int
    modelfile: Modelfile
    notes: Sequence[str]


def _write_gguf(result: ResultFolder, source: Path, path: Path, kind: GgufType) -> _WrittenGguf:
    config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    tokenizer, _ = load_tokenizer(source)
    placed = place_tensors(source, config, kind)
    ends = _end_tokens(source, tokenizer)
    vocabulary = vocabulary_of(tokenizer, config.vocab_size, ends)
    texts_compared = prove_tokens(vocabulary, tokenizer, _texts(tokenizer))
    of_run = facts_of(result.run, step=result.step)
    facts = GgufFacts(of_run.name, tokenizer.get_chat_template(), of_run.licence)
    write_gguf(path, config, placed, vocabulary, kind, facts)
    bos = str(tokenizer.bos_token or "") if vocabulary.add_bos else ""
    stops = [tokenizer.convert_ids_to_tokens(end) for end in ends]
    made = modelfile(path.name, parts_of(tokenizer), stops, bos)
    notes = [*notes_of(config), *vocabulary.notes, *_odd_shapes(placed, kind)]
    return _WrittenGguf(vocabulary, texts_compared, made, notes)


def _odd_shapes(placed: Sequence[PlacedTensor], kind: GgufType) -> list[str]:
    odd = [one for one in placed if kind == "q8_0" and one.kind.name == "F16"]
    if not odd:
        return []
    return [f"{len(odd)} matrices have rows that are no multiple of 32 and stay in f16."]


def _texts(tokenizer: Any) -> list[str]:
    """What a model reads when it is asked: questions and conversations, with control tokens."""
    process = template_process(tokenizer)
    asked = [[{"role": "user", "content": question}] for question in _QUESTIONS]
    rendered = [process.prompt(messages) for messages in (*asked, *conversations())]
    return [one.text for one in rendered if not one.refusal]


def _fill_model_folder(result: ResultFolder, draft: Path) -> MergeError | None:
    if result.is_adapter:
        return write_merged(result, draft)
    copy_files(result.folder, draft)
    settings = read_json(draft / _GENERATION)
    if settings is not None:
        tokenizer, _ = load_tokenizer(draft)
        ends = _end_tokens(draft, tokenizer)
        settings["eos_token_id"] = ends[0] if len(ends) == 1 else ends or None
        write_json(draft / _GENERATION, settings)
    return None


def _end_tokens(folder: Path, tokenizer: Any) -> list[int]:
    """Every token that ends a reply, by the folder's settings, its tokenizer and its template."""
    told = (read_json(folder / _GENERATION) or {}).get("eos_token_id")
    listed = told if isinstance(told, list) else [told]
    known = [*listed, tokenizer.eos_token_id, *turn_end_tokens(tokenizer)]
    return sorted({int(token) for token in known if token is not None})


def _stored_format(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "unknown")


def _gguf_format(kind: GgufType) -> str:
    matrices = {
        "f16": "float16",
        "q8_0": "8 bits with a scale for every 32 values",
    }[kind]
    return f"{kind}: matrices in {matrices}, the rest in float32"


def _write_card(result: ResultFolder, draft: Path, form: CardForm) -> None:
    text = model_card(facts_of(result.run, step=result.step), form)
    (draft / CARD).write_text(text, encoding="utf-8")
