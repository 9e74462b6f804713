"""Which linear layers get an adapter: those that `method.targets` names. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.contract.errors import RequestError

if TYPE_CHECKING:
    from engine.contract.method_settings import LoraSettings, QloraSettings

ALL_LINEAR = "all-linear"
FIELD = "method.targets"


def is_target(layer: str, targets: str) -> bool:
    """Whether a linear layer gets an adapter.

    Args:
        layer: Its path, such as `model.layers.0.self_attn.q_proj`.
        targets: `all-linear`, or names separated by commas; a name is a path or its end.

    >>> is_target("model.layers.0.self_attn.q_proj", "q_proj, v_proj")
    True
    >>> is_target("model.layers.0.self_attn.q_proj", "proj")
    False
    """
    return targets == ALL_LINEAR or any(_is_called(layer, name) for name in _names(targets))


def refuse_adapter(method: QloraSettings | LoraSettings, layers: Mapping[str, bool]) -> None:
    """Refuse what no adapter can be put on.

    Args:
        method: Says which layers, and whether the model is to be kept in 4 bits.
        layers: The path of every linear layer inside the blocks, and whether its matrix is stored
            (inputs, outputs), as GPT-2's is: bitsandbytes has no such layer in 4 bits.

    Raises:
        RequestError: No layer can be quantized, or a name in `targets` is that of no layer.
    """
    if method.kind == "qlora" and all(layers.values()):
        raise RequestError(
            "method.kind",
            "this model has no linear layer that can be kept in 4 bits.",
            "Use lora, which keeps the model in 16 bits.",
        )
    names = () if method.targets == ALL_LINEAR else _names(method.targets)
    unknown = [name for name in names if not any(_is_called(layer, name) for layer in layers)]
    if unknown or not any(is_target(layer, method.targets) for layer in layers):
        known = sorted({layer.rpartition(".")[2] for layer in layers})
        called = f" called {unknown[0]}" if unknown else ""
        raise RequestError(
            FIELD,
            f"this model has no linear layer{called}.",
            f"Use all-linear, or some of {', '.join(known)}." if known else "",
        )


def _names(targets: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in targets.split(",") if name.strip())


def _is_called(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")
