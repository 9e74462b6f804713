"""The settings of every method as fields of the page, read off their classes in the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.contract.method_settings import METHOD_KINDS, MethodKind, MethodSettings

Choice = tuple[str, str | int]
# The value of a choice that leaves a setting to the method: an input has no null to offer.
METHODS_OWN = ""
# How values and settings are called where their names in the spec are no words for a person.
_WORDS: dict[object, str] = {
    "lion": "Lion",
    "adamw": "AdamW",
    "adamw_8bit": "8-bit AdamW",
    "paged_adamw": "Paged AdamW",
    "paged_adamw_8bit": "Paged 8-bit AdamW",
    "sgd": "SGD",
    "bf16": "bf16",
    "fp32": "fp32",
    "nf4": "NF4",
    "fp4": "FP4",
    True: "On",
    False: "Off",
}
_WORDS_BY_FIELD: dict[str, dict[object, str]] = {
    "quantize": {"linear": "Linear layers", "all": "All, norms too"},
    "residual_bits": {0: "None", 1: "1 bit"},
}
_LABELS = {
    "residual_bits": "Residual",
    "moment_bits": "Moments",
    "quant_type": "4-bit values",
    "double_quant": "Double quantization",
}
_UNITS = {"_bits": "bits", "_group": "weights"}


@dataclass(frozen=True)
class SettingField:
    """One setting of one method, as an input.

    Attributes:
        choices: Label and value of each, in the order of the contract; empty where it is typed.
        is_text: Typed as text, not as a number.
        is_whole: Typed as a whole number.
    """

    kind: MethodKind
    name: str
    label: str
    help: str
    choices: tuple[Choice, ...]
    is_text: bool
    is_whole: bool

    @property
    def key(self) -> str:
        """Its name on the page: methods share names, but not inputs."""
        return f"{self.kind}.{self.name}"


def own_settings(kind: MethodKind, preset: str | None) -> dict[str, Any]:
    """What a method sets by itself, or by its preset, by the field's key."""
    given = {} if preset is None else {"preset": preset}
    settings = _classes()[kind].model_validate(given)
    return {field.key: getattr(settings, field.name) for field in settings_of(kind)}


def settings_of(kind: MethodKind) -> tuple[SettingField, ...]:
    """The settings of a method, in the order of the contract, but for its preset."""
    return _SETTINGS[kind]


def choices_of(field: FieldInfo, name: str) -> tuple[Choice, ...]:
    """Label and value of all that a setting may be; empty where it is typed."""
    values = list(_values(field.annotation))
    found = tuple((_word(name, value), value) for value in values)
    is_optional = found and type(None) in get_args(field.annotation)
    return (("Method's own", METHODS_OWN), *found) if is_optional else found


def label_of(name: str) -> str:
    """A setting's name as a person reads it.

    >>> label_of("clip_value"), label_of("moment_bits")
    ('Clip value', 'Moments')
    """
    return _LABELS.get(name) or _plain(name)


def help_of(field: FieldInfo, choices: tuple[Choice, ...] = ()) -> str:
    """What the contract says of a setting, with its choices called as the page calls them."""
    text = field.description or ""
    for label, value in choices:
        called = label.lower() if "_" in str(value) else label
        if called.isupper() or "_" in str(value):
            text = re.sub(rf"\b{value}\b", called, text, flags=re.IGNORECASE)
    return text[:1].upper() + text[1:]


def _classes() -> dict[MethodKind, type[BaseModel]]:
    union, *_ = get_args(MethodSettings)
    return {one.model_fields["kind"].default: one for one in get_args(union)}


def _setting_field(kind: MethodKind, name: str, field: FieldInfo) -> SettingField:
    choices = choices_of(field, name)
    return SettingField(
        kind,
        name,
        label_of(name),
        help_of(field, choices),
        choices,
        is_text=field.annotation is str,
        is_whole=field.annotation is int,
    )


def _values(annotation: Any) -> Iterator[str | int]:
    if annotation is bool:
        yield from (True, False)
    elif get_origin(annotation) is Literal:
        yield from cast("tuple[str | int, ...]", get_args(annotation))
    else:
        for member in get_args(annotation):
            yield from _values(member)


def _word(name: str, value: str | int) -> str:
    by_field = _WORDS_BY_FIELD.get(name, {})
    if value in by_field:
        return by_field[value]
    if isinstance(value, bool) or not isinstance(value, int):
        return _WORDS.get(value) or _plain(value)
    unit = next((word for ending, word in _UNITS.items() if name.endswith(ending)), "")
    return f"{value} {unit}".strip()


def _plain(name: object) -> str:
    return str(name).replace("_", " ").capitalize()


_SETTINGS: dict[MethodKind, tuple[SettingField, ...]] = {
    kind: tuple(
        _setting_field(kind, name, field)
        for name, field in _classes()[kind].model_fields.items()
        if name not in ("kind", "preset")
    )
    for kind in METHOD_KINDS
}
SETTING_FIELDS: dict[str, SettingField] = {
    field.key: field for fields in _SETTINGS.values() for field in fields
}
