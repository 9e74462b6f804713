"""The Setup page's fields: to a spec, and back from mistakes to the field that made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from engine.contract.errors import RequestError
from engine.contract.method_settings import METHOD_KINDS, AdapterPreset, MethodKind, QftPreset
from engine.contract.presets import METHOD_PRESETS, MethodChoice
from qft_gui.data_wish import AS_FOUND, Reading
from qft_gui.labels import LABELS
from qft_gui.spec_fields import METHODS_OWN, SETTING_FIELDS, own_settings, settings_of

OTHER = "__other__"
NEVER = "none"
# Left empty, these are the method's own.
LEFT_TO_METHOD = ("learning_rate", "schedule", "max_grad_norm")
# A largest entry of a gradient, and the setting that says whether it is asked for.
CLIP_OF = {f"{kind}.clip_value": f"{kind}.clip" for kind in ("lomo", "adalomo")}
Preset = QftPreset | AdapterPreset


def _every_methods_own() -> dict[str, Any]:
    """The settings of all methods as they are before anybody changes one."""
    own: dict[str, Any] = {}
    for kind in METHOD_KINDS:
        own |= own_settings(kind, METHOD_PRESETS.get(kind, (None,))[0])
    return own


@dataclass(frozen=True)
class Form:
    """What the page holds. Defaults are the demo's.

    Attributes:
        preset: Of the chosen method, where it has presets.
        reading: How the data is read, where that was said by hand.
        settings: Of every method, by `SettingField.key`; only the chosen method's are asked for.
    """

    kind: MethodKind = "qft"
    preset: Preset | None = "balanced"
    model: str = "starter"
    model_path: str = ""
    data: str = "pirate"
    data_path: str = ""
    reading: Reading = AS_FOUND
    settings: Mapping[str, Any] = field(default_factory=_every_methods_own)
    steps: float | None = 60
    batch_size: float | None = 8
    batching: str = "grouped"
    grad_accumulation: float | None = 1
    sequence_length: float | None = 256
    learning_rate: str = ""
    schedule: str = METHODS_OWN
    weight_decay: float | None = 0
    max_grad_norm: str = ""
    activation_checkpointing: str | bool = "auto"
    eval_percent: float | None = 10
    device: str = "auto"
    seed: float | None = 0
    name: str = ""

    @classmethod
    def of(cls, *values: Any) -> Form:
        """The form from the values of `field_names()`; an emptied text may come as None."""
        given = dict(zip(field_names(), values, strict=True))
        settings = {key: given.pop(key) for key in SETTING_FIELDS}
        texts = {one.name for one in fields(cls) if isinstance(one.default, str)}
        cleaned: dict[str, Any] = {
            name: "" if name in texts and value is None else value for name, value in given.items()
        }
        return cls(settings=settings, **cleaned)

    def value(self, name: str) -> Any:
        """What one of `field_names()` holds."""
        return self.settings[name] if name in SETTING_FIELDS else getattr(self, name)

    def with_values(self, values: Mapping[str, Any]) -> Form:
        """The form with other values in some of `field_names()`."""
        settings = {key: value for key, value in values.items() if key in SETTING_FIELDS}
        others = {name: value for name, value in values.items() if name not in SETTING_FIELDS}
        return replace(self, **others, settings={**self.settings, **settings})

    def with_method(self, kind: MethodKind, preset: Preset | None) -> Form:
        """The form with another method, which brings its own settings into its fields.

        What was typed for another method's training goes: rates of two methods do not compare.
        """
        chosen = replace(self, kind=kind, preset=preset)
        if chosen.choice != self.choice:
            chosen = replace(chosen, **{name: getattr(Form, name) for name in LEFT_TO_METHOD})
        return chosen.with_values(own_settings(kind, preset))

    @property
    def choice(self) -> MethodChoice:
        """The row of the method table that is ticked."""
        return MethodChoice(self.kind, self.preset if self.kind in METHOD_PRESETS else None)

    @property
    def changed(self) -> tuple[str, ...]:
        """The chosen method's settings that are not its own; an emptied one counts as its own.

        One that has no say where another stands as it does is none of them.
        """
        own, silent = own_settings(*self.choice), self.silent
        return tuple(
            key
            for key in own
            if key not in silent and self.settings[key] not in (None, "", own[key])
        )

    @property
    def silent(self) -> frozenset[str]:
        """The settings that have no say: the largest entry, where it is not what clips."""
        return frozenset(key for key, clip in CLIP_OF.items() if self.settings[clip] != "value")

    @property
    def model_source(self) -> str:
        """The model that is meant, as the spec names it."""
        return self.model_path.strip() if self.model == OTHER else self.model

    @property
    def data_source(self) -> str:
        """The dataset that is meant, as the spec names it."""
        return self.data_path.strip() if self.data == OTHER else self.data

    @property
    def run_name(self) -> str | None:
        """The wished name; None leaves it to the engine."""
        return self.name.strip() or None

    def document(self) -> dict[str, Any]:
        """The spec that is asked for; what is left empty, the presets fill."""
        method: dict[str, Any] = {"kind": self.kind}
        if self.choice.preset is not None:
            method["preset"] = self.choice.preset
        for key in self.changed:
            method[SETTING_FIELDS[key].name] = _whole(self.settings[key])
        train = {
            "steps": _whole(self.steps),
            "batch_size": _whole(self.batch_size),
            "batching": self.batching,
            "grad_accumulation": _whole(self.grad_accumulation),
            "sequence_length": _whole(self.sequence_length),
            "learning_rate": _number(self.learning_rate),
            "schedule": self.schedule or None,
            "weight_decay": _whole(self.weight_decay),
            "max_grad_norm": _number(self.max_grad_norm),
            "activation_checkpointing": self.activation_checkpointing,
            "seed": _whole(self.seed),
            "device": self.device,
        }
        given = {key: value for key, value in train.items() if value is not None}
        if given.get("max_grad_norm") == NEVER:
            given["max_grad_norm"] = None
        data = {"source": self.data_source, "eval_percent": _whole(self.eval_percent)}
        data |= self.reading.of(self.data_source).document()
        return {
            "model": {"source": self.model_source},
            "data": {key: value for key, value in data.items() if value is not None},
            "method": method,
            "train": given,
        }


def field_names() -> tuple[str, ...]:
    """What a form holds: the row of the method table, then the page's inputs."""
    return ("kind", "preset", *input_names())


