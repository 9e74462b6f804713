"""One file per way to change weights, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.methods.adalomo import AdaLomoMethod
from engine.methods.full import FullMethod
from engine.methods.lomo import LomoMethod
from engine.methods.lora import LoraMethod
from engine.methods.protocol import Method
from engine.methods.qft import QftMethod

if TYPE_CHECKING:
    from engine.contract.method_settings import MethodKind

METHODS: dict[MethodKind, type[Method]] = {
    "qft": QftMethod,
    "qlora": LoraMethod,
    "lora": LoraMethod,
    "lomo": LomoMethod,
    "adalomo": AdaLomoMethod,
    "full": FullMethod,
}
