"""Steps of other implementations, as their users write them: what ours are timed against.

`lomo-optim` is LOMO's own package; PEFT with bitsandbytes is QLoRA as transformers loads it. Both
take the loss that transformers computes, with all its scores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes.optim.adamw import AdamW8bit
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from engine.contract.method_settings import QloraSettings
from engine.data.batching import Batch


class LomoOptimSteps:
    """LOMO by `lomo-optim` in float32.

    Args:
        model: A causal language model.
        max_grad_norm: Length that the gradient is clipped to, which takes a second backward pass.
    """

    def __init__(self, model: Any, max_grad_norm: float | None) -> None:
        from lomo_optim import Lomo

        self._model, self._clips = model.float(), max_grad_norm is not None
        self._optimizer = Lomo(self._model, lr=1e-3, clip_grad_norm=max_grad_norm)

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> None:
        """One batch."""
        (batch,) = batches
        if self._clips:
            self._optimizer.grad_norm(_loss(self._model, batch))
        self._optimizer.fused_backward(_loss(self._model, batch), learning_rate)


class PeftSteps:
    """QLoRA by transformers, PEFT and bitsandbytes, with our defaults.

    Args:
        model: A causal language model; saved, and loaded again in 4 bits.
    """

    def __init__(self, model: Any) -> None:
        settings = QloraSettings()
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=settings.quant_type,
            bnb_4bit_use_double_quant=settings.double_quant,
            bnb_4bit_compute_dtype=torch.float32,
        )
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            base = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, quantization_config=quantization
            )
        adapter = LoraConfig(
            r=settings.rank,
            lora_alpha=int(settings.alpha),
            lora_dropout=settings.dropout,
            target_modules=settings.targets,
            task_type="CAUSAL_LM",
        )
        self._model: Any = get_peft_model(base, adapter)
        self._model.train()
        trained = [one for one in self._model.parameters() if one.requires_grad]
        self._optimizer: Any = AdamW8bit(trained, weight_decay=0.0)

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> None:
        """One batch."""
        (batch,) = batches
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        _loss(self._model, batch).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def _loss(model: Any, batch: Batch) -> Any:
    """As transformers computes it. Its labels are not shifted."""
    return model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
    ).loss
