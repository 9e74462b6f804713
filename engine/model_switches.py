"""What is switched in a model of transformers: its attention, and whether activations are kept."""

from __future__ import annotations

from typing import Any


def attention_of(config: Any) -> str | None:
    """Plain attention where scores are capped, which the fused kernel leaves out; else its choice.

    Gemma 2 is such a model, and not every version of transformers knows.
    """
    text = config.get_text_config()
    return "eager" if getattr(text, "attn_logit_softcapping", None) else None


def recompute_activations(model: Any) -> None:
    """Recompute activations block by block in the backward pass, as non-reentrant checkpointing."""
    # transformers has renamed it; both names are among the versions that are supported.
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
