"""QFT: `method` is the algorithm; layers feed it, gradients wait for it, take_over prepares it."""

from __future__ import annotations

from engine.methods.qft.method import QftMethod

__all__ = ["QftMethod"]
