"""Specs for a computer without pydantic: plain objects with the fields of the real ones.

`tests/test_gpu_suite.py` compares every value with what `engine.contract` makes of the same
request, so that the two cannot drift apart.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec

_QFT: dict[str, Any] = {
    "kind": "qft",
    "preset": "balanced",
    "update": "lion",
    "rounding": "stochastic",
    "residual_bits": 1,
    "outlier_percent": 0.0,
    "gradients": "fused",
    "scale_group": "row",
    "moment_bits": 8,
    "matmul": "dequantize",
    "quantize": "linear",
}
_QFT_PAPER: dict[str, Any] = {
    "preset": "paper",
    "rounding": "nearest",
    "residual_bits": 0,
    "outlier_percent": 1.0,
    "gradients": "stack",
    "scale_group": 32,
    "quantize": "all",
}
_ADAPTER: dict[str, Any] = {
    "rank": 16,
    "alpha": 32.0,
    "dropout": 0.0,
    "targets": "all-linear",
    "optimizer": "paged_adamw_8bit",
}
_LORA: dict[str, Any] = {"kind": "lora", **_ADAPTER}
_QLORA: dict[str, Any] = {
    "kind": "qlora",
    "preset": "balanced",
    **_ADAPTER,
    "quant_type": "nf4",
    "double_quant": True,
}
_FUSED: dict[str, Any] = {
    "precision": "auto",
    "rounding": "stochastic",
    "clip_value": 1.0,
    "embedding_rate": 1.0,
}
_LOMO: dict[str, Any] = {"kind": "lomo", **_FUSED, "clip": "two_pass_norm"}
_ADALOMO: dict[str, Any] = {"kind": "adalomo", **_FUSED, "clip": "none"}
_FULL: dict[str, Any] = {"kind": "full", "optimizer": "adamw", "precision": "mixed"}


class SuiteMethod(NamedTuple):
    """A method as the suite runs it.

    Attributes:
        asked: What a person would write.
        filled: The same with every setting, as the contract fills it in.
        learning_rate: The preset's for large models.
        max_grad_norm: The preset's.
        needs: Packages that it cannot do without, beyond torch and transformers.
    """

    asked: dict[str, Any]
    filled: dict[str, Any]
    learning_rate: float
    max_grad_norm: float | None = None
    needs: tuple[str, ...] = ()


def _method(
    defaults: dict[str, Any],
    learning_rate: float,
    *,
    max_grad_norm: float | None = None,
    needs: tuple[str, ...] = (),
    preset: dict[str, Any] | None = None,
    **asked: Any,
) -> SuiteMethod:
    kind = {"kind": defaults["kind"]}
    named = {} if preset is None else {"preset": preset["preset"]}
    return SuiteMethod(
        {**kind, **named, **asked},
        {**defaults, **(preset or {}), **asked},
        learning_rate,
        max_grad_norm,
        needs,
    )


METHODS: dict[str, SuiteMethod] = {
    "qft-balanced": _method(_QFT, 4e-6),
    "qft-lean": _method(
        _QFT, 4e-6, preset={"preset": "lean", "residual_bits": 0, "moment_bits": 4}
    ),
    "qft-quality": _method(_QFT, 4e-6, preset={"preset": "quality", "residual_bits": 4}),
    "qft-paper": _method(_QFT, 4e-6, preset=_QFT_PAPER),
    "qft-int8-products": _method(_QFT, 4e-6, matmul="int8"),
    "lora": _method(_LORA, 2e-4, max_grad_norm=1.0, needs=("peft",), optimizer="adamw"),
    "qlora": _method(_QLORA, 2e-4, max_grad_norm=1.0, needs=("peft", "bitsandbytes")),
    "lomo": _method(_LOMO, 5e-4, max_grad_norm=1.0, precision="bf16"),
    "lomo-unclipped": _method(_LOMO, 1e-4, clip="none", precision="bf16"),
    "adalomo": _method(_ADALOMO, 5e-4, precision="bf16"),
    "full-sgd": _method(_FULL, 5e-4, max_grad_norm=1.0, optimizer="sgd", precision="bf16"),
    "full-lion": _method(
        _FULL, 4e-6, max_grad_norm=1.0, needs=("bitsandbytes",), optimizer="lion", precision="bf16"
    ),
    "full-adamw-8bit": _method(
        _FULL,
        2e-5,
        max_grad_norm=1.0,
        needs=("bitsandbytes",),
        optimizer="adamw_8bit",
        precision="bf16",
    ),
    "full-adamw": _method(_FULL, 2e-5, max_grad_norm=1.0, optimizer="adamw", precision="bf16"),
}
# Every field of `train`; memory is asked for where recomputing activations is on.
TRAIN: dict[str, Any] = {
    "steps": 60,
    "epochs": None,
    "batch_size": 1,
    "grad_accumulation": 1,
    "sequence_length": 1024,
    "batching": "grouped",
    "learning_rate": None,
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "activation_checkpointing": True,
    "checkpoint_every": 50,
    "eval_every": 20,
    "seed": 0,
    "device": "auto",
}


def missing_packages(method: SuiteMethod) -> tuple[str, ...]:
    """Packages that a method needs and this Python does not have."""
    return tuple(package for package in method.needs if find_spec(package) is None)


def plain_spec(
    method: SuiteMethod, batch_size: int, length: int, **method_settings: Any
) -> RunSpec:
    """A complete spec.

    Args:
        method: How weights change.
        batch_size: Conversations in one step.
        length: Tokens in each.
        **method_settings: What differs from the method's.
    """
    train = {
        **TRAIN,
        "batch_size": batch_size,
        "sequence_length": length,
        "learning_rate": method.learning_rate,
        "max_grad_norm": method.max_grad_norm,
    }
    spec = SimpleNamespace(
        # Only what an adapter would write down as its base.
        model=SimpleNamespace(source="llama-2-7b", revision=None),
        data=SimpleNamespace(source="random tokens"),
        method=SimpleNamespace(**{**method.filled, **method_settings}),
        train=SimpleNamespace(**train),
    )
    return cast("RunSpec", spec)
