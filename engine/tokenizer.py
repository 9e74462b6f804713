"""A model's tokenizer, and the chat template that goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from engine.contract.errors import RequestError
from engine.contract.model_source import FIELD
from engine.data.chat import DEFAULT_TEMPLATE


def load_tokenizer(folder: Path) -> tuple[Any, bool]:
    """The tokenizer, and whether it had to be given a chat template.

    Raises:
        RequestError: It cannot be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RequestError(
            FIELD, f"the tokenizer in {folder} cannot be read.", "Get it anew."
        ) from error
    if tokenizer.chat_template:
        return tokenizer, False
    tokenizer.chat_template = DEFAULT_TEMPLATE
    return tokenizer, True
