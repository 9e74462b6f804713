"""The peak of a step in bytes: a model, not a sum of layouts. See `engine.memory.estimate.band_of`.

It is the largest of four moments: the loss, when all activations are alive; the backward pass of
the last block; that of the first, when gradients that were kept are whole; and the update after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.memory.layout import DTYPE_BYTES, Dense, Factored, Int4
from engine.memory.passes import (
    FLOAT32,
    Pass,
    activation_bytes,
    block_backward,
    block_backward_bytes,
)
from engine.memory.plans import MemoryPlan

if TYPE_CHECKING:
    from engine.memory.activation_trace import AtGradient
    from engine.memory.model_shape import ModelShape, TensorShape

# Float32 temporaries of one chunk while it is updated: direction, moments and what rounding draws;
# its gradient, where that was kept in 8 bits; a second moment of rows times columns; and the steps
# of a rounding to powers of two.
_UPDATE_TEMPORARIES, _UPDATE_OF_STACK, _UPDATE_OF_FACTORS, _UPDATE_OF_POWERS = 3.5, 4.25, 4.5, 8.25


def score_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """Scores over the vocabulary that are alive at once, in float32.

    Where all are few, they are kept for the backward pass.
    """
    every = one_pass.tokens * shape.vocab_size
    some = one_pass.tokens * _rows_of_scores(shape, one_pass)
    return FLOAT32 * (every if every <= one_pass.scores else some)


def gradient_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """Gradients that are alive at once: all, or what a fused update leaves."""
    plan = one_pass.plan
    if plan.adapter is not None:
        held = plan.adapter.tensor.gradient
        assert held is not None
        return sum(held.nbytes(size) * count for size, count in plan.adapter.matrices(shape))
    if not plan.fused:
        return sum(_held_bytes(tensor, plan) * tensor.repeat for tensor in shape.tensors)
    if plan.products == "cast":
        return max(_held_bytes(tensor, plan) for tensor in shape.tensors)
    # Autograd makes the gradient of a tensor of unknown kind whole, in the tensor's own format.
    other = shape.largest("other") * DTYPE_BYTES["bfloat16"]
    matrix = _product_bytes(shape.largest("linear", "embedding"), one_pass)
    return max(_tied_bytes(shape, one_pass), other, matrix)


def peak_bytes(shape: ModelShape, one_pass: Pass, gradients: int) -> int:
    """The largest sum of what is alive at once, beyond weights and moments."""
    activations = activation_bytes(shape, one_pass) + _cast_bytes(shape, one_pass)
    at_head, in_blocks = _held_before(shape, one_pass, gradients)
    return max(
        activations + at_head + _head_bytes(shape, one_pass),
        activations + in_blocks + _block_bytes(shape, one_pass),
        _end_of_fused(shape, one_pass, activations)
        if one_pass.plan.fused
        else _end_of_kept(shape, one_pass, gradients),
        gradients,
    )


def _held_before(shape: ModelShape, one_pass: Pass, gradients: int) -> tuple[int, int]:
    """Gradients that are alive while the loss is computed, and while blocks go backward.

    All of them where micro-batches came before. A chunk is added to what lies on a stack; autograd
    makes a tensor's gradient whole beside the sum, and one of a tied table waits for its other end.
    """
    left = _left_by_head(shape, one_pass)
    if not one_pass.accumulates:
        return 0, left
    if one_pass.plan.products == "by_rows":
        return gradients - left + _push_bytes(one_pass.chunk, one_pass), gradients
    return gradients, gradients + _tied_bytes(shape, one_pass)


def _end_of_fused(shape: ModelShape, one_pass: Pass, activations: int) -> int:
    """The token table's update, the last of the backward pass; a second one keeps the graph."""
    kept = activations if one_pass.twice else 0
    table, update = (
        _tied_bytes(shape, one_pass),
        _update_bytes(shape.largest("embedding"), one_pass),
    )
    if one_pass.plan.products == "cast":
        # Autograd adds the gradients of both ends up to a third.
        both_ends = 3 * table
        return kept + max(both_ends, _table_gradient_bytes(shape, one_pass) + update)
    return kept + table + update


