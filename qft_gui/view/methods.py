"""What the methods are called, and what a person gets from each."""

from __future__ import annotations

from engine.contract.method_settings import (
    AdaLomoSettings,
    FullSettings,
    LomoSettings,
    MethodKind,
    MethodSettings,
)
from engine.contract.presets import MethodChoice
from qft_gui.spec_fields import SETTING_FIELDS

METHOD_NAMES: dict[MethodKind, str] = {
    "qft": "QFT",
    "qlora": "QLoRA",
    "lora": "LoRA",
    "lomo": "LOMO",
    "adalomo": "AdaLomo",
    "full": "Full",
}
METHOD_GIVES: dict[MethodChoice, str] = {
    MethodChoice("qft", "balanced"): "Every weight in 8 bits; trains nearly as 32 bits do",
    MethodChoice("qft", "lean"): "Least memory: optimizer state in 4 bits",
    MethodChoice("qft", "quality"): "Keeps more of each update, in 4 more bits a weight",
    MethodChoice("qft", "paper"): (
        "As published; at fine-tuning rates it mostly trains scales and outliers"
    ),
    MethodChoice("lomo"): "Plain gradient descent, no optimizer state",
    MethodChoice("adalomo"): "Adaptive steps, next to no optimizer state",
    MethodChoice("qlora", "balanced"): "An adapter beside the model in 4 bits",
    MethodChoice("qlora", "paper"): "As published: an adapter four times as wide, with dropout",
    MethodChoice("lora"): "An adapter beside the model in 16 bits",
}
_BITS = {"mixed": "32 bits", "fp32": "32 bits", "bf16": "16 bits"}
# What changes: the groups of the method table, in its order.
FAMILIES: dict[str, tuple[MethodKind, ...]] = {
    "Every weight": ("qft", "lomo", "adalomo", "full"),
    "An adapter": ("qlora", "lora"),
}


def choice_name(choice: MethodChoice) -> str:
    """A row of the method table; QFT alone has more presets than its own and the published one.

    >>> choice_name(MethodChoice("qft", "balanced")), choice_name(MethodChoice("qlora", "balanced"))
    ('QFT balanced', 'QLoRA')
    >>> choice_name(MethodChoice("qlora", "paper")), choice_name(MethodChoice("full"))
    ('QLoRA paper', 'Full')
    """
    name, preset = METHOD_NAMES[choice.kind], choice.preset
    is_usual = preset == "balanced" and choice.kind != "qft"
    return name if preset is None or is_usual else f"{name} {preset}"


def choice_gives(choice: MethodChoice, method: MethodSettings | None = None) -> str:
    """What a person gets from a row of the method table.

    Args:
        choice: The row.
        method: Its settings where they are known, complete for the device.

    >>> from engine.contract.method_settings import FullSettings, LomoSettings
    >>> choice_gives(MethodChoice("full"))
    'Every weight in 32 bits, with AdamW: the yardstick'
    >>> choice_gives(MethodChoice("full"), FullSettings(optimizer="lion", precision="bf16"))
    'Every weight in 16 bits, with Lion'
    >>> choice_gives(MethodChoice("lomo"), LomoSettings(precision="bf16"))
    'Plain gradient descent, no optimizer state; weights in 16 bits'
    """
    if choice.kind == "full":
        return _full_gives(method if isinstance(method, FullSettings) else FullSettings())
    gives = METHOD_GIVES[choice]
    if isinstance(method, LomoSettings | AdaLomoSettings) and method.precision in _BITS:
        return f"{gives}; weights in {_BITS[method.precision]}"
    return gives


def _full_gives(method: FullSettings) -> str:
    gives = f"Every weight in {_BITS[method.precision]}, with {_word('optimizer', method)}"
    is_yardstick = method.optimizer == "adamw" and method.precision != "bf16"
    return f"{gives}: the yardstick" if is_yardstick else gives


def _word(name: str, method: FullSettings) -> str:
    """How the page calls what a setting of full tuning is."""
    words = {value: label for label, value in SETTING_FIELDS[f"full.{name}"].choices}
    return words[getattr(method, name)]


def method_name(method: MethodSettings) -> str:
    """A run's method in a line about it.

    >>> from engine.contract.method_settings import FullSettings, LomoSettings, QloraSettings
    >>> method_name(FullSettings(optimizer="lion")), method_name(LomoSettings())
    ('Full Lion', 'LOMO')
    >>> method_name(FullSettings(precision="bf16"))
    'Full AdamW, bf16'
    >>> method_name(QloraSettings(preset="paper"))
    'QLoRA paper'
    """
    if method.kind == "full":
        name = f"Full {_word('optimizer', method)}"
        return name if method.precision == "mixed" else f"{name}, {_word('precision', method)}"
    if (method.kind == "qft" or method.kind == "qlora") and method.preset != "balanced":
        return f"{METHOD_NAMES[method.kind]} {method.preset}"
    return METHOD_NAMES[method.kind]
