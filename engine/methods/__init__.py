"""One file per way to change weights, and the table of them."""

from __future__ import annotations

from engine.contract.spec import MethodKind
from engine.methods.full import FullMethod
from engine.methods.protocol import Method
from engine.methods.qft import QftMethod

METHODS: dict[MethodKind, type[Method]] = {"qft": QftMethod, "full": FullMethod}
