"""A mistake as a person reads it."""

from __future__ import annotations

import re

from engine.contract.errors import RequestError
from qft_gui.answers import label_of
from qft_gui.chat_process import ChatError

# What a sentence of ours may begin with; any other word there is a name, and keeps its spelling.
OPENINGS = frozenset(
    {
        "a",
        "an",
        "at",
        "between",
        "both",
        "fused",
        "in",
        "it",
        "its",
        "line",
        "memory",
        "must",
        "no",
        "nothing",
        "one",
        "others",
        "should",
        "steps",
        "the",
        "there",
        "they",
        "this",
        "these",
        "those",
        "unknown",
    }
)
_FIRST_WORD = re.compile(r"[a-z]+(?=\W|$)")
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
    (re.compile(r"\b[Uu]se --to hf\b(?: or gguf)?"), "Choose Hugging Face folder"),
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

    A name, a path or a hub id at the start keeps its spelling, also where it is a plain word.

    >>> sentence(RequestError("steps", "must be at least 1.", "Try 60."))
    'Must be at least 1. Try 60.'
    >>> sentence(RequestError("model.source", "meta-llama/Llama-2-7b-hf is not on this computer."))
    'meta-llama/Llama-2-7b-hf is not on this computer.'
    >>> sentence(RequestError("model.source", "gpt2 is not on this computer."))
    'gpt2 is not on this computer.'
    >>> sentence(RequestError("run", "pirate has no result yet."))
    'pirate has no result yet.'
    """
    text = in_words_of_the_page(f"{error.message} {error.advice}".strip())
    first = _FIRST_WORD.match(text)
    is_ours = first is not None and first.group() in OPENINGS
    return text[:1].upper() + text[1:] if is_ours else text


def refusal(error: ChatError) -> str:
    """Why there is no answer, as a person reads it; a setting is called as the page calls it.

    >>> refusal(ChatError("11 is not a number from 0 to 10.", "", "temperature"))
    'Temperature: 11 is not a number from 0 to 10.'
    >>> refusal(ChatError("the question is empty.", "Write one.", "messages"))
    'The question is empty. Write one.'
    """
    told = RequestError(error.field, error.message, error.advice)
    label = label_of(error.field)
    return f"{label}: {told.message} {told.advice}".strip() if label else sentence(told)