def _end_of_kept(shape: ModelShape, one_pass: Pass, gradients: int) -> int:
    """The first block's backward pass, then the token table's, then the update."""
    table, tied = _table_gradient_bytes(shape, one_pass), _tied_bytes(shape, one_pass)
    block = block_backward_bytes(shape, one_pass) if one_pass.checkpointing else 0
    update = _update_bytes(shape.largest("embedding", "linear", "other"), one_pass)
    both_ends = 2 * tied if one_pass.plan.products == "cast" else 0
    return max(gradients - (table - tied) + block, gradients + max(both_ends, update))


def _rows_of_scores(shape: ModelShape, one_pass: Pass) -> int:
    """Words of the vocabulary that the loss handles at once."""
    most = min(
        max(1, one_pass.scores // one_pass.tokens), max(1, one_pass.product // shape.hidden_size)
    )
    if one_pass.plan.products == "by_rows":  # whole chunks of an update
        chunk = max(1, one_pass.chunk // shape.hidden_size)
        most = max(chunk, most - most % chunk)
    return min(shape.vocab_size, most)


def _head_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """The loss: hidden states, scores, and the head's rows with their gradient.

    See `engine.score_head`. Where few tokens make all scores few, those are kept for the backward
    pass; they are no more than the chunks of others.
    """
    states = one_pass.tokens * shape.hidden_size
    number = _rows_of_scores(shape, one_pass)
    rows = number * shape.hidden_size * one_pass.compute_bytes
    cast = rows if one_pass.casts_tables else 0
    several = number < shape.vocab_size
    taken = states * one_pass.compute_bytes
    if one_pass.compute_bytes != FLOAT32:  # scores before they are float32
        taken += one_pass.tokens * number * one_pass.compute_bytes
    passed = states * (FLOAT32 if several else one_pass.compute_bytes)
    share = taken if several else 0
    plan = one_pass.plan
    learns = plan.tables.gradient is not None
    if plan.products == "by_rows":
        chunk = number * shape.hidden_size
        update = _update_bytes(chunk, one_pass) if plan.fused else _push_bytes(chunk, one_pass)
        if plan.fused and shape.tied:  # the update waits for the other end
            update = 0
        held = _left_by_head(shape, one_pass)
    else:
        update, held = 0, _table_gradient_bytes(shape, one_pass)
    scores = score_bytes(shape, one_pass)
    if plan.products == "by_rows" and one_pass.tokens * shape.vocab_size <= one_pass.scores:
        # Kept scores go chunk by chunk, as the gradient of the rows comes.
        part = number / shape.vocab_size
        held = max(round(held * part), held - round(scores * (1 - part)))
    # The way back through a limit takes the scores twice more.
    capped = 2 * scores if shape.caps_scores else 0
    products = max(rows + update if learns else 0, cast + share)
    return taken + scores + max(cast, held + passed + max(products, capped))


def _table_gradient_bytes(shape: ModelShape, one_pass: Pass) -> int:
    tables = [tensor for tensor in shape.tensors if tensor.role == "embedding"]
    return max((_held_bytes(table, one_pass.plan) for table in tables), default=0)


def _left_by_head(shape: ModelShape, one_pass: Pass) -> int:
    """What the head leaves behind until the end of the backward pass."""
    plan = one_pass.plan
    if plan.fused:
        return _tied_bytes(shape, one_pass)
    return _table_gradient_bytes(shape, one_pass)


def _tied_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """A table that is embedding and head waits for both ends' gradients."""
    return _table_gradient_bytes(shape, one_pass) if shape.tied else 0


def _held_bytes(tensor: TensorShape, plan: MemoryPlan) -> int:
    """The whole gradient of one tensor; none where it is frozen."""
    gradient = plan.of(tensor.role).gradient
    return gradient.nbytes(tensor.stored_shape) if gradient else 0


def _block_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """One block's backward pass: gradients of its activations, and of its weights."""
    plan, most = one_pass.plan, block_backward_bytes(shape, one_pass)
    held = 0
    if not plan.fused and plan.products == "cast":  # a block's gradients come as it goes back
        whole = sum(_held_bytes(t, plan) * t.repeat for t in shape.tensors if t.role == "linear")
        held = whole // max(1, shape.num_layers)
    at_gradients = block_backward(shape, one_pass).at_gradients
    if not at_gradients:
        return most + _matrix_bytes(shape.largest("linear"), one_pass) + held
    return held + max(
        most,
        *(
            min(most, one_pass.nbytes(at.held) + _ends_bytes(at, one_pass))
            + _matrix_bytes(at.rows * at.columns, one_pass)
            for at in at_gradients
        ),
    )


def _ends_bytes(at: AtGradient, one_pass: Pass) -> int:
    """A layer's input and its output's gradient, where the layer still holds them.

    It does while it makes the gradient of its weight itself, or has cast its weight for a product.
    """
    if one_pass.plan.products == "by_rows" or one_pass.casts:
        return one_pass.tokens * (at.rows + at.columns) * one_pass.compute_bytes
    return 0


def _matrix_bytes(elements: int, one_pass: Pass) -> int:
    """What a matrix takes in the backward pass: its product, its gradient, its update."""
    plan = one_pass.plan
    update = _update_bytes(elements, one_pass)
    if plan.products == "by_rows":
        return _product_bytes(elements, one_pass) + (
            update if plan.fused else _push_bytes(elements, one_pass)
        )
    cast = _weight_bytes(elements, one_pass)
    return max(cast, update) if plan.fused else cast


def _weight_bytes(elements: int, one_pass: Pass) -> int:
    """A matrix that is cast for its product, or the gradient that its product makes."""
    if not one_pass.casts:
        return 0
    matrix = elements * one_pass.compute_bytes
    return matrix * (3 if one_pass.plan.adapter is None else 2) // 2


def _product_bytes(elements: int, one_pass: Pass) -> int:
    return min(elements, one_pass.product) * one_pass.compute_bytes


def _push_bytes(elements: int, one_pass: Pass) -> int:
    """A gradient on its way to the stack, in float32."""
    return FLOAT32 * min(one_pass.chunk, elements)


def _update_bytes(elements: int, one_pass: Pass) -> int:
    """Temporaries of an update that goes by chunks; the library's own updates are in place."""
    plan = one_pass.plan
    if plan.adapter is not None or (plan.matrices.weight == Dense("float32") and not plan.fused):
        return 0
    count = _UPDATE_TEMPORARIES
    if plan.products == "by_rows" and not plan.fused:
        count = _UPDATE_OF_STACK
    if any(isinstance(moment, Factored) for moment in plan.matrices.moments):
        count = _UPDATE_OF_FACTORS
    if any(isinstance(moment, Int4) for moment in plan.matrices.moments):
        count = _UPDATE_OF_POWERS
    return round(count * FLOAT32 * min(one_pass.chunk, elements))


def _cast_bytes(shape: ModelShape, one_pass: Pass) -> int:
    """Copies of tensors of unknown kind in the format of a pass, kept for its backward half."""
    stored = one_pass.plan.other.weight
    if isinstance(stored, Dense) and DTYPE_BYTES[stored.dtype] == one_pass.compute_bytes:
        return 0
    sizes = [t.num_elements * t.repeat for t in shape.tensors if t.role == "other"]
    blocks = shape.num_layers if one_pass.checkpointing else 1
    return one_pass.compute_bytes * sum(sizes) // max(1, blocks)
