"""What is filled in where the person said nothing: each method's own settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from engine.contract.bundled import catalogue
from engine.contract.method_settings import (
    METHOD_KINDS,
    QFT_PRESETS,
    QLORA_PRESETS,
    AdapterPreset,
    MethodKind,
    MethodSettings,
    QftPreset,
)
from engine.contract.model_source import ModelReference, count_parameters
from engine.contract.spec import RunSpec, Schedule

SMALL_MODEL_PARAMETERS = 100_000_000
DEFAULT_STEPS = 60
METHOD_PRESETS: dict[MethodKind, tuple[QftPreset | AdapterPreset, ...]] = {
    "qft": tuple(QFT_PRESETS),
    "qlora": tuple(QLORA_PRESETS),
}


class MethodChoice(NamedTuple):
    """What a person picks in the table: a method, with a preset where it has them."""

    kind: MethodKind
    preset: QftPreset | AdapterPreset | None = None

    @property
    def key(self) -> str:
        """The choice in one word, for the page's radio buttons."""
        return self.kind if self.preset is None else f"{self.kind}-{self.preset}"


METHOD_CHOICES: tuple[MethodChoice, ...] = tuple(
    MethodChoice(kind, preset)
    for kind in METHOD_KINDS
    for preset in METHOD_PRESETS.get(kind, (None,))
)


@dataclass(frozen=True)
class Preset:
    """What a method sets of the training.

    Attributes:
        learning_rate_small: For models under `SMALL_MODEL_PARAMETERS`, which take, and need, far
            larger rates.
        learning_rate: For all others.
        schedule: How the rate falls.
        max_grad_norm: Length that the gradient is clipped to; None for no clipping.
        warmup_steps: Steps over which the rate rises.
    """

    learning_rate_small: float
    learning_rate: float
    schedule: Schedule = "cosine"
    max_grad_norm: float | None = None
    warmup_steps: int = 5


# Rates of small models, schedules and clipping come from a search (benchmarks/preset_sweep.py);
# rates of large ones are what the authors of each method advise.
_ADAMW = Preset(learning_rate_small=2e-3, learning_rate=2e-5, schedule="linear")
# Lion's update has a fixed size, so its rate is a fraction of AdamW's (Lion, section 5).
_LION = Preset(learning_rate_small=8e-4, learning_rate=4e-6, schedule="linear")
_LORA = Preset(3e-3, 2e-4, schedule="constant", max_grad_norm=1.0)
_QLORA_PAPER = replace(_LORA, max_grad_norm=0.3)
# LOMO is SGD; unclipped, both take no more than a third of that rate.
_SGD = Preset(1.0, 5e-4, schedule="linear", max_grad_norm=1.0)
_SGD_UNCLIPPED = Preset(0.3, 1e-4, schedule="constant")
_ADALOMO = Preset(learning_rate_small=2e-2, learning_rate=5e-4, schedule="linear")


def preset_of(method: MethodSettings, *, clips: bool = True) -> Preset:
    """The preset that a method with its settings goes by.

    Args:
        method: Which.
        clips: False where the person wants no clipping by length: some rates are too high then.
    """
    if method.kind == "qft":
        return _ADAMW if method.update == "adamw" else _LION
    if method.kind == "full":
        sgd = _SGD if clips else _SGD_UNCLIPPED
        lion, adamw = (replace(one, max_grad_norm=1.0) for one in (_LION, _ADAMW))
        return {"sgd": sgd, "lion": lion}.get(method.optimizer, adamw)
    if method.kind == "qlora":
        return _QLORA_PAPER if method.preset == "paper" else _LORA
    if method.kind == "lora":
        return _LORA
    by_length = method.clip == "two_pass_norm"
    if method.kind == "lomo":
        return _SGD if by_length and clips else _SGD_UNCLIPPED
    return replace(_ADALOMO, max_grad_norm=1.0) if by_length else _ADALOMO


def resolve_presets(spec: RunSpec, model: ModelReference) -> RunSpec:
    """The spec with a value for every optional setting that the method decides.

    Args:
        spec: What the person asked for.
        model: Whose size decides the learning rate.
    """
    train = spec.train
    # Null is an answer too: never.
    clip_is_said = "max_grad_norm" in train.model_fields_set
    preset = preset_of(spec.method, clips=not clip_is_said or train.max_grad_norm is not None)
    small = (number_of_parameters(model) or SMALL_MODEL_PARAMETERS) < SMALL_MODEL_PARAMETERS
    rate = preset.learning_rate_small if small else preset.learning_rate
    filled = {
        "steps": DEFAULT_STEPS if train.steps is None and train.epochs is None else train.steps,
        "learning_rate": rate if train.learning_rate is None else train.learning_rate,
        "schedule": train.schedule or preset.schedule,
        "warmup_steps": preset.warmup_steps if train.warmup_steps is None else train.warmup_steps,
        "max_grad_norm": train.max_grad_norm if clip_is_said else preset.max_grad_norm,
    }
    return spec.model_copy(update={"train": train.model_copy(update=filled)})


def number_of_parameters(model: ModelReference) -> int | None:
    """How large a model is, if that can be known without a download."""
    if model.folder is not None:
        return count_parameters(model.folder)
    known = catalogue().get(model.name)
    return known.num_parameters if known else None
