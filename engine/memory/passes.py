"""The forward and backward pass in bytes: a model, not a sum of layouts. See `band_of`.

The peak is the largest of three moments: the loss, when all activations are alive and the scores
over the vocabulary too; the first block of the backward pass; and the update of a table or, where
nothing is fused, of everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.contract.spec import RunSpec
from engine.memory.layout import DTYPE_BYTES
from engine.memory.model_shape import ModelShape
from engine.memory.plans import MemoryPlan

FLOAT32, BFLOAT16 = DTYPE_BYTES["float32"], DTYPE_BYTES["bfloat16"]
# Architectures on which the counts below were compared with measured peaks.
COUNTED = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3"})
# Float32 temporaries of one chunk while it is updated, counted in `engine.methods.qft`.
_TABLE_TEMPORARIES = 9
_MATRIX_TEMPORARIES = 5


@dataclass(frozen=True)
class Pass:
    """One micro-batch on one device.

    Attributes:
        tokens: Tokens in the micro-batch, padding included.
        compute_bytes: Bytes of one activation.
        checkpointing: Whether activations are recomputed block by block.
        chunk: Weights that one fused update handles at once; None where nothing is fused.
    """

    tokens: int
    compute_bytes: int
    checkpointing: bool
    chunk: int | None

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
            chunk=plan.chunk_elements(device) if plan.fused else None,
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


def peak_bytes(shape: ModelShape, one_pass: Pass, gradients: int) -> int:
    """The largest sum of what is alive at once, beyond weights and moments."""
    activations = activation_bytes(shape, one_pass)
    logits = logits_bytes(shape, one_pass)
    return max(
        activations + logits + _cast_table_bytes(shape, one_pass),
        activations + _block_backward_bytes(shape, one_pass),
        _update_bytes(shape, one_pass, gradients),
    )


def _block_backward_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """The first block of the backward pass: gradients of activations, and one weight's update."""
    matrix = shape.largest("linear")
    if one_pass.chunk is None:
        # The gradients of the head and of one block, by then.
        block = shape.linear_parameters // max(1, shape.num_layers)
        weights = FLOAT32 * (shape.largest("embedding", "other") + block)
        return _passing_bytes(shape, one_pass) + (weights if one_pass.checkpointing else 0)
    update = _MATRIX_TEMPORARIES * FLOAT32 * min(one_pass.chunk, matrix)
    return _passing_bytes(shape, one_pass) + max(update, one_pass.compute_bytes * matrix)


def _passing_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """Gradients of one feed-forward's activations; with them all activations if recomputed."""
    wide = one_pass.tokens * shape.intermediate_size * one_pass.compute_bytes
    if one_pass.checkpointing:
        return block_activation_bytes(shape, one_pass) + wide
    return 4 * wide


def _update_bytes(shape: ModelShape, one_pass: Pass, gradients: int) -> int:
    """The end of the backward pass, or of the head's where a fused update comes at once."""
    table = shape.largest("embedding", "other")
    if one_pass.chunk is None:
        # A tied table gets its gradient from both ends, added at the end.
        tied = 2 * FLOAT32 * table if shape.tied else 0
        recomputed = _passing_bytes(shape, one_pass) if one_pass.checkpointing else 0
        return gradients + max(tied, recomputed)
    from_autograd = BFLOAT16 * table + 2 * _cast_table_bytes(shape, one_pass)
    update = BFLOAT16 * table + _TABLE_TEMPORARIES * FLOAT32 * min(one_pass.chunk, table)
    # An untied head is updated first, while every activation is alive.
    alive = 0 if shape.tied else activation_bytes(shape, one_pass)
    return alive + max(from_autograd, update)


def _cast_table_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """A float32 copy of a bfloat16 table, where the pass computes in float32."""
    cast = one_pass.chunk is not None and one_pass.compute_bytes == FLOAT32
    return FLOAT32 * shape.largest("embedding", "other") if cast else 0
