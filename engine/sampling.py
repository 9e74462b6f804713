"""How words are chosen, and what a person may ask of that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.contract.errors import RequestError

MOST_NEW_TOKENS = 1 << 20
_HOTTEST = 10.0
_LEAST = 0.01  # by less, scores cannot be divided in their format
_LARGEST_SEED = 2**63 - 1
_MOST_SHOWN = 40  # characters of what was sent


@dataclass(frozen=True)
class Sampling:
    """How to choose words. What is None is as the model's own generation settings say.

    Attributes:
        seed: Decides what is drawn.
        temperature: 0 always takes the likeliest word.
        max_new_tokens: A longer reply is cut.
        top_p: Draw from the likeliest words that have this probability together, over 0 to 1.
        top_k: Draw from so many likeliest words; 0 for all.
        repetition_penalty: Divides the scores of words that were there already; 1 for no penalty.
    """

    seed: int = 0
    temperature: float = 0.0
    max_new_tokens: int = 128
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None

    def options(self) -> dict[str, Any]:
        """The same as arguments of transformers' `generate`, but for seed and length."""
        if self.temperature == 0:
            # A model's own settings may sample; these switch them off without a warning each.
            chosen: dict[str, Any] = dict(_GREEDY)
        else:
            chosen = {"do_sample": True, "temperature": self.temperature}
            if self.top_p is not None:
                chosen["top_p"] = self.top_p
            if self.top_k is not None:
                chosen["top_k"] = self.top_k
        if self.repetition_penalty is not None:
            chosen["repetition_penalty"] = self.repetition_penalty
        return chosen


_GREEDY: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


def sampling_from(request: Mapping[str, Any]) -> Sampling:
    """Settings as a program sends them; a missing one, or null, is the default.

    Args:
        request: Fields of `Sampling` among others.

    Raises:
        RequestError: One is of the wrong kind or out of its range.
    """
    usual = Sampling()
    temperature = _number(request, "temperature", 0, _HOTTEST)
    top_p = _number(request, "top_p", 0, 1)
    if top_p == 0:
        raise RequestError(
            "top_p", "it is 0, so no word is left to choose.", "Use more than 0, up to 1."
        )
    penalty = _number(request, "repetition_penalty", 0, _HOTTEST)
    if penalty is not None and penalty < _LEAST:
        raise RequestError("repetition_penalty", f"it must be {_LEAST} or more.", "1 means none.")
    if temperature and temperature < _LEAST:
        raise RequestError(
            "temperature",
            f"between 0 and {_LEAST} nothing but the likeliest word is drawn.",
            "Use 0 for that.",
        )
    length = _whole(request, "max_new_tokens", 1, MOST_NEW_TOKENS)
    return Sampling(
        seed=_whole(request, "seed", 0, _LARGEST_SEED) or 0,
        temperature=usual.temperature if temperature is None else temperature,
        max_new_tokens=usual.max_new_tokens if length is None else length,
        top_p=top_p,
        top_k=_whole(request, "top_k", 0, MOST_NEW_TOKENS),
        repetition_penalty=penalty,
    )


def _number(request: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = request.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise _refused(name, value, "a number", low, high)
    return float(value)


def _whole(request: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = request.get(name)
    if value is None:
        return None
    is_whole = (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )
    if not is_whole or not low <= value <= high:
        raise _refused(name, value, "a whole number", low, high)
    return int(value)


def _refused(name: str, value: Any, kind: str, low: float, high: float) -> RequestError:
    bounds = f"from {_shown(low)} to {_shown(high)}"
    return RequestError(
        name, f"{_shown(value)} is not {kind} {bounds}.", "Use one from that range."
    )


def _shown(value: Any) -> str:
    """As people write it: a whole number without a point, and in groups of three digits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    text = f"{value:,}" if is_whole else str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}\N{HORIZONTAL ELLIPSIS}"
