"""Where each method's bytes are: one plan per method, shared by estimator and engine."""

from __future__ import annotations

from dataclasses import dataclass

from engine.contract.spec import FullSettings, QftSettings
from engine.memory.layout import Dense, Int8, Layout
from engine.memory.model_shape import Role


@dataclass(frozen=True)
class TensorPlan:
    """One trained tensor: how its weight and each of its moments are stored."""

    weight: Layout
    moments: tuple[Layout, ...]


@dataclass(frozen=True)
class MemoryPlan:
    """A method's storage by role of the tensor.

    Attributes:
        matrices: Linear layers of the blocks.
        tables: Token embeddings, the head, and tensors of unknown kind.
        small: Norms and biases.
        fused: Weights are updated inside the backward pass, so one gradient is alive at a time.
    """

    matrices: TensorPlan
    tables: TensorPlan
    small: TensorPlan
    fused: bool

    def of(self, role: Role) -> TensorPlan:
        """The plan of a tensor with this role."""
        if role == "linear":
            return self.matrices
        return self.small if role == "small" else self.tables

    @staticmethod
    def chunk_elements(device: str) -> int:
        """Weights that a fused update handles at once.

        On a CPU what fits into its cache; on a GPU enough to keep it busy.
        """
        return 1 << 24 if device == "cuda" else 1 << 18


_FLOAT32 = Dense("float32")
# A bfloat16 scale of a moment could not decay: its step is coarser than the decay of one update.
_MOMENT8 = Int8(256, "float32")

QFT_PLAN = MemoryPlan(
    matrices=TensorPlan(Int8("row", "bfloat16"), (_MOMENT8,)),
    tables=TensorPlan(Dense("bfloat16"), (_MOMENT8,)),
    small=TensorPlan(_FLOAT32, (_FLOAT32,)),
    fused=True,
)

_FULL = TensorPlan(_FLOAT32, (_FLOAT32, _FLOAT32))
FULL_PLAN = MemoryPlan(matrices=_FULL, tables=_FULL, small=_FULL, fused=False)


def plan_for(method: QftSettings | FullSettings) -> MemoryPlan:
    """The plan of a method with its settings."""
    return QFT_PLAN if method.kind == "qft" else FULL_PLAN
