"""Shapes that ship with the app, so that a forecast needs no network and no torch."""

from __future__ import annotations

from functools import cache

from engine.contract.bundled import MODELS, catalogue
from engine.memory.model_shape import ModelShape, read_shape


@cache
def bundled_shape(name: str) -> ModelShape | None:
    """The shape of a catalogue name or of `starter`; None if it is neither."""
    if name != "starter" and name not in catalogue():
        return None
    return read_shape(MODELS / f"{name}.json")
