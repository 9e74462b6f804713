"""A mistake as a person reads it."""

from __future__ import annotations

import re

from engine.contract.errors import RequestError

_PLAIN_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?[,:]?(?:\s|$)")


# The engine names methods and settings as a spec does; the page as its labels do.
_AS_ON_THE_PAGE = (
    (re.compile(r"^lomo\b"), "LOMO"),
    (re.compile(r"^adalomo\b"), "AdaLomo"),
    (re.compile(r"\buse grad_accumulation 1\b"), "set Accumulation to 1"),
    (re.compile(r"\bUse grad_accumulation 1\b"), "Set Accumulation to 1"),
    (re.compile(r"\b[Ll]eave max_grad_norm out\b"), "Leave Max gradient norm empty"),
    (re.compile(r"\bor use gradients stack\b"), "or set Gradients to stack"),
    (re.compile(r"\bor gradients stack\b"), "or Gradients to stack"),
    (
        re.compile(r"\bSay which column is what in data\.columns, such as [^,.]*"),
        "Choose the columns under How it is read",
    ),
    (re.compile(r"\bdata\.columns\b"), "How it is read"),
    (re.compile(r"\bset data\.encoding\b"), "set Encoding, under How it is read"),
    (re.compile(r"\bdata\.encoding\b"), "Encoding"),
    (re.compile(r"\bset data\.format to text\b"), "set Format to Plain text"),
    (re.compile(r"\bdata\.format\b"), "Format"),
    (re.compile(r"\bdata\.config\b"), "Part of the dataset"),
    (re.compile(r"\bdata\.split\b"), "Split"),
)


def in_words_of_the_page(text: str) -> str:
    """A sentence of the engine with methods and settings called as the page calls them.

    >>> in_words_of_the_page("lomo moves each weight; use grad_accumulation 1, or gradients stack.")
    'LOMO moves each weight; set Accumulation to 1, or Gradients to stack.'
    """
    for spec_word, word in _AS_ON_THE_PAGE:
        text = spec_word.sub(word, text)
    return text


def sentence(error: RequestError) -> str:
    """A mistake as a person reads it: capital first, cause, way out.

    A name, a path or a hub id at the start keeps its spelling.

    >>> sentence(RequestError("steps", "must be at least 1.", "Try 60."))
    'Must be at least 1. Try 60.'
    >>> sentence(RequestError("model.source", "meta-llama/Llama-2-7b-hf is not on this computer."))
    'meta-llama/Llama-2-7b-hf is not on this computer.'
    >>> sentence(RequestError("model.source", "gpt2 is not on this computer."))
    'gpt2 is not on this computer.'
    """
    text = in_words_of_the_page(f"{error.message} {error.advice}".strip())
    return text[:1].upper() + text[1:] if _PLAIN_WORD.match(text) else text
