"""Loading a model and its tokenizer with transformers: safetensors only, no code of the model's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
)
from transformers.utils import logging

from engine.contract.errors import RequestError
from engine.contract.model_source import (
    FIELD,
    ModelReference,
    check_model_folder,
    read_header,
)
from engine.hub import download
from engine.memory.devices import choose_device
from engine.model_switches import attention_of
from engine.tokenizer import load_tokenizer

# What transformers raises where a config fits no model.
_NO_MODEL = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)
_FORMATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Output goes to a log or a pipe, where a progress bar is noise.
logging.disable_progress_bar()
# bitsandbytes warns that an optional package is missing, which nothing here needs.
getLogger("bitsandbytes.backends").setLevel(ERROR)


@dataclass(frozen=True)
class LoadedModel:
    """A model in main memory with what belongs to it.

    Attributes:
        template_added: The model had no chat template and got `DEFAULT_TEMPLATE`.
        stored_dtype: Format of the weights in the files; the result is stored in it too.
    """

    model: nn.Module
    tokenizer: Any
    folder: Path
    template_added: bool
    stored_dtype: torch.dtype

    @property
    def pad_token(self) -> int:
        """The id that fills rows up; masked everywhere, so a stand-in does no harm."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id or 0)

    @property
    def max_position(self) -> int | None:
        """Longest sequence that the model was made for, in tokens."""
        value = getattr(self.model.config, "max_position_embeddings", None)
        return int(value) if value else None


def fetch_model(reference: ModelReference, revision: str | None) -> Path:
    """The folder with the model's files; a hub model is downloaded.

    Raises:
        RequestError: It cannot be had, or the folder must not be loaded.
    """
    folder = reference.folder
    if folder is None:
        assert reference.hub_id is not None
        folder = download(reference.hub_id, revision, weights=True)
    check_model_folder(folder)
    return folder


def load_model(folder: Path, dtype: torch.dtype | None = None) -> LoadedModel:
    """Load weights into main memory.

    Args:
        folder: A checked model folder.
        dtype: Format of the weights; as stored if None.

    Raises:
        RequestError: transformers has no such architecture, or the files do not fit it.
    """
    config = _causal_config(folder)
    tokenizer, template_added = load_tokenizer(folder)
    try:
        loading: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype or "auto",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation=attention_of(config),
            output_loading_info=True,
        )
        model, found = loading
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise RequestError(
            FIELD, f"the weights in {folder} do not load: {reason}", "Get them anew."
        ) from error
    if found["missing_keys"]:
        # transformers would fill them with random numbers.
        raise RequestError(
            FIELD,
            f"{folder} lacks {len(found['missing_keys'])} weights, such as "
            f"{min(found['missing_keys'])}.",
            "Get it anew.",
        )
    return LoadedModel(model.eval(), tokenizer, folder, template_added, _stored_dtype(folder))


def _stored_dtype(folder: Path) -> torch.dtype:
    """The format of most weights in the files."""
    headers = (read_header(file) for file in folder.glob("*.safetensors"))
    counts = Counter(dtype for header in headers for dtype, _ in header.values())
    return _FORMATS.get(counts.most_common(1)[0][0], torch.bfloat16)


def _causal_config(folder: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (StrictDataclassError, *_NO_MODEL) as error:
        raise _unreadable(folder, error) from error
    reads_both_ways = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_decoder
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or reads_both_ways:
        raise RequestError(
            FIELD,
            f"{config.model_type} is no causal language model.",
            "Choose a model that writes text, such as Llama, Qwen or Gemma.",
        )
    return config


def _unreadable(folder: Path, error: Exception) -> RequestError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()[:200]
    return RequestError(
        FIELD,
        f"transformers makes no model of {folder / 'config.json'}: {reason}",
        "Get it anew, or choose another model.",
    )


def empty_model(folder: Path) -> nn.Module:
    """The model on the meta device: no memory, no weights.

    Raises:
        RequestError: Its config is no causal language model's, or its sizes do not fit together.
    """
    config = _causal_config(folder)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    except (StrictDataclassError, *_NO_MODEL) as error:
        raise _unreadable(folder, error) from error


def choose_torch_device(wish: str) -> torch.device:
    """The device that `train.device` means to torch: the one that the forecast speaks of.

    Raises:
        RequestError: This torch cannot use it.
    """
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if not available[wish.partition(":")[0]]:
        raise RequestError("train.device", f"this computer has no usable {wish}.", "Use auto.")
    return torch.device(choose_device(wish).id if wish.startswith("cuda") else wish)
