"""A mistake as a person reads it."""

from __future__ import annotations

import re

from engine.contract.errors import RequestError

_PLAIN_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?[,:]?(?:\s|$)")


def sentence(error: RequestError) -> str:
    """A mistake as a person reads it: capital first, cause, way out.

    A name, a path or a hub id at the start keeps its spelling.

    >>> sentence(RequestError("steps", "must be at least 1.", "Try 60."))
    'Must be at least 1. Try 60.'
    >>> sentence(RequestError("model.source", "meta-llama/Llama-2-7b-hf is not on this computer."))
    'meta-llama/Llama-2-7b-hf is not on this computer.'
    """
    text = f"{error.message} {error.advice}".strip()
    return text[:1].upper() + text[1:] if _PLAIN_WORD.match(text) else text
