"""Whether to recompute activations: decided by the forecast where the person leaves it open."""

from __future__ import annotations

from engine.contract.spec import RunSpec
from engine.memory.devices import Device
from engine.memory.estimate import estimate
from engine.memory.model_shape import ModelShape


def resolve_checkpointing(
    spec: RunSpec, shape: ModelShape | None, device: Device, longest_tokens: int | None = None
) -> RunSpec:
    """The spec with `auto` decided: recompute, which takes a third more time, only if need be.

    Args:
        spec: With presets resolved.
        shape: The model's; without one nothing can be forecast, and recomputing is safe.
        device: Where it will run.
        longest_tokens: Longest conversation of the data, if known.
    """
    if spec.train.activation_checkpointing != "auto":
        return spec
    kept = _with(spec, recompute=False)
    if shape is None:
        return _with(spec, recompute=True)
    verdict = estimate(kept, shape, device, longest_tokens).verdict
    return kept if verdict == "fits" else _with(spec, recompute=True)


def _with(spec: RunSpec, *, recompute: bool) -> RunSpec:
    train = spec.train.model_copy(update={"activation_checkpointing": recompute})
    return spec.model_copy(update={"train": train})
