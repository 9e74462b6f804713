"""Layers whose weight is stored: forward multiplies with it, backward hands its gradient on.

An integer tensor has no gradient, so autograd never sees the weight. These layers compute the
gradient of some rows at a time, and so it is never whole unless someone keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map

from engine.contract.errors import RequestError
from engine.methods.qft.gradients import Gradients
from engine.methods.qft.weight import EVERY, TrainedWeight
from engine.quant.int8_product import input_gradient_int8, product_int8
from engine.roles import is_product
from engine.storage.dense import DenseStorage
from engine.storage.int8 import Int8Storage


@dataclass(frozen=True)
class Source:
    """What a layer has in place of a weight.

    Attributes:
        weight: Shared by all layers of a tied weight.
        gradients: Where its gradient goes.
        compute: Format of activations.
        int8: Whether products are of 8-bit numbers.
        anchor: A scalar that wants a gradient: without one, autograd would skip a layer whose
            inputs want none. As the layers' only parameter it also tells a model's device.
    """

    weight: TrainedWeight
    gradients: Gradients
    compute: torch.dtype
    int8: bool
    anchor: nn.Parameter

    @property
    def version(self) -> int:
        """Another number after every update."""
        return self.weight.storage.version

    def row_chunks(self, most: int) -> list[slice]:
        """All rows, cut where updates are; see `engine.score_head.HeadWeight`."""
        return self.weight.product_chunks(most)

    def anchor_gradient(self) -> None:
        """The weight's gradient was handed on: there is none left for autograd."""

    def matrix(self, rows: slice) -> Tensor:
        """Some rows of the weight as the passes see them."""
        return self.weight.storage.dequantized(rows, self.compute)

    def product(self, inputs: Tensor, rows: slice) -> Tensor:
        """`inputs` (tokens, in) times some rows: (tokens, rows)."""
        storage = self.weight.storage
        if self.int8 and isinstance(storage, Int8Storage):
            return product_int8(inputs, storage.codes[rows], storage.scales[rows])
        return functional.linear(inputs, self.matrix(rows))

    def input_gradient(self, grad_output: Tensor, rows: slice) -> Tensor:
        """`grad_output` (tokens, rows) times some rows transposed: (tokens, in)."""
        storage = self.weight.storage
        if self.int8 and isinstance(storage, Int8Storage):
            return input_gradient_int8(grad_output, storage.codes[rows], storage.scales[rows])
        return grad_output @ self.matrix(rows)

    def hand_on(self, rows: slice, gradient: Tensor) -> None:
        """Give the gradient of some rows, shape (rows, in), to whom it concerns."""
        for some in self.weight.chunks(rows):
            here = slice(some.start - rows.start, some.stop - rows.start)
            self.gradients.receive(self.weight, some, gradient[here])

    def refuse_second_use(self, version: int) -> None:
        """A weight that was updated within this backward pass has no gradient left to give.

        Raises:
            RequestError: The weight changed since the forward pass.
        """
        if version != self.weight.storage.version:
            raise RequestError(
                "method.gradients",
                f"{self.weight.name} is used twice in one pass, and fused updates have already "
                "changed it.",
                "Choose gradients stack.",
            )


