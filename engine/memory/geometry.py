"""What follows from the shapes of a model: arithmetic, whatever holds the shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from engine.memory.model_shape import Role


class _Tensor(Protocol):
    """What is known of one tensor; see `engine.memory.model_shape.TensorShape`."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def role(self) -> Role: ...
    @property
    def repeat(self) -> int: ...
    @property
    def transposed(self) -> bool: ...
    @property
    def num_elements(self) -> int: ...


class _Model(Protocol):
    """What is known of one model; see `engine.memory.model_shape.ModelShape`."""

    @property
    def tensors(self) -> Sequence[_Tensor]: ...
    @property
    def num_layers(self) -> int: ...


class TensorGeometry:
    """Sizes of one tensor."""

    @property
    def stored_shape(self: _Tensor) -> tuple[int, ...]:
        """As a quantized method lays it out: outputs first."""
        return self.shape[::-1] if self.transposed else self.shape

    @property
    def num_elements(self: _Tensor) -> int:
        """Elements in one copy."""
        return math.prod(self.shape)


class ModelGeometry:
    """Sums and largest sizes over the tensors of one model."""

    @property
    def num_parameters(self: _Model) -> int:
        """Each weight once, tied ones too."""
        return sum(tensor.num_elements * tensor.repeat for tensor in self.tensors)

    @property
    def linear_parameters(self: _Model) -> int:
        """Weights inside linear layers of the blocks."""
        return sum(
            tensor.num_elements * tensor.repeat
            for tensor in self.tensors
            if tensor.role == "linear"
        )

    @property
    def linear_layers(self: _Model) -> dict[str, bool]:
        """Path of every linear layer in the blocks, and whether its matrix is (inputs, outputs)."""
        return {
            tensor.name.removesuffix(".weight").replace("{}", str(block)): tensor.transposed
            for tensor in self.tensors
            if tensor.role == "linear"
            for block in range(self.num_layers)
        }

    @property
    def normalizes_queries(self: _Model) -> bool:
        """Whether attention has norms of its own for queries and keys."""
        return any(".q_norm." in tensor.name for tensor in self.tensors)

    def largest(self: _Model, *roles: Role) -> int:
        """Elements of the largest single tensor with one of these roles, 0 if there is none."""
        sizes = [tensor.num_elements for tensor in self.tensors if tensor.role in roles]
        return max(sizes, default=0)
