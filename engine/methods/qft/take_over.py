"""From a loaded model to stored weights: every parameter is taken once, its layers changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.casting import compute_in
from engine.contract.errors import RequestError
from engine.contract.model_source import FIELD
from engine.memory.layout import Dense, Int8
from engine.memory.plans import MemoryPlan, TensorPlan
from engine.methods.qft.gradients import Gradients
from engine.methods.qft.layers import (
    Source,
    become_embedding,
    become_linear,
    become_property,
)
from engine.methods.qft.weight import TrainedWeight
from engine.roles import NamedWeight, holders, is_product, named_weights, refuse_non_finite
from engine.storage.allocate import allocate, quantized
from engine.storage.dense import DenseStorage
from engine.storage.protocol import WeightStorage

_OF_LAYERS = ("linear", "embedding")


@dataclass(frozen=True)
class TakeOver:
    """What all weights of a model have in common.

    Attributes:
        plan: How they are stored.
        gradients: Where their gradients go.
        compute: Format of activations.
        int8: Whether linear layers multiply 8-bit numbers.
        device: Where everything is to be.
    """

    plan: MemoryPlan
    gradients: Gradients
    compute: torch.dtype
    int8: bool
    device: torch.device

    def weights(self, model: nn.Module) -> Iterator[TrainedWeight]:
        """Take every weight over, one at a time, so that no second model is ever in memory.

        Raises:
            RequestError: A weight is not finite, or used in a way that cannot be trained.
        """
        sharing = holders(model)
        waiting = deque(enumerate(named_weights(model)))
        while waiting:  # a weight that is held no more is freed as soon as it is stored
            number, named = waiting.popleft()
            refuse_non_finite(named.name, named.parameter)
            plan = self.plan.of(named.role)
            sharers = sharing[id(named.parameter)]
            if named.role == "small" and isinstance(plan.weight, Int8):
                yield self._as_property(named, number, plan, sharers)
            elif named.role in _OF_LAYERS and all(_is_layer(module) for module, _ in sharers):
                yield self._as_layers(named, number, plan, [module for module, _ in sharers])
            elif isinstance(plan.weight, Dense):
                yield self._as_parameter(named, number, plan)
            else:
                raise RequestError(
                    FIELD,
                    f"{named.name} is used in a way that 8-bit codes cannot serve.",
                    "Choose full, or another model.",
                )
        model.to(self.device)
        compute_in(model, self.compute)

    def _as_layers(
        self, named: NamedWeight, number: int, plan: TensorPlan, modules: list[nn.Module]
    ) -> TrainedWeight:
        """The weight leaves its modules, which become layers of ours."""
        values = named.parameter.detach()
        matrix = values.T if named.transposed else values
        storage: WeightStorage
        if isinstance(plan.weight, Int8):
            storage = quantized(plan.weight, matrix, self.device)
        else:
            assert isinstance(plan.weight, Dense)
            storage = DenseStorage(_copy(matrix, plan.weight, self.device))
        weight = self._trained(named, number, plan, storage, len(modules))
        source = self._source(weight, int8=self.int8 and named.role == "linear")
        for module in modules:
            if isinstance(module, nn.Embedding):
                become_embedding(module, source)
            else:
                become_linear(module, source)
        return weight

    def _as_property(
        self,
        named: NamedWeight,
        number: int,
        plan: TensorPlan,
        sharers: list[tuple[nn.Module, str]],
    ) -> TrainedWeight:
        """A norm or bias in codes: its modules see the dequantized values."""
        assert isinstance(plan.weight, Int8)
        storage = quantized(plan.weight, named.parameter, self.device)
        weight = self._trained(named, number, plan, storage, len(sharers))
        for module, attribute in sharers:
            become_property(module, attribute, self._source(weight, int8=False))
        return weight

    def _source(self, weight: TrainedWeight, *, int8: bool) -> Source:
        anchor = nn.Parameter(torch.zeros((), dtype=self.compute, device=self.device))
        return Source(weight, self.gradients, self.compute, int8, anchor)

    def _as_parameter(self, named: NamedWeight, number: int, plan: TensorPlan) -> TrainedWeight:
        """The weight stays where it is; its gradient is taken as soon as autograd has it."""
        assert isinstance(plan.weight, Dense)
        parameter = named.parameter
        parameter.data = _copy(parameter.data, plan.weight, self.device)
        weight = self._trained(named, number, plan, DenseStorage(parameter), 1)

        def consume(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradient, parameter.grad = parameter.grad, None
            matrix = gradient.reshape(weight.storage.num_rows, weight.storage.num_columns)
            for rows in weight.chunks():
                self.gradients.receive(weight, rows, matrix[rows])

        parameter.register_post_accumulate_grad_hook(consume)
        return weight

    def _trained(
        self,
        named: NamedWeight,
        number: int,
        plan: TensorPlan,
        storage: WeightStorage,
        num_holders: int,
    ) -> TrainedWeight:
        assert plan.gradient is not None
        shape = tuple(named.parameter.shape)
        stored = shape[::-1] if named.transposed else shape
        return TrainedWeight(
            named.name,
            number,
            shape,
            named.transposed,
            storage,
            tuple(allocate(moment, stored, self.device) for moment in plan.moments),
            plan.gradient,
            decays=len(shape) > 1,
            num_holders=num_holders,
        )


def _is_layer(module: nn.Module) -> bool:
    return is_product(module) or isinstance(module, nn.Embedding)


def _copy(values: Tensor, layout: Dense, device: torch.device) -> Tensor:
    # A copy always: a view of the mapped file would keep all of it in memory.
    dtype = torch.float32 if layout.dtype == "float32" else torch.bfloat16
    return values.to(device, dtype, copy=True).contiguous()
