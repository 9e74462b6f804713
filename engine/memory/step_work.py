"""What one training step has to do: floating-point operations, bytes moved, operations called.

A forward pass multiplies every weight of a linear layer with every token: two operations each. A
backward pass does that once for the inputs' gradient and once for the weight's, which a frozen
weight does not have. What is no product is bound by memory, and is counted in bytes; tiny models
are bound by the calls themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.memory.layout import DTYPE_BYTES, Dense, FourBit, Layout
from engine.memory.passes import FLOAT32, Pass, activation_bytes

if TYPE_CHECKING:
    from engine.contract.method_settings import MethodSettings
    from engine.contract.spec import RunSpec
    from engine.memory.model_shape import ModelShape, TensorShape

# Fitted to steps on a CPU; see benchmarks/results/step_forecast_cpu.json for what is left of error.
# How often a forward pass moves the activations that it keeps, and the loss a score; calls in a
# block's forward pass, and in that of an adapter.
_ACTIVATION_PASSES, _SCORE_PASSES = 6.5, 8.0
_CALLS_PER_BLOCK, _CALLS_PER_ADAPTER = 155.0, 60.0
# A product is as slow as if each of its sides were that much longer.
_EDGE = 44.0
# Bytes moved for each byte of a weight that is cast for a product, or made of 4-bit codes.
_CAST_BYTES, _FOUR_BIT_BYTES = 4.4, 8.5
# The update: calls for each tensor, and bytes moved for each weight. A weight in bfloat16 takes
# more, since it is rounded by chance.
_UPDATE_CALLS = {"qft": 180.0, "full": 5.0, "lomo": 10.0, "adalomo": 130.0}
_UPDATE_BYTES = {
    "qft lion": 72.0,
    "qft adamw": 125.0,
    "full adamw": 17.0,
    "full adamw_8bit": 200.0,
    "full lion": 30.0,
    "full sgd": 8.0,
    "lomo": 8.0,
    "adalomo": 48.0,
}
_FOUR_BIT_MOMENTS, _STACK = 250.0, 86.0
_ROUNDED_BYTES, _ROUNDED_CALLS, _ROUNDED_CALLS_FULL = 65.0, 110.0, 220.0
# Share of the tokens that are trained where only replies are.
REPLY_SHARE = 0.6


@dataclass(frozen=True)
class Work:
    """What a device has to do.

    Attributes:
        flops: Floating-point operations in products of matrices.
        moved_bytes: Bytes read and written by all else.
        calls: Operations that are called, each with the same small cost.
    """

    flops: float = 0.0
    moved_bytes: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flops + other.flops,
            self.moved_bytes + other.moved_bytes,
            self.calls + other.calls,
        )

    def times(self, count: float) -> Work:
        """The same so many times."""
        return Work(self.flops * count, self.moved_bytes * count, self.calls * count)


@dataclass(frozen=True)
class Rounds:
    """How often a step goes through the blocks for one micro-batch.

    A backward pass costs a forward pass for the gradient of what went in, and one more for those
    of the weights. What is recomputed is a forward pass; exact clipping in a fused method goes
    back twice.
    """

    forward: int
    backward: int
    weights: int

    @classmethod
    def of(cls, one_pass: Pass) -> Rounds:
        """For a micro-batch of this kind."""
        backward = 2 if one_pass.twice else 1
        forward = 1 + (backward if one_pass.checkpointing else 0)
        return cls(forward, backward, 0 if one_pass.plan.adapter is not None else backward)

    @property
    def all(self) -> int:
        """In forward passes."""
        return self.forward + self.backward + self.weights


def step_work(spec: RunSpec, shape: ModelShape, one_pass: Pass) -> Work:
    """One optimizer step: every micro-batch, and the update.

    Args:
        spec: A complete spec.
        shape: The model's shapes.
        one_pass: A micro-batch of typical width.
    """
    rounds = Rounds.of(one_pass)
    passes = _blocks(spec, shape, one_pass, rounds) + _head(spec, shape, one_pass)
    return passes.times(spec.train.grad_accumulation) + _update(spec.method, shape, one_pass)


def evaluation_work(spec: RunSpec, shape: ModelShape, one_pass: Pass) -> Work:
    """A forward pass over one batch that is only measured."""
    head = _head(spec, shape, one_pass)
    return _blocks(spec, shape, one_pass, Rounds(1, 0, 0)) + head.times(1 / 3)


def _blocks(spec: RunSpec, shape: ModelShape, one_pass: Pass, rounds: Rounds) -> Work:
    matrices = [tensor for tensor in shape.tensors if tensor.role in ("linear", "other")]
    elements = sum(one.num_elements * one.repeat for one in matrices)
    per_pass = sum(
        _product_flops(one_pass.tokens, one.num_elements // one.shape[-1], one.shape[-1])
        * one.repeat
        for one in matrices
    )
    flops = rounds.all * per_pass + _attention_flops(spec, shape, one_pass, rounds)
    kept = activation_bytes(shape, replace(one_pass, checkpointing=False))
    both_ways = rounds.forward + 2 * rounds.backward
    moved = both_ways * _ACTIVATION_PASSES * kept
    # A product reads its weight, or makes it from what is stored first.
    moved += rounds.all * elements * one_pass.compute_bytes
    uses = rounds.forward + rounds.backward
    moved += uses * sum(_cast_bytes(one, one_pass) * one.repeat for one in matrices)
    calls = both_ways * _CALLS_PER_BLOCK * shape.num_layers
    return Work(flops, moved, calls) + _adapters(shape, one_pass, rounds)


def _product_flops(*sides: float) -> float:
    """Of a product, with what its sides cost; its three ways have the same sides."""
    small = sum(1 / side for side in sides)
    return 2.0 * math.prod(sides) * (1 + _EDGE * small)


def _attention_flops(spec: RunSpec, shape: ModelShape, one_pass: Pass, rounds: Rounds) -> float:
    """Scores and their product with the values; half of either is masked, and left out.

    The backward pass makes the scores again, and four more products of that size.
    """
    width = one_pass.tokens / spec.train.batch_size
    per_pass = 4 * one_pass.tokens * width * shape.num_heads * shape.head_dim * shape.num_layers
    if not one_pass.masked:
        per_pass /= 2
    return (rounds.forward + 2.5 * rounds.backward) * per_pass


def _adapters(shape: ModelShape, one_pass: Pass, rounds: Rounds) -> Work:
    """Both matrices of every adapter; they learn, whatever the model does."""
    adapter = one_pass.plan.adapter
    if adapter is None:
        return Work()
    sizes = list(adapter.matrices(shape))
    elements = sum(rows * columns * count for (rows, columns), count in sizes)
    widths = sum(rows * count for (rows, _), count in sizes)
    both_ways = rounds.forward + 2 * rounds.backward
    flops = both_ways * 2.0 * elements * one_pass.tokens
    moved = both_ways * 2.0 * widths * one_pass.tokens * FLOAT32
    calls = both_ways * _CALLS_PER_ADAPTER * sum(count for _, count in sizes) / 2
    return Work(flops, moved, calls)


def _head(spec: RunSpec, shape: ModelShape, one_pass: Pass) -> Work:
    """The loss. Scores that are too many to keep are made again on the way back."""
    share = REPLY_SHARE if spec.data.train_on == "replies" else 1.0
    targets = one_pass.tokens * share
    scores = targets * shape.vocab_size
    again = 0 if scores <= one_pass.scores else 1
    trained = 0 if one_pass.plan.adapter is not None else 1
    passes = 2 + again + trained + (2 if one_pass.twice else 0)
    flops = passes * _product_flops(targets, shape.vocab_size, shape.hidden_size)
    moved = (2 + again) * _SCORE_PASSES * scores * FLOAT32
    tables = [tensor for tensor in shape.tensors if tensor.role == "embedding"]
    if tables and _is_cast(one_pass.plan.tables.weight, one_pass):
        moved += (2 + again) * _cast_bytes(tables[-1], one_pass)
    return Work(flops, moved)


def _is_cast(stored: Layout, one_pass: Pass) -> bool:
    return not isinstance(stored, Dense) or DTYPE_BYTES[stored.dtype] != one_pass.compute_bytes


def _cast_bytes(tensor: TensorShape, one_pass: Pass) -> float:
    """Of one use of a weight in a product; nothing where it is stored as it is multiplied."""
    stored = one_pass.plan.of(tensor.role).weight
    if not _is_cast(stored, one_pass):
        return 0.0
    factor = _FOUR_BIT_BYTES if isinstance(stored, FourBit) else _CAST_BYTES
    return factor * (tensor.num_elements * one_pass.compute_bytes)


def _update(method: MethodSettings, shape: ModelShape, one_pass: Pass) -> Work:
    """Every weight that is trained, once."""
    adapter = one_pass.plan.adapter
    if adapter is not None:
        sizes = list(adapter.matrices(shape))
        elements = sum(rows * columns * count for (rows, columns), count in sizes)
        calls = _UPDATE_CALLS["full"] * sum(count for _, count in sizes)
        return Work(0.0, _UPDATE_BYTES["full adamw"] * elements, calls)
    calls = _calls_of(method, one_pass) * sum(tensor.repeat for tensor in shape.tensors)
    return Work(0.0, _update_bytes(method, one_pass) * shape.num_parameters, calls)


def _calls_of(method: MethodSettings, one_pass: Pass) -> float:
    calls = _UPDATE_CALLS[method.kind]
    if not _is_rounded(one_pass):
        return calls
    return calls + (_ROUNDED_CALLS_FULL if method.kind == "full" else _ROUNDED_CALLS)


def _is_rounded(one_pass: Pass) -> bool:
    """Whether a trained weight is kept in bfloat16: updated in float32, and rounded by chance."""
    return one_pass.plan.matrices.weight == Dense("bfloat16")


def _update_bytes(method: MethodSettings, one_pass: Pass) -> float:
    """Bytes that are moved for one weight."""
    if method.kind == "qft":
        total = _UPDATE_BYTES[f"qft {method.update}"]
        total += _FOUR_BIT_MOMENTS if method.moment_bits == 4 else 0.0
        return total + (_STACK if method.gradients == "stack" else 0.0)
    if method.kind == "full":
        total = _UPDATE_BYTES[f"full {method.optimizer}"]
    else:
        total = _UPDATE_BYTES.get(method.kind, 0.0)
    return total + (_ROUNDED_BYTES if _is_rounded(one_pass) else 0.0)
