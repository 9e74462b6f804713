"""What is decided by the device that a run will use, where the person leaves it open."""

from __future__ import annotations

from engine.contract.adapter_targets import refuse_adapter
from engine.contract.method_settings import (
    AdaLomoSettings,
    LomoSettings,
    LoraSettings,
    QloraSettings,
)
from engine.contract.spec import RunSpec
from engine.memory.devices import Device
from engine.memory.estimate import estimate
from engine.memory.model_shape import ModelShape


def resolve_for_device(
    spec: RunSpec, shape: ModelShape | None, device: Device, longest_tokens: int | None = None
) -> RunSpec:
    """The complete spec: nothing in it is `auto` but what the engine itself looks up.

    Args:
        spec: With presets resolved.
        shape: The model's; without one nothing can be forecast, and recomputing is safe.
        device: Where it will run.
        longest_tokens: Longest conversation of the data, if known.

    Raises:
        RequestError: The model has no layer that an adapter could be put on.
    """
    if shape is not None and isinstance(spec.method, LoraSettings | QloraSettings):
        refuse_adapter(spec.method, shape.linear_layers)
    spec = _with_precision(spec, device)
    if spec.train.activation_checkpointing != "auto":
        return spec
    kept = _with_recomputing(spec, recompute=False)
    if shape is not None and estimate(kept, shape, device, longest_tokens).verdict == "fits":
        return kept
    # A third more time, and a fraction of the memory for activations.
    return _with_recomputing(spec, recompute=True)


def _with_precision(spec: RunSpec, device: Device) -> RunSpec:
    """On a CPU a weight in bfloat16 is cast for every product: slower, where memory is plenty."""
    method = spec.method
    if not isinstance(method, LomoSettings | AdaLomoSettings) or method.precision != "auto":
        return spec
    precision = "bf16" if device.kind == "cuda" else "fp32"
    return spec.model_copy(update={"method": method.model_copy(update={"precision": precision})})


def _with_recomputing(spec: RunSpec, *, recompute: bool) -> RunSpec:
    train = spec.train.model_copy(update={"activation_checkpointing": recompute})
    return spec.model_copy(update={"train": train})
