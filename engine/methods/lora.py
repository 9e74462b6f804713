"""LoRA and QLoRA: the model is frozen, and low-rank matrices beside its linear layers learn.

"LoRA: Low-Rank Adaptation of Large Language Models" (Hu et al., 2021): the base in bfloat16.
"QLoRA: Efficient Finetuning of Quantized LLMs" (Dettmers et al., 2023): its linear layers in 4
bits, so that a backward pass dequantizes each once more. The adapter's matrices, their gradients
and the update are in float32; the moments as `method.optimizer` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.contract.model_source import ModelReference, resolve_model
from engine.data.batching import Batch
from engine.gradient_steps import accumulate, clipped_norm
from engine.library_optimizer import Decaying, LibraryOptimizer
from engine.methods.protocol import NonFiniteError, StepReport

if TYPE_CHECKING:
    from peft import LoraConfig

    from engine.contract.spec import RunSpec
    from engine.four_bit import FourBitFormat


class LoraMethod:
    """One adapter on every layer that `method.targets` names.

    Attributes:
        config: The adapter as PEFT describes it, with the base that it belongs to.
        four_bit: How the base's linear layers are kept; None for bfloat16.
    """

    config: LoraConfig
    four_bit: FourBitFormat | None

    def prepare(self, model: nn.Module, spec: RunSpec, device: torch.device) -> tuple[str, ...]:
        """Freeze the model, put the adapter on it, and make the optimizer's state.

        Raises:
            RequestError: `targets` names no layer, 4 bits can hold none, or a weight is not finite.
        """
        # Only here: PEFT takes two seconds to import, and other methods have no use for it.
        from engine.adapters import adapter_config, add_adapter, freeze

        method = spec.method
        assert method.kind == "lora" or method.kind == "qlora"
        self._model, self._max_grad_norm = model, spec.train.max_grad_norm
        self.config = adapter_config(model, method)
        self.config.base_model_name_or_path = _name_of(resolve_model(spec.model.source))
        self.config.revision = spec.model.revision
        self.four_bit = None
        if method.kind == "qlora":
            from engine.four_bit import FourBitFormat  # only here: LoRA needs no bitsandbytes

            self.four_bit = FourBitFormat(method.quant_type, method.double_quant)
        freeze(model, self.four_bit, device)
        self._trained = add_adapter(model, self.config, spec.train.seed)
        decay = spec.train.weight_decay
        self._optimizer = LibraryOptimizer(
            method.optimizer, [Decaying(matrix, decay) for matrix in self._trained.values()]
        )
        if method.optimizer.startswith("paged_") and device.type == "cpu":
            plain = method.optimizer.removeprefix("paged_")
            return (f"Paged moments need a GPU to page from: {plain} is used.",)
        return ()

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> StepReport:
        """Accumulate over the micro-batches, clip if asked, update."""
        try:
            loss_nats, total = accumulate(self._model, batches)
            norm = clipped_norm(self._trained.values(), self._max_grad_norm)
        except NonFiniteError:
            self._forget_gradients()
            raise
        self._optimizer.step(learning_rate, step)
        self._forget_gradients()
        return StepReport(loss_nats, total, grad_norm=norm)

    def _forget_gradients(self) -> None:
        for matrix in self._trained.values():
            matrix.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Adapter and moments; the base is what the spec names, quantized anew where it was."""
        state: dict[str, Tensor] = {}
        for name, matrix in self._trained.items():
            state[f"{name}/weight"] = matrix.detach()
            for part, tensor in self._optimizer.state(matrix).items():
                state[f"{name}/{part}"] = tensor
        return state

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The adapter's matrices, by their names in the model that has the adapter on it."""
        for name, matrix in self._trained.items():
            yield name, matrix.detach()

    def moments(self) -> Iterable[tuple[str, str, Tensor]]:
        """Both moments of every matrix."""
        for name, matrix in self._trained.items():
            for moment, values in self._optimizer.moments(matrix):
                yield name, moment, values

    def new_epoch(self, step: int) -> None:
        """Nothing here goes by passes."""


def _name_of(base: ModelReference) -> str:
    """What transformers finds it by."""
    return base.hub_id if base.folder is None and base.hub_id else str(base.folder)
