"""Where each method's bytes are: one plan per method, shared by estimator and engine."""

from __future__ import annotations

from dataclasses import dataclass

from engine.contract.spec import FullSettings, QftSettings
from engine.memory.layout import Dense, Int4, Int8, Layout, SquareRoot
from engine.memory.model_shape import Role


@dataclass(frozen=True)
class TensorPlan:
    """One trained tensor: how its weight, each of its moments and a held gradient are stored."""

    weight: Layout
    moments: tuple[Layout, ...]
    gradient: Layout


@dataclass(frozen=True)
class MemoryPlan:
    """A method's storage by role of the tensor.

    Attributes:
        matrices: Linear layers of the blocks.
        tables: Token embeddings and the head.
        small: Norms and biases.
        other: Tensors of unknown kind, experts of a mixture among them.
        fused: Weights are updated inside the backward pass, so one gradient is alive at a time.
            A table that is embedding and head holds its gradient between the two.
        stored: Weights are dequantized for each product, some rows at a time.
    """

    matrices: TensorPlan
    tables: TensorPlan
    small: TensorPlan
    other: TensorPlan
    fused: bool
    stored: bool = True

    def of(self, role: Role) -> TensorPlan:
        """The plan of a tensor with this role."""
        by_role = {"linear": self.matrices, "embedding": self.tables, "small": self.small}
        return by_role.get(role, self.other)

    @staticmethod
    def chunk_elements(device: str) -> int:
        """Weights that an update handles at once.

        On a CPU what fits into its cache; on a GPU enough to keep it busy.
        """
        return 1 << 24 if device == "cuda" else 1 << 19

    @staticmethod
    def product_elements(device: str) -> int:
        """Weights that one product of a pass takes, in float32 or bfloat16 for its time."""
        return 1 << 24 if device == "cuda" else 1 << 22


_FLOAT32, _BFLOAT16 = Dense("float32"), Dense("bfloat16")
_FULL = TensorPlan(_FLOAT32, (_FLOAT32, _FLOAT32), _FLOAT32)
FULL_PLAN = MemoryPlan(_FULL, _FULL, _FULL, _FULL, fused=False, stored=False)
# Where weights share a scale by whole rows, moments and gradients, which vary more, do not.
_MOMENT_GROUP = 256


def qft_plan(settings: QftSettings) -> MemoryPlan:
    """Where QFT keeps its bytes, setting by setting."""
    moments = _moments(settings)
    held = Int8(_moment_group(settings), "float32")
    stacked = settings.gradients == "stack"
    weight = _codes(settings, settings.outlier_percent)
    table = _codes(settings, 0.0) if settings.quantize == "all" else _BFLOAT16
    small = (
        TensorPlan(table, moments, held)
        if isinstance(table, Int8)
        else TensorPlan(_FLOAT32, (_FLOAT32,) * len(moments), _FLOAT32)
    )
    return MemoryPlan(
        matrices=TensorPlan(weight, moments, held),
        tables=TensorPlan(table, moments, held if stacked else _BFLOAT16),
        small=small,
        other=TensorPlan(_BFLOAT16, moments, held if stacked else _BFLOAT16),
        fused=not stacked,
    )


def _codes(settings: QftSettings, outlier_percent: float) -> Int8:
    # Stochastic rounding leaves a scale as it is. Rounding to nearest sets it anew at every step,
    # by far less than a bfloat16 could hold.
    stochastic = settings.rounding == "stochastic"
    return Int8(
        settings.scale_group,
        "bfloat16" if stochastic else "float32",
        settings.residual_bits,
        outlier_percent,
    )


def _moments(settings: QftSettings) -> tuple[Layout, ...]:
    # A bfloat16 scale of a moment could not decay: its step is coarser than the decay of one step.
    group = _moment_group(settings)
    if settings.moment_bits == 8:
        first: Layout = Int8(group, "float32")
    else:
        group = min(group, 128)
        first = Int4(group)
    if settings.update == "lion":
        return (first,)
    return (first, SquareRoot(settings.moment_bits, group))


def _moment_group(settings: QftSettings) -> int:
    return _MOMENT_GROUP if settings.scale_group == "row" else settings.scale_group


def plan_for(method: QftSettings | FullSettings) -> MemoryPlan:
    """The plan of a method with its settings."""
    return qft_plan(method) if method.kind == "qft" else FULL_PLAN
