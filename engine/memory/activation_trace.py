"""What the passes of a model keep, as numbers per token: traced once, then used for any batch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engine.memory.model_shape import ModelShape

Compute = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Slope:
    """Bytes that grow with a batch.

    Attributes:
        per_token: Bytes for each token.
        per_pair: Bytes for each pair of tokens of one row, where attention keeps something for it.
    """

    per_token: float
    per_pair: float = 0.0

    def nbytes(self, tokens: int, length: int) -> int:
        """Of rows of `length` tokens that are `tokens` together."""
        return round(tokens * (self.per_token + self.per_pair * length))

    def scaled(self, factor: float) -> Slope:
        """The same in a format of another width."""
        return Slope(self.per_token * factor, self.per_pair * factor)

    def __add__(self, other: Slope) -> Slope:
        return Slope(self.per_token + other.per_token, self.per_pair + other.per_pair)


@dataclass(frozen=True)
class AtGradient:
    """What is held beyond all that was kept when the gradient of a matrix has just been made.

    Attributes:
        rows: Of the matrix; its layer's outputs.
        columns: Its inputs.
        held: Activations and their gradients.
    """

    rows: int
    columns: int
    held: Slope


@dataclass(frozen=True)
class BackwardPass:
    """The way back through a block.

    Attributes:
        most: Held at its widest beyond all that was kept.
        at_gradients: Held when the gradient of each of its matrices is made; those of one size
            stand for their widest. Empty where matrices are frozen.
    """

    most: Slope
    at_gradients: tuple[AtGradient, ...] = ()

    def scaled(self, factor: float) -> BackwardPass:
        """The same in a format of another width."""
        scaled = (replace(one, held=one.held.scaled(factor)) for one in self.at_gradients)
        return BackwardPass(self.most.scaled(factor), tuple(scaled))

    def with_more(self, more: Slope) -> BackwardPass:
        """The same where that much more is held all the time."""
        wider = (replace(one, held=one.held + more) for one in self.at_gradients)
        return BackwardPass(self.most + more, tuple(wider))


@dataclass(frozen=True)
class ActivationTrace:
    """One way to go through a model: how it computes, what it trains, and how rows are masked.

    Attributes:
        block: Kept by one block for its backward pass.
        outside: Kept by all that is no block, up to what goes into the head.
        backward: Of a block, beyond all that was kept.
        backward_again: The same where all is kept for another backward pass.
        block_input: Kept by a block whose activations are recomputed.
        outside_recomputed: What `outside` is then.
        recomputed: Of such a block, its activations included.
    """

    block: Slope
    outside: Slope
    backward: BackwardPass
    backward_again: BackwardPass
    block_input: Slope
    outside_recomputed: Slope
    recomputed: BackwardPass

    def scaled(self, factor: float) -> ActivationTrace:
        """The same model in a format of another width."""
        slopes = {one.name: getattr(self, one.name).scaled(factor) for one in fields(self)}
        return ActivationTrace(**slopes)

    def with_mask(self, block: Slope, outside: Slope) -> ActivationTrace:
        """The same model where rows are masked, which changes what it keeps.

        Args:
            block: What a block keeps then.
            outside: What all else keeps.
        """
        more = block + self.block.scaled(-1)
        beside = outside + self.outside.scaled(-1)
        return replace(
            self,
            block=block,
            outside=outside,
            outside_recomputed=self.outside_recomputed + beside,
            recomputed=self.recomputed.with_more(more),
        )


def trace_key(compute: Compute, *, adapter: bool, packed: bool) -> str:
    """How a trace is filed.

    Args:
        compute: Format of activations.
        adapter: Whether the model is frozen and adapters learn; else all weights do.
        packed: Whether rows hold several texts, which attention keeps apart with a mask.

    >>> trace_key("float32", adapter=False, packed=True)
    'float32 full packed'
    """
    return f"{compute} {'adapter' if adapter else 'full'} {'packed' if packed else 'plain'}"


def counted_trace(shape: ModelShape, width: int, *, adapter: bool) -> ActivationTrace:
    """A guess for a model that could not be traced: as if it were a Llama of these sizes.

    Args:
        shape: The model's.
        width: Bytes of one activation.
        adapter: Whether the model is frozen and adapters learn.
    """
    hidden, feed_forward = shape.hidden_size, shape.intermediate_size
    heads = 2 * (shape.num_heads + shape.num_key_value_heads) * shape.head_dim
    norms = (4 if adapter else 6) * hidden
    block = norms + heads + 4 * feed_forward
    passing = 2 * feed_forward

    def slope(numbers: int) -> Slope:
        return Slope(float(width * numbers))

    return ActivationTrace(
        block=slope(block),
        outside=slope(3 * hidden),
        backward=BackwardPass(slope(passing)),
        backward_again=BackwardPass(slope(2 * passing)),
        block_input=slope(hidden),
        outside_recomputed=slope(3 * hidden),
        recomputed=BackwardPass(slope(block + passing)),
    )