def input_names() -> tuple[str, ...]:
    """The inputs of the page, in its order."""
    names: list[str] = []
    for one in fields(Form):
        names += SETTING_FIELDS if one.name == "settings" else [one.name]
    return tuple(name for name in names if name not in ("kind", "preset", "reading"))


def place_of(error: RequestError, form: Form) -> str | None:
    """The field that a mistake belongs to; None if it belongs to none."""
    group, _, name = error.field.partition(".")
    if group == "model":
        return "model_path" if form.model == OTHER else "model"
    if group == "data" and name != "eval_percent":
        return "data_path" if form.data == OTHER else "data"
    if group == "method":
        return next((one.key for one in settings_of(form.kind) if one.name == name), None)
    if error.field == "train.epochs":
        return "steps"
    own = name if group in ("train", "data") else error.field
    return own if own in LABELS else None


def early_mistakes(form: Form) -> dict[str, str]:
    """What is simply not filled in yet: a request for it, not an error message."""
    missing: dict[str, str] = {}
    if form.model == OTHER and not form.model_path.strip():
        missing["model_path"] = "Name a model folder or a hub id."
    if form.data == OTHER and not form.data_path.strip():
        missing["data_path"] = "Name a file or a hub id, or upload a file."
    return missing


def _whole(value: Any) -> Any:
    """The browser sends 8 as 8 or 8.0; a spec wants the whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(text: str) -> float | str | None:
    """A number as typed; what is no number stays as it is, for the spec to refuse."""
    plain = text.strip().lower()
    if not plain:
        return None
    try:
        return float(plain.replace(",", "."))
    except ValueError:
        return plain
