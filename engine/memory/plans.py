"""Where each method's bytes are: one plan per method, shared by estimator and engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.contract.adapter_targets import is_target
from engine.memory.layout import (
    Blockwise8,
    Dense,
    Factored,
    FourBit,
    Int4,
    Int8,
    Layout,
    Shape,
    SquareRoot,
)

if TYPE_CHECKING:
    from engine.contract.method_settings import (
        AdaLomoSettings,
        FullSettings,
        LomoSettings,
        LoraSettings,
        MethodSettings,
        QftSettings,
        QloraSettings,
    )
    from engine.memory.model_shape import ModelShape, Role


@dataclass(frozen=True)
class TensorPlan:
    """How one tensor's weight, each of its moments and a held gradient are stored.

    A frozen tensor has neither moments nor a gradient.
    """

    weight: Layout
    moments: tuple[Layout, ...] = ()
    gradient: Layout | None = None


@dataclass(frozen=True)
class AdapterPlan:
    """Two small matrices beside a frozen one: (rank, inputs) and (outputs, rank).

    Attributes:
        rank: Their inner dimension.
        targets: `all-linear`, or names of layers with commas between them.
        tensor: How each is stored.
    """

    rank: int
    targets: str
    tensor: TensorPlan

    def matrices(self, shape: ModelShape) -> Iterator[tuple[Shape, int]]:
        """Shape and number of every adapter matrix."""
        for tensor in shape.tensors:
            layer = tensor.name.removesuffix(".weight")
            if tensor.role == "linear" and is_target(layer, self.targets):
                outputs, inputs = tensor.stored_shape
                yield (self.rank, inputs), tensor.repeat
                yield (outputs, self.rank), tensor.repeat


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
        products: How a weight enters a product: dequantized some rows at a time; cast as a whole
            where it is stored in another format than is computed in; or as it is.
        adapter: What is trained where the model itself is frozen.
    """

    matrices: TensorPlan
    tables: TensorPlan
    small: TensorPlan
    other: TensorPlan
    fused: bool
    products: Literal["by_rows", "cast"] = "cast"
    adapter: AdapterPlan | None = None

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

    @staticmethod
    def score_elements(device: str) -> int:
        """Scores over the vocabulary, in float32, that the loss computes at once."""
        return 1 << 26 if device == "cuda" else 1 << 22


_FLOAT32, _BFLOAT16, _EIGHT = Dense("float32"), Dense("bfloat16"), Blockwise8()
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
        products="by_rows",
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


def full_plan(settings: FullSettings) -> MemoryPlan:
    """Every tensor alike: weight, gradient and the optimizer's moments."""
    moments: dict[str, tuple[Layout, ...]] = {
        "adamw": (_FLOAT32, _FLOAT32),
        "adamw_8bit": (_EIGHT, _EIGHT),
        "lion": (_FLOAT32,),
        "sgd": (),
    }
    kept = _BFLOAT16 if settings.precision == "bf16" else _FLOAT32
    return _uniform(TensorPlan(kept, moments[settings.optimizer], kept), fused=False)


def fused_plan(settings: LomoSettings | AdaLomoSettings) -> MemoryPlan:
    """LOMO keeps weights and nothing else; AdaLomo a factored second moment."""
    assert settings.precision != "auto", "the device decides: engine.memory.resolve"
    kept = _BFLOAT16 if settings.precision == "bf16" else _FLOAT32
    moments = (Factored(),) if settings.kind == "adalomo" else ()
    trained = TensorPlan(kept, moments, kept)
    tables = trained if settings.embedding_rate else TensorPlan(kept)
    return MemoryPlan(trained, tables, trained, trained, fused=True)


def adapter_plan(settings: LoraSettings | QloraSettings) -> MemoryPlan:
    """A frozen model, in 16 bits or its linear layers in 4, and adapters in float32."""
    eight = settings.optimizer.endswith("8bit")
    moments: tuple[Layout, ...] = (_EIGHT, _EIGHT) if eight else (_FLOAT32, _FLOAT32)
    adapter = AdapterPlan(settings.rank, settings.targets, TensorPlan(_FLOAT32, moments, _FLOAT32))
    frozen = TensorPlan(_BFLOAT16)
    matrices = TensorPlan(FourBit(settings.double_quant)) if settings.kind == "qlora" else frozen
    return MemoryPlan(matrices, frozen, frozen, frozen, fused=False, adapter=adapter)


def _uniform(tensor: TensorPlan, *, fused: bool) -> MemoryPlan:
    return MemoryPlan(tensor, tensor, tensor, tensor, fused=fused)


def plan_for(method: MethodSettings) -> MemoryPlan:
    """The plan of a method with its settings."""
    if method.kind == "qft":
        return qft_plan(method)
    if method.kind == "full":
        return full_plan(method)
    if method.kind == "lora" or method.kind == "qlora":
        return adapter_plan(method)
    return fused_plan(method)
