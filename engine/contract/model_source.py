"""Which model a request means, and whether a folder holds one that may be loaded. No torch."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.contract.bundled import STARTER, catalogue
from engine.contract.durable import as_object
from engine.contract.errors import RequestError
from engine.contract.paths import is_file, is_folder, typed_path

FIELD = "model.source"
ADAPTER_CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 1_000_000
MAX_HEADER_BYTES = 100_000_000
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# What reading a file that is not what it says can raise.
DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
)
# Hundreds of times what the largest published models have, by the names of their configs.
_LARGEST = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), 2_000),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 1_000_000),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner"), 10_000_000),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_key_value_heads"), 100_000),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 10_000),
    "head_dim": 1_000_000,
    "vocab_size": 100_000_000,
}
_REMOTE_CODE = ("auto_map", "_attn_implementation_internal", "custom_generate")


@dataclass(frozen=True)
class ModelReference:
    """Where a model's files are, or will be: `folder` is None until a hub model is downloaded."""

    kind: Literal["starter", "catalogue", "folder", "hub"]
    name: str
    folder: Path | None = None
    hub_id: str | None = None


def resolve_model(source: str) -> ModelReference:
    """Find out what `model.source` means. Looks at names only, downloads nothing.

    Raises:
        RequestError: It is neither the starter, a catalogue name, a folder nor a hub id.
    """
    if source == "starter":
        return ModelReference("starter", "starter", folder=STARTER)
    known = catalogue().get(source)
    if known:
        return ModelReference("catalogue", source, hub_id=known.hub_id)
    folder = typed_path(source)
    if is_folder(folder):
        return ModelReference("folder", folder.name, folder=folder.resolve())
    if is_file(folder):
        raise RequestError(FIELD, f"{source} is a file.", "Name the folder that holds the model.")
    if _HUB_ID.fullmatch(source):
        return ModelReference("hub", source, hub_id=source)
    raise RequestError(
        FIELD,
        f"there is no folder and no model called {source!r}.",
        "Use starter, a catalogue name, a folder, or a hub id such as owner/name.",
    )


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder holds an adapter as PEFT keeps it, and no model of its own."""
    return is_file(folder / ADAPTER_CONFIG) and not is_file(folder / "config.json")


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Refuse a folder that holds no safe, readable model, before anything is loaded.

    Returns:
        The parsed config.json.

    Raises:
        RequestError: No or broken config.json, no tokenizer, only pickles, remote code, or
            already quantized weights.
    """
    config = read_config(folder)
    names = {entry.name for entry in folder.iterdir()}
    if not any(name.endswith(".safetensors") for name in names):
        _refuse_missing_weights(folder, names)
    if not names & {"tokenizer.json", "tokenizer.model", "vocab.json"}:
        raise RequestError(
            FIELD, f"{folder} has no tokenizer.", "Copy tokenizer.json from the original model."
        )
    for weights in folder.glob("*.safetensors"):
        read_header(weights)
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder, checked for what must never be loaded.

    Raises:
        RequestError: It is missing, broken, or asks for code of its own.
    """
    path = folder / "config.json"
    if not is_file(path):
        raise RequestError(
            FIELD, f"{folder} has no config.json.", "Name the folder of a Hugging Face model."
        )
    try:
        is_small = path.stat().st_size <= MAX_CONFIG_BYTES
        config = as_object(json.loads(path.read_bytes())) if is_small else None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(FIELD, f"{path} is not readable JSON.", "Get it anew.") from error
    if not is_small:
        raise RequestError(FIELD, f"{path} is larger than 1 MB.", "It is no model config.")
    if config is None:
        raise RequestError(FIELD, f"{path} holds no JSON object.", "Get it anew.")
    _refuse_unsafe(config, folder)
    text = as_object(config.get("text_config"))
    for part in (config, text or {}):
        _refuse_absurd_sizes(part, path)
    return config


def _refuse_absurd_sizes(config: dict[str, Any], path: Path) -> None:
    """Sizes that no model has: to build such a one, even without weights, would never end."""
    for name, largest in _LARGEST.items():
        value = config.get(name)
        if value is None or isinstance(value, list | dict):  # block by block
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= largest:
            raise RequestError(
                FIELD,
                f"{path} says {name} is {_short(value)}, and no model has that.",
                f"It must be a whole number from 1 to {largest:,}.",
            )


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**24 else str(value)[:24]


def _refuse_unsafe(config: dict[str, Any], folder: Path) -> None:
    for key in _REMOTE_CODE:
        if key in config:
            raise RequestError(
                FIELD,
                f"{folder} wants to run code of its own ({key} in config.json).",
                "Such models are never loaded; choose an architecture that transformers has.",
            )
    if "quantization_config" in config:
        raise RequestError(
            FIELD,
            f"{folder} is already quantized.",
            "Choose the original in 16 or 32 bits; the method quantizes it itself.",
        )


def _refuse_missing_weights(folder: Path, names: set[str]) -> None:
    if any(name.endswith(_PICKLES) for name in names):
        raise RequestError(
            FIELD,
            f"{folder} holds pickled weights only, and a pickle can run code when it is opened.",
            "Choose a copy of the model in safetensors format.",
        )
    raise RequestError(FIELD, f"{folder} holds no safetensors weights.", "Choose another folder.")


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Names, dtypes and shapes in a safetensors file, without its data.

    Raises:
        RequestError: The file is cut short or no safetensors file.
    """
    try:
        if not path.is_file():
            raise ValueError("no file, so opening it could wait for ever")
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > min(MAX_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError("header longer than the file")
            header = json.loads(file.read(length))
            tensors = {
                name: (str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
                for name, entry in header.items()
                if name != "__metadata__"
            }
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key in tensors]
            if 8 + length + max(ends, default=0) != path.stat().st_size:
                raise ValueError("data shorter or longer than the header says")
    except DAMAGE as error:
        raise RequestError(
            FIELD, f"{path} is damaged or no safetensors file.", "Get it anew."
        ) from error
    return tensors


def count_parameters(folder: Path) -> int:
    """Number of stored weights in a model folder, from the headers alone."""
    return sum(
        math.prod(shape)
        for file in folder.glob("*.safetensors")
        for _, shape in read_header(file).values()
    )
