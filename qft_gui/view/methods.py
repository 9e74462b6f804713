"""What the methods are called, and what a person gets from each."""

from __future__ import annotations

from engine.contract.method_settings import MethodKind, MethodSettings
from engine.contract.presets import MethodChoice
from qft_gui.spec_fields import SETTING_FIELDS

METHOD_NAMES: dict[MethodKind, str] = {
    "qft": "QFT",
    "qlora": "QLoRA",
    "lora": "LoRA",
    "lomo": "LOMO",
    "adalomo": "AdaLomo",
    "full": "Full AdamW",
}
METHOD_GIVES: dict[MethodChoice, str] = {
    MethodChoice("qft", "balanced"): "Every weight in 8 bits; trains nearly as 32 bits do",
    MethodChoice("qft", "lean"): "Least memory: optimizer state in 4 bits",
    MethodChoice("qft", "quality"): "Keeps more of each update, in 4 more bits a weight",
    MethodChoice("qft", "paper"): (
        "As published; at fine-tuning rates it mostly trains scales and outliers"
    ),
    MethodChoice("lomo"): "Plain gradient descent in 16 bits, no optimizer state",
    MethodChoice("adalomo"): "Adaptive steps in 16 bits, next to no optimizer state",
    MethodChoice("full"): "Every weight in 32 bits: the yardstick",
    MethodChoice("qlora", "balanced"): "An adapter beside the model in 4 bits",
    MethodChoice("qlora", "paper"): "As published: an adapter four times as wide, with dropout",
    MethodChoice("lora"): "An adapter beside the model in 16 bits",
}
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
    ('QLoRA paper', 'Full AdamW')
    """
    name, preset = METHOD_NAMES[choice.kind], choice.preset
    is_usual = preset == "balanced" and choice.kind != "qft"
    return name if preset is None or is_usual else f"{name} {preset}"


def method_name(method: MethodSettings) -> str:
    """A run's method in a line about it.

    >>> from engine.contract.method_settings import FullSettings, LomoSettings, QloraSettings
    >>> method_name(FullSettings(optimizer="lion")), method_name(LomoSettings())
    ('Full Lion', 'LOMO')
    >>> method_name(QloraSettings(preset="paper"))
    'QLoRA paper'
    """
    if method.kind == "full":
        words = {value: label for label, value in SETTING_FIELDS["full.optimizer"].choices}
        return f"Full {words[method.optimizer]}"
    if (method.kind == "qft" or method.kind == "qlora") and method.preset != "balanced":
        return f"{METHOD_NAMES[method.kind]} {method.preset}"
    return METHOD_NAMES[method.kind]