class Unread(Tensor):
    """A weight that is dequantized once something computes with it: models may only ask its format.

    It holds a single number, seen at every place.
    """

    source: Source

    @staticmethod
    def of(source: Source) -> Tensor:
        """The weight of a layer, in the format of its passes."""
        shape = source.weight.shape
        one = torch.zeros((), dtype=source.compute, device=source.anchor.device)
        unread = one.expand(shape).as_subclass(Unread)
        unread.source = source
        return unread

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what is asked about the tensor; compute with what is in the codes."""
        with torch._C.DisableTorchFunctionSubclass():
            if func in _ASKS:
                return func(*args, **(kwargs or {}))
            args, kwargs = tree_map(_read, (args, kwargs or {}))
            return func(*args, **kwargs)


_ASKS = {
    getattr(Tensor, name).__get__ for name in ("dtype", "device", "shape", "ndim", "is_meta")
} | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point}


def _read(value: Any) -> Any:
    if not isinstance(value, Unread):
        return value
    return _Whole.apply(value.source.anchor, value.source)


class QftLinear(nn.Module):
    """A linear layer, GPT-2's Conv1D or an output head. Set on a module in place of its class."""

    source: Source
    bias: nn.Parameter | None

    @property
    def weight(self) -> Tensor:
        """The weight in its original shape, for models that look at it or use it themselves."""
        return Unread.of(self.source)

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs`: (..., in). Returns (..., out)."""
        source = self.source
        outputs = _Product.apply(inputs.to(source.compute), source.anchor, source)
        return outputs if self.bias is None else outputs + self.bias


class QftEmbedding(nn.Embedding):
    """A table of vectors. Set on a module in place of its class, or mixed into a subclass."""

    source: Source

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The table, for models that look at it or use it themselves."""
        return Unread.of(self.source)

    def forward(self, input: Tensor) -> Tensor:
        """`input`: row numbers, any shape. Returns their rows, one dimension more."""
        return _Lookup.apply(input, self.source.anchor, self.source, self.padding_idx)


def become_linear(module: nn.Module, source: Source) -> None:
    """Make a linear layer or a Conv1D use `source` instead of its weight."""
    assert is_product(module), "its class is about to be replaced"
    del module.weight
    module.__class__ = QftLinear
    cast("QftLinear", module).source = source
    module.register_parameter("anchor", source.anchor)


def become_embedding(module: nn.Embedding, source: Source) -> None:
    """Make an embedding use `source` instead of its weight; what a subclass adds, stays."""
    kind = type(module)
    del module.weight
    mixed: Any = type  # by its name alone, a type checker would try to order the classes
    module.__class__ = (
        QftEmbedding
        if kind is nn.Embedding
        else mixed(f"Qft{kind.__name__}", (kind, QftEmbedding), {})
    )
    cast("QftEmbedding", module).source = source
    module.register_parameter("anchor", source.anchor)


def become_property(module: nn.Module, attribute: str, source: Source) -> None:
    """Make any module see `source` where it had a parameter, such as a norm its weight."""
    kind = type(module)
    delattr(module, attribute)

    def whole(_: nn.Module) -> Tensor:
        return _Whole.apply(source.anchor, source)

    module.__class__ = type(f"Qft{kind.__name__}", (kind,), {attribute: property(whole)})


class _Product(torch.autograd.Function):
    """inputs times the weight transposed."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, anchor: Tensor, source: Source) -> Tensor:
        del anchor
        ctx.save_for_backward(inputs)
        ctx.source, ctx.version = source, source.weight.storage.version
        flat, chunks = inputs.flatten(0, -2), source.weight.product_chunks()
        width = source.weight.storage.num_rows
        if len(chunks) == 1:
            outputs = source.product(flat, chunks[0])
        else:
            outputs = inputs.new_empty(flat.shape[0], width)
            for rows in chunks:
                outputs[:, rows] = source.product(flat, rows)
        return outputs.view(*inputs.shape[:-1], width)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None]:
        (inputs,) = ctx.saved_tensors
        source: Source = ctx.source
        source.refuse_second_use(ctx.version)
        grad_output = grad_outputs[0].flatten(0, -2)
        flat = inputs.flatten(0, -2)
        grad_input = None
        for rows in source.weight.product_chunks():
            some = grad_output[:, rows]
            if ctx.needs_input_grad[0]:
                # With the weight of the forward pass, so before the update.
                share = source.input_gradient(some, rows)
                # A sum of many is kept in float32, as one product would keep it.
                grad_input = share if grad_input is None else grad_input.float().add_(share)
            source.hand_on(rows, some.T @ flat)
        if grad_input is None:
            return None, None, None
        return grad_input.to(inputs.dtype).view(inputs.shape), None, None


class _Lookup(torch.autograd.Function):
    """Rows of a table."""

    @staticmethod
    def forward(
        ctx: Any, numbers: Tensor, anchor: Tensor, source: Source, padding: int | None
    ) -> Tensor:
        del anchor
        storage = source.weight.storage
        assert isinstance(storage, DenseStorage | Int8Storage)
        ctx.save_for_backward(numbers)
        ctx.source, ctx.padding, ctx.version = source, padding, storage.version
        return storage.lookup(numbers, source.compute)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None, None, None]:
        (numbers,) = ctx.saved_tensors
        source: Source = ctx.source
        source.refuse_second_use(ctx.version)
        chosen, order = numbers.flatten().sort(stable=True)
        grad_output = grad_outputs[0].flatten(0, -2)[order]
        if ctx.padding is not None:  # as torch does: what stands for nothing learns nothing
            grad_output.masked_fill_((chosen == ctx.padding).unsqueeze(-1), 0.0)
        chunks = source.weight.chunks()
        starts = torch.tensor([rows.start for rows in chunks], device=chosen.device)
        begins = [*torch.searchsorted(chosen, starts).tolist(), len(chosen)]
        for number, rows in enumerate(chunks):
            here = slice(begins[number], begins[number + 1])
            shape = (rows.stop - rows.start, grad_output.shape[-1])
            gradient = torch.zeros(shape, dtype=torch.float32, device=grad_output.device)
            # Deterministic on every device, which `index_add_` is not.
            places = (chosen[here] - rows.start,)
            gradient.index_put_(places, grad_output[here].float(), accumulate=True)
            source.gradients.receive(source.weight, rows, gradient)
        return None, None, None, None


class _Whole(torch.autograd.Function):
    """The whole weight as a tensor, for a use that is none of the above."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, source: Source) -> Tensor:
        del anchor
        ctx.source, ctx.version = source, source.weight.storage.version
        matrix = source.matrix(EVERY)
        # A copy always: what autograd hands out must not be the storage itself.
        return source.weight.original(matrix).clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None]:
        source: Source = ctx.source
        source.refuse_second_use(ctx.version)
        gradient = grad_outputs[0].T if source.weight.transposed else grad_outputs[0]
        matrix = gradient.reshape(source.weight.storage.num_rows, -1)
        source.hand_on(slice(0, len(matrix)), matrix)
        return None, None
