"""The forward and backward pass in bytes: a model, not a sum of layouts. See `band_of`.

The peak is the largest of four moments: the loss, when all activations are alive and the scores
over the vocabulary too; the backward pass of the head; that of the last block; and the end, where
gradients that were kept are whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.contract.spec import RunSpec
from engine.memory.layout import DTYPE_BYTES, Dense
from engine.memory.model_shape import ModelShape
from engine.memory.plans import MemoryPlan

FLOAT32, BFLOAT16 = DTYPE_BYTES["float32"], DTYPE_BYTES["bfloat16"]
# Architectures on which the counts below were compared with measured peaks.
COUNTED = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3"})
# Float32 temporaries of one chunk while it is updated, counted in `engine.methods.qft`: its
# gradient and direction, what rounding draws and one more for each moment.
_UPDATE_TEMPORARIES = 4


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
    """

    tokens: int
    compute_bytes: int
    checkpointing: bool
    plan: MemoryPlan
    chunk: int
    product: int

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
        limits = (spec.train.sequence_length, shape.max_position, longest_tokens)
        length = min(limit for limit in limits if limit)
        full_precision = device == "cpu" or spec.method.kind == "full"
        return cls(
            tokens=spec.train.batch_size * length,
            compute_bytes=FLOAT32 if full_precision else BFLOAT16,
            checkpointing=spec.train.activation_checkpointing is True,
            plan=plan,
            chunk=plan.chunk_elements(device),
            product=plan.product_elements(device),
        )


def block_activation_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """What one block keeps for its backward pass.

    Two norms (input, normalized, output), queries, keys and values as attention takes them, its
    output, and four tensors of the gated feed-forward; where queries and keys are normalized too,
    two more of each.
    """
    hidden, feed_forward = shape.hidden_size, shape.intermediate_size
    queries, keys = (
        heads * shape.head_dim for heads in (shape.num_heads, shape.num_key_value_heads)
    )
    normalized = 2 * (queries + keys) if shape.normalizes_queries else 0
    numbers = 5 * hidden + 4 * queries + normalized + 4 * feed_forward
    per_token = one_pass.compute_bytes * numbers
    if one_pass.compute_bytes == BFLOAT16:
        per_token += 2 * FLOAT32 * hidden  # norms compute in float32
    return per_token * one_pass.tokens


def activation_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """What is kept until the backward pass begins, the final norm included."""
    final_norm = 3 * shape.hidden_size * one_pass.compute_bytes * one_pass.tokens
    if one_pass.checkpointing:
        kept = shape.hidden_size * one_pass.compute_bytes * one_pass.tokens * shape.num_layers
        return kept + final_norm
    return block_activation_bytes(shape, one_pass) * shape.num_layers + final_norm


def logits_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """Scores over the vocabulary at the peak of the loss: log-softmax and two gradients."""
    copies = 3 * FLOAT32 + (0 if one_pass.compute_bytes == FLOAT32 else BFLOAT16)
    return one_pass.tokens * shape.vocab_size * copies


def gradient_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """Gradients that are alive at once: all, or what a fused update leaves."""
    plan = one_pass.plan
    if not plan.fused:
        return sum(
            plan.of(tensor.role).gradient.nbytes(tensor.stored_shape) * tensor.repeat
            for tensor in shape.tensors
        )
    # Autograd makes the gradient of a tensor of unknown kind whole, in the tensor's own format.
    other = shape.largest("other") * BFLOAT16
    matrix = _product_bytes(shape.largest("linear", "embedding"), one_pass)
    return max(_tied_bytes(shape, one_pass), other, matrix)


def peak_bytes(shape: ModelShape, one_pass: Pass, gradients: int) -> int:
    """The largest sum of what is alive at once, beyond weights and moments."""
    if not one_pass.plan.stored:
        return _peak_of_autograd(shape, one_pass, gradients)
    activations = activation_bytes(shape, one_pass) + _cast_bytes(shape, one_pass)
    logits = logits_bytes(shape, one_pass)
    one_copy = one_pass.tokens * shape.vocab_size * FLOAT32
    head = _head_gradient_bytes(shape, one_pass)
    table, matrix = shape.largest("embedding"), shape.largest("linear")
    end = gradients + _update_bytes(max(table, matrix, shape.largest("other")), one_pass)
    if one_pass.checkpointing:
        end += block_activation_bytes(shape, one_pass)
    return max(
        activations + logits,
        # A head whose gradient is not kept is updated at once.
        activations
        + one_copy
        + _product_bytes(table, one_pass)
        + (head or _update_bytes(table, one_pass)),
        activations
        + head
        + _passing_bytes(shape, one_pass)
        + _product_bytes(matrix, one_pass)
        + (_update_bytes(matrix, one_pass) if one_pass.plan.fused else 0),
        end,
    )


def _product_bytes(elements: int, one_pass: Pass) -> int:
    return min(elements, one_pass.product) * one_pass.compute_bytes


def _update_bytes(elements: int, one_pass: Pass) -> int:
    moments = len(one_pass.plan.matrices.moments)
    return (_UPDATE_TEMPORARIES + moments) * FLOAT32 * min(one_pass.chunk, elements)


def _head_gradient_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """What the head leaves behind until the end of the backward pass."""
    if one_pass.plan.fused:
        return _tied_bytes(shape, one_pass)
    tables = [tensor for tensor in shape.tensors if tensor.role == "embedding"]
    gradient = one_pass.plan.tables.gradient
    pushing = 2 * FLOAT32 * min(one_pass.chunk, shape.largest("embedding"))
    return pushing + max((gradient.nbytes(table.stored_shape) for table in tables), default=0)


def _tied_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """A table that is embedding and head waits for both ends' gradients."""
    gradient = one_pass.plan.tables.gradient
    assert isinstance(gradient, Dense)
    return shape.largest("embedding") * DTYPE_BYTES[gradient.dtype] if shape.tied else 0


def _cast_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """Float32 copies of tensors of unknown kind, kept for the backward pass on a CPU."""
    if one_pass.compute_bytes != FLOAT32:
        return 0
    sizes = [t.num_elements * t.repeat for t in shape.tensors if t.role == "other"]
    blocks = shape.num_layers if one_pass.checkpointing else 1
    return FLOAT32 * sum(sizes) // max(1, blocks)


def _passing_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """Gradients of one feed-forward's activations; with them all activations if recomputed."""
    wide = one_pass.tokens * shape.intermediate_size * one_pass.compute_bytes
    if one_pass.checkpointing:
        return block_activation_bytes(shape, one_pass) + wide
    return 4 * wide


def _peak_of_autograd(shape: ModelShape, one_pass: Pass, gradients: int) -> int:
    """The peak where autograd keeps every gradient in the format of its weight."""
    activations = activation_bytes(shape, one_pass)
    # The gradients of the head and of one block, by the first block of the backward pass.
    block = shape.linear_parameters // max(1, shape.num_layers)
    table = shape.largest("embedding", "other")
    weights = FLOAT32 * (table + block) if one_pass.checkpointing else 0
    # A tied table gets its gradient from both ends, added at the end.
    tied = 2 * FLOAT32 * table if shape.tied else 0
    recomputed = _passing_bytes(shape, one_pass) if one_pass.checkpointing else 0
    return max(
        activations + logits_bytes(shape, one_pass),
        activations + _passing_bytes(shape, one_pass) + weights,
        gradients + max(tied, recomputed),
    )
