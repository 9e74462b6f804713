"""One forward and backward pass in numbers: its tokens, and what it keeps for the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.memory.activation_trace import (
    ActivationTrace,
    BackwardPass,
    Compute,
    Slope,
    counted_trace,
    trace_key,
)
from engine.memory.layout import DTYPE_BYTES, Dense, Layout
from engine.memory.plans import MemoryPlan

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec
    from engine.memory.model_shape import ModelShape

FLOAT32, BFLOAT16 = DTYPE_BYTES["float32"], DTYPE_BYTES["bfloat16"]


@dataclass(frozen=True)
class Pass:
    """One micro-batch on one device.

    Attributes:
        tokens: Tokens in the micro-batch, padding included.
        length: Tokens in one row of it.
        compute_bytes: Bytes of one activation.
        checkpointing: Whether activations are recomputed block by block.
        plan: Where the method keeps its bytes.
        chunk: Weights that one update handles at once.
        product: Weights that one product of a pass takes.
        scores: Scores over the vocabulary that the loss handles at once.
        twice: Whether the graph is kept for a second backward pass.
        masked: Whether attention needs a mask: then keys and values are repeated for all heads.
        drops: Whether an adapter's inputs are dropped at random.
        accumulates: Whether gradients of micro-batches before it are alive.
    """

    tokens: int
    length: int
    compute_bytes: int
    checkpointing: bool
    plan: MemoryPlan
    chunk: int
    product: int
    scores: int
    twice: bool
    masked: bool
    drops: bool
    accumulates: bool

    @classmethod
    def of(
        cls,
        spec: RunSpec,
        shape: ModelShape,
        plan: MemoryPlan,
        device: Literal["cpu", "cuda"],
        longest_tokens: int | None,
    ) -> Pass:
        """The widest pass that a complete spec asks for, with data of that longest length."""
        method, train = spec.method, spec.train
        limits = (train.sequence_length, shape.max_position, longest_tokens)
        length = min(limit for limit in limits if limit)
        if train.batching == "packed":  # rows are filled up
            length = min(limit for limit in limits[:2] if limit)
        float32 = getattr(method, "precision", None) == "fp32"
        return cls(
            tokens=train.batch_size * length,
            length=length,
            compute_bytes=FLOAT32 if device == "cpu" or float32 else BFLOAT16,
            checkpointing=train.activation_checkpointing is True,
            plan=plan,
            chunk=plan.chunk_elements(device),
            product=plan.product_elements(device),
            scores=plan.score_elements(device),
            twice=plan.products == "cast" and plan.fused and train.max_grad_norm is not None,
            masked=train.batching == "packed",
            drops=getattr(method, "dropout", 0.0) > 0,
            accumulates=train.grad_accumulation > 1,
        )

    @property
    def key(self) -> str:
        """Its trace's, in `ModelShape.traces`."""
        compute: Compute = "float32" if self.compute_bytes == FLOAT32 else "bfloat16"
        return trace_key(compute, adapter=self.plan.adapter is not None, packed=self.masked)

    def nbytes(self, slope: Slope) -> int:
        """Bytes of what grows with the micro-batch."""
        return slope.nbytes(self.tokens, self.length)

    @property
    def casts(self) -> bool:
        """Whether matrices are stored in another format than they are multiplied in."""
        return self._casts(self.plan.matrices.weight)

    @property
    def casts_tables(self) -> bool:
        """Whether the head is stored in another format than it is multiplied in."""
        return self._casts(self.plan.tables.weight)

    def _casts(self, stored: Layout) -> bool:
        return not isinstance(stored, Dense) or DTYPE_BYTES[stored.dtype] != self.compute_bytes


def activation_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """What is kept until the backward pass begins, from the embeddings to the head."""
    trace = trace_of(shape, one_pass)
    if one_pass.checkpointing:
        return one_pass.nbytes(trace.outside_recomputed) + (
            one_pass.nbytes(trace.block_input) * shape.num_layers
        )
    block = one_pass.nbytes(trace.block) + _adapter_activations(shape, one_pass)
    return one_pass.nbytes(trace.outside) + block * shape.num_layers


def block_backward(shape: ModelShape, one_pass: Pass) -> BackwardPass:
    """One block's way back, its own activations included if they are recomputed."""
    trace = trace_of(shape, one_pass)
    if one_pass.checkpointing:
        return trace.recomputed
    return trace.backward_again if one_pass.twice else trace.backward


def block_backward_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """What its activations and their gradients take at the widest."""
    recomputed = _adapter_activations(shape, one_pass) if one_pass.checkpointing else 0
    return one_pass.nbytes(block_backward(shape, one_pass).most) + recomputed


def trace_of(shape: ModelShape, one_pass: Pass) -> ActivationTrace:
    """How such a pass goes through the model: as traced, or as a Llama's would."""
    adapter = one_pass.plan.adapter is not None
    traced = shape.traces.get(one_pass.key)
    return traced or counted_trace(shape, one_pass.compute_bytes, adapter=adapter)


def _adapter_activations(shape: ModelShape, one_pass: Pass) -> int:
    """Of one block: between an adapter's two matrices, and dropped inputs."""
    adapter = one_pass.plan.adapter
    if adapter is None:
        return 0
    per_block = 0
    for (rank, inputs), repeat in list(adapter.matrices(shape))[::2]:
        copies = FLOAT32 * rank
        if one_pass.drops:  # the input that is left, and by what it was multiplied
            copies += 2 * one_pass.compute_bytes * inputs
        per_block += copies * repeat // shape.num_layers
    return per_block * one_pass.tokens
