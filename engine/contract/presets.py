"""What is filled in where the person said nothing: each method's own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from engine.contract.bundled import catalogue
from engine.contract.model_source import ModelReference, count_parameters
from engine.contract.spec import (
    METHOD_KINDS,
    QFT_PRESETS,
    MethodKind,
    MethodSettings,
    QftPreset,
    RunSpec,
)

SMALL_MODEL_PARAMETERS = 100_000_000
DEFAULT_STEPS = 60


class MethodChoice(NamedTuple):
    """What a person picks in the table: a method, with a preset where it has them."""

    kind: MethodKind
    preset: QftPreset | None = None

    @property
    def key(self) -> str:
        """The choice in one word, for the page's radio buttons."""
        return self.kind if self.preset is None else f"{self.kind}-{self.preset}"


METHOD_CHOICES: tuple[MethodChoice, ...] = tuple(
    MethodChoice(kind, preset)
    for kind in METHOD_KINDS
    for preset in (tuple(QFT_PRESETS) if kind == "qft" else (None,))
)


@dataclass(frozen=True)
class Preset:
    """Learning rates by size of the model: small models take, and need, far larger ones."""

    learning_rate_small: float
    learning_rate: float
    warmup_steps: int


PRESETS: dict[MethodKind, Preset] = {
    # Lion's update has a fixed size, so its rate is a fraction of AdamW's (Lion, section 5).
    "qft": Preset(learning_rate_small=4e-4, learning_rate=4e-6, warmup_steps=5),
    "full": Preset(learning_rate_small=1e-3, learning_rate=2e-5, warmup_steps=5),
}


def resolve_presets(spec: RunSpec, model: ModelReference) -> RunSpec:
    """The complete spec: every optional setting has a value, and `auto` is decided.

    Args:
        spec: What the person asked for.
        model: Whose size decides the learning rate.
    """
    preset = _preset_of(spec.method)
    small = (number_of_parameters(model) or SMALL_MODEL_PARAMETERS) < SMALL_MODEL_PARAMETERS
    rate = preset.learning_rate_small if small else preset.learning_rate
    train = spec.train
    filled = {
        "steps": DEFAULT_STEPS if train.steps is None and train.epochs is None else train.steps,
        "learning_rate": rate if train.learning_rate is None else train.learning_rate,
        "warmup_steps": preset.warmup_steps if train.warmup_steps is None else train.warmup_steps,
        "activation_checkpointing": (
            not small
            if train.activation_checkpointing == "auto"
            else train.activation_checkpointing
        ),
    }
    return spec.model_copy(update={"train": train.model_copy(update=filled)})


def _preset_of(method: MethodSettings) -> Preset:
    if method.kind == "qft" and method.update == "adamw":
        return PRESETS["full"]  # the same update rule, so the same rates
    return PRESETS[method.kind]


def number_of_parameters(model: ModelReference) -> int | None:
    """How large a model is, if that can be known without a download."""
    if model.folder is not None:
        return count_parameters(model.folder)
    known = catalogue().get(model.name)
    return known.num_parameters if known else None
