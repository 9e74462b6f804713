"""A model folder as one GGUF file, which llama.cpp, Ollama and others run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFType,
    GGUFWriter,
    LlamaFileType,
    get_tensor_name_map,
    quants,
)
from safetensors import safe_open
from torch import Tensor

from engine.contract.errors import RequestError
from engine.contract.model_source import read_header
from engine.exports.gguf_layouts import FIELD, Layout, describe, extra_tensors, layout_of
from engine.exports.gguf_vocabulary import Vocabulary

GgufType = Literal["f16", "q8_0"]
_TYPES = {"f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
_FILE_TYPES = {"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
_HEAD = "lm_head.weight"
# By this in a model's name llama.cpp takes its tokenizer for Phi-3's own, and fails on any other.
_PHI_3 = re.compile("phi-?3", re.IGNORECASE)


@dataclass(frozen=True)
class PlacedTensor:
    """One tensor of a GGUF.

    Attributes:
        name: In the GGUF.
        source: In the model's files; empty for what only a GGUF has.
        file: The file that holds it.
        shape: As numpy has it, the largest stride first.
        kind: How its values are stored.
    """

    name: str
    source: str
    file: Path | None
    shape: tuple[int, ...]
    kind: GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        block, size = GGML_QUANT_SIZES[self.kind]
        return math.prod(self.shape) // block * size


def place_tensors(folder: Path, config: Any, kind: GgufType) -> list[PlacedTensor]:
    """Where every weight of a model folder goes, by the headers of its files alone.

    Raises:
        RequestError: llama.cpp has no place for one, or would not follow a setting of the model.
    """
    layout = layout_of(config)
    names = get_tensor_name_map(layout.architecture, config.num_hidden_layers)
    placed: list[PlacedTensor] = []
    for name, tensor in extra_tensors(config):
        shape = tuple(tensor.shape)
        placed.append(PlacedTensor(name, "", None, shape, GGMLQuantizationType.F32))
    for file in sorted(folder.glob("*.safetensors")):
        for source, (_, size) in read_header(file).items():
            if layout.drops_head and source == _HEAD:
                _refuse_own_head(config)
                continue
            name = names.get_name(source, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise RequestError(
                    FIELD, f"llama.cpp has no place for the weight {source}.", "Use --to hf."
                )
            empty = torch.empty(size, device="meta")
            shape = tuple(layout.change(source, empty, config).shape)
            placed.append(PlacedTensor(name, source, file, shape, _kind_of(name, shape, kind)))
    return placed


def _refuse_own_head(config: Any) -> None:
    if not getattr(config, "tie_word_embeddings", True):
        raise RequestError(FIELD, "llama.cpp has no place for the model's head.", "Use --to hf.")


def _kind_of(name: str, shape: tuple[int, ...], wish: GgufType) -> GGMLQuantizationType:
    """As llama.cpp's conversion chooses it: what is small or delicate stays in float32."""
    is_delicate = name.endswith("_norm.weight") or name == "position_embd.weight"
    if len(shape) < 2 or is_delicate or not name.endswith(".weight"):
        return GGMLQuantizationType.F32
    block, _ = GGML_QUANT_SIZES[_TYPES[wish]]
    return GGMLQuantizationType.F16 if shape[-1] % block else _TYPES[wish]


@dataclass(frozen=True)
class GgufFacts:
    """What a GGUF tells of a model beside its weights and its tokenizer.

    Attributes:
        name: For people.
        template: The chat template, in Jinja.
        licence: Of the base, where it is known.
    """

    name: str
    template: str
    licence: str | None


def write_gguf(
    path: Path,
    config: Any,
    placed: Sequence[PlacedTensor],
    vocabulary: Vocabulary,
    kind: GgufType,
    facts: GgufFacts,
) -> None:
    """Write the file, one tensor in memory at a time.

    Args:
        path: Must not exist.
        config: The model's, of transformers.
        placed: As `place_tensors` found it.
        vocabulary: The tokenizer.
        kind: The format of the matrices.
        facts: What else it tells.

    Raises:
        RequestError: A weight does not fit into the format.
        OSError: The disk is full or failing.
    """
    layout = layout_of(config)
    writer = GGUFWriter(None, MODEL_ARCH_NAMES[layout.architecture])
    try:
        _add_facts(writer, facts, kind)
        describe(writer, config)
        _add_vocabulary(writer, vocabulary)
        writer.add_chat_template(facts.template)
        for one in placed:
            writer.add_tensor_info(
                one.name, one.shape, np.dtype(np.float32), one.nbytes, raw_dtype=one.kind
            )
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values in _values(placed, layout, config):
            writer.write_tensor_data(values)
    finally:
        writer.close()


def _add_facts(writer: GGUFWriter, facts: GgufFacts, kind: GgufType) -> None:
    writer.add_type(GGUFType.MODEL)
    writer.add_name(_PHI_3.sub("Phi 3", facts.name))
    if facts.licence:
        writer.add_license(facts.licence)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.way.name if vocabulary.way else "default")
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    if vocabulary.model == "llama":
        writer.add_token_scores(list(vocabulary.scores))
        writer.add_add_space_prefix(vocabulary.add_space)
    else:
        writer.add_token_merges(list(vocabulary.merges))
    add = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "eot": writer.add_eot_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
    }
    for purpose, number in vocabulary.special.items():
        add[purpose](number)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)


def _values(
    placed: Iterable[PlacedTensor], layout: Layout, config: Any
) -> Iterator[np.ndarray[Any, Any]]:
    extra = dict(extra_tensors(config))
    for one in placed:
        tensor = extra[one.name] if one.file is None else _read(one, layout, config)
        yield _stored(tensor.float(), one)


def _read(one: PlacedTensor, layout: Layout, config: Any) -> Tensor:
    with safe_open(str(one.file), framework="pt") as file:
        return layout.change(one.source, file.get_tensor(one.source), config)


def _stored(tensor: Tensor, one: PlacedTensor) -> np.ndarray[Any, Any]:
    if one.kind == GGMLQuantizationType.F16:
        values = tensor.half()
        if not bool(values.isfinite().all()):
            raise RequestError(
                "--type", f"{one.source} holds values that f16 cannot.", "Use --type q8_0."
            )
        return values.contiguous().numpy()
    values = tensor.contiguous().numpy()
    return quants.quantize(values, one.kind)
