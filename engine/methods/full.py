"""Full tuning with an optimizer of torch's or bitsandbytes': the yardstick for the others.

AdamW: "Decoupled Weight Decay Regularization" (Loshchilov and Hutter, 2019). Its 8-bit form:
"8-bit Optimizers via Block-wise Quantization" (Dettmers et al., 2021). Lion: "Symbolic Discovery of
Optimization Algorithms" (Chen et al., 2023). SGD has no state.

Precision: `mixed` and `fp32` keep weights in float32; `mixed` computes in bfloat16 where hardware
does. `bf16` keeps them in bfloat16, updates them in float32 some rows at a time, and rounds
stochastically, since rounding to nearest would lose the small updates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.casting import compute_dtype, compute_in
from engine.data.batching import Batch
from engine.gradient_steps import accumulate, clipped_norm
from engine.library_optimizer import Decaying, LibraryOptimizer
from engine.memory.layout import matrix_shape, row_chunks
from engine.memory.plans import MemoryPlan
from engine.methods.protocol import NonFiniteError, StepReport
from engine.quant.randomness import RandomKey
from engine.quant.rounding import stochastic_bfloat16
from engine.roles import named_weights, refuse_non_finite

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec


class FullMethod:
    """Every weight, its gradient and its moments, each as a tensor of its own."""

    def prepare(self, model: nn.Module, spec: RunSpec, device: torch.device) -> None:
        """Every weight on the device in the format it is kept in, with its optimizer state.

        Raises:
            RequestError: A weight is not finite.
        """
        assert spec.method.kind == "full"
        self._settings, self._train, self._device = spec.method, spec.train, device
        kept = torch.bfloat16 if spec.method.precision == "bf16" else torch.float32
        self._model = model.to(device)
        named = {one.name: one.parameter for one in named_weights(model)}
        for name, parameter in named.items():
            refuse_non_finite(name, parameter)
            # A copy always: a view of the mapped file would keep all of it in memory.
            parameter.data = parameter.data.to(kept, copy=True)
        self._weights = {name: list(self._slots(named[name])) for name in named}
        self._named = named
        self._optimizer = LibraryOptimizer(
            spec.method.optimizer,
            [
                Decaying(slot.working, spec.train.weight_decay if named[name].ndim > 1 else 0.0)
                for name, slots in self._weights.items()
                for slot in slots
            ],
        )
        if kept == torch.bfloat16:
            for slots in self._weights.values():
                for slot in slots:
                    slot.release()
        if spec.method.precision != "fp32":
            compute_in(model, compute_dtype(device))

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """Accumulate over the micro-batches, clip if asked, update."""
        try:
            loss_nats, total = accumulate(self._model, batches)
            norm = clipped_norm(self._named.values(), self._train.max_grad_norm)
        except NonFiniteError:
            self._model.zero_grad(set_to_none=True)
            raise
        if self._settings.precision == "bf16":
            self._update_rounded(learning_rate, step)
        else:
            self._optimizer.step(learning_rate, step)
        self._model.zero_grad(set_to_none=True)
        return StepReport(loss_nats, total, grad_norm=norm)

    def _update_rounded(self, learning_rate: float, step: int) -> None:
        """Some rows at a time: to float32, the optimizer's update, and back by chance."""
        for number, slots in enumerate(self._weights.values()):
            for slot in slots:
                if slot.parameter.grad is None:
                    continue
                slot.load()
                self._optimizer.step(learning_rate, step, only=slot.working)
                key = RandomKey(self._train.seed, step, number, chunk=slot.rows.start)
                slot.store(key)
                slot.release()

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and moments; the number of steps comes with each step."""
        state: dict[str, Tensor] = {}
        for name, slots in self._weights.items():
            state[f"{name}/weight"] = self._named[name].detach()
            for slot in slots:
                for part, tensor in self._optimizer.state(slot.working).items():
                    state[f"{name}/{part}.{slot.rows.start or 0}"] = tensor
        return state

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The weights as they are trained."""
        for name, parameter in self._named.items():
            yield name, parameter.detach()

    def moments(self) -> Iterable[tuple[str, str, Tensor]]:
        """Every moment of every weight."""
        for name, slots in self._weights.items():
            shape = self._named[name].shape
            parts = [dict(self._optimizer.moments(slot.working)) for slot in slots]
            for moment in parts[0]:
                yield name, moment, torch.cat([part[moment] for part in parts]).view(shape)

    def new_epoch(self, step: int) -> None:
        """Nothing here goes by passes."""

    def _slots(self, parameter: nn.Parameter) -> Iterator[_Slot]:
        shape = tuple(parameter.shape)
        if parameter.dtype == torch.float32:
            yield _Slot(parameter, slice(None), parameter)
            return
        for start, stop in row_chunks(shape, MemoryPlan.chunk_elements(self._device.type)):
            working = torch.empty((stop - start, matrix_shape(shape)[1]), device=self._device)
            yield _Slot(parameter, slice(start, stop), nn.Parameter(working))


@dataclass(frozen=True)
class _Slot:
    """Some rows of a weight, and the float32 parameter that the optimizer knows them by.

    A weight in float32 is that parameter itself; one in bfloat16 borrows it for its update.
    """

    parameter: nn.Parameter
    rows: slice
    working: nn.Parameter

    def _of(self, tensor: Tensor) -> Tensor:
        return tensor.detach().view(matrix_shape(tuple(tensor.shape)))[self.rows]

    def load(self) -> None:
        """Weights and gradient of these rows, in float32."""
        assert self.parameter.grad is not None
        self.working.data = self._of(self.parameter).float()
        self.working.grad = self._of(self.parameter.grad).float()

    def store(self, key: RandomKey) -> None:
        """Round back into the weight."""
        self._of(self.parameter).copy_(stochastic_bfloat16(self.working.detach(), key))

    def release(self) -> None:
        """Free the rows; the optimizer's state stays."""
        self.working.grad = None
        self.working.data = torch.empty(0, device=self.parameter.device)
