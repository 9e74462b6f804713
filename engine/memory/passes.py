"""One forward and backward pass in numbers: its tokens, and what it keeps for the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.memory.layout import DTYPE_BYTES, Dense, Layout
from engine.memory.plans import MemoryPlan

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec
    from engine.memory.model_shape import ModelShape

FLOAT32, BFLOAT16 = DTYPE_BYTES["float32"], DTYPE_BYTES["bfloat16"]
# Architectures on which the counts below were compared with measured peaks.
COUNTED = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3"})


@dataclass(frozen=True)
class Pass:
    """One micro-batch on one device.

    Attributes:
        tokens: Tokens in the micro-batch, padding included.
        compute_bytes: Bytes of one activation.
        checkpointing: Whether activations are recomputed block by block.
        plan: Where the method keeps its bytes.
        chunk: Weights that one update handles at once.
        product: Weights that one product of a pass takes.
        scores: Scores over the vocabulary that the loss handles at once.
        twice: Whether the graph is kept for a second backward pass.
        masked: Whether attention needs a mask: then keys and values are repeated for all heads.
        drops: Whether an adapter's inputs are dropped at random.
    """

    tokens: int
    compute_bytes: int
    checkpointing: bool
    plan: MemoryPlan
    chunk: int
    product: int
    scores: int
    twice: bool
    masked: bool
    drops: bool

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
            compute_bytes=FLOAT32 if device == "cpu" or float32 else BFLOAT16,
            checkpointing=train.activation_checkpointing is True,
            plan=plan,
            chunk=plan.chunk_elements(device),
            product=plan.product_elements(device),
            scores=plan.score_elements(device),
            twice=plan.products == "cast" and plan.fused and train.max_grad_norm is not None,
            masked=train.batching == "packed",
            drops=getattr(method, "dropout", 0.0) > 0,
        )

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


def block_activation_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """What one block keeps for its backward pass.

    Two norms (input, normalized, output), queries, keys and values as attention takes them, its
    output, and four tensors of the gated feed-forward; where queries and keys are normalized too,
    two more of each. A frozen norm needs no normalized values.
    """
    hidden, feed_forward = shape.hidden_size, shape.intermediate_size
    queries, keys = (
        heads * shape.head_dim for heads in (shape.num_heads, shape.num_key_value_heads)
    )
    adapter = one_pass.plan.adapter
    normalized = 2 * (queries + keys) if shape.normalizes_queries else 0
    if adapter is not None:
        normalized //= 2
    attention = 4 * queries if one_pass.masked else 2 * (queries + keys)
    numbers = (5 if adapter is None else 3) * hidden + attention + normalized + 4 * feed_forward
    per_token = one_pass.compute_bytes * numbers
    if one_pass.compute_bytes == BFLOAT16:
        per_token += 2 * FLOAT32 * hidden  # norms compute in float32
    if adapter is not None:
        per_token += _adapter_activations(shape, one_pass)
    return per_token * one_pass.tokens


def _adapter_activations(shape: ModelShape, one_pass: Pass) -> int:
    """Of one token in one block: between an adapter's two matrices, and dropped inputs."""
    adapter = one_pass.plan.adapter
    assert adapter is not None
    per_block = 0
    for (rank, inputs), repeat in list(adapter.matrices(shape))[::2]:
        copies = FLOAT32 * rank
        if one_pass.drops:  # the input that is left, and by what it was multiplied
            copies += 2 * one_pass.compute_bytes * inputs
        per_block += copies * repeat // shape.num_layers
    return per_block


def activation_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """What is kept until the backward pass begins, the final norm included."""
    final_norm = 3 * shape.hidden_size * one_pass.compute_bytes * one_pass.tokens
    if one_pass.checkpointing:
        kept = shape.hidden_size * one_pass.compute_bytes * one_pass.tokens * shape.num_layers
        return kept + final_norm
    return block_activation_bytes(shape, one_pass) * shape.num_layers + final_norm
