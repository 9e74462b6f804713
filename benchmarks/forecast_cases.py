"""Random small models, methods and batches: the cases of the forecast's benchmark."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.model_switches import attention_of

ARCHITECTURES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "phi3",
    "phi",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "opt",
    "gpt_neox",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "qft balanced": {"kind": "qft"},
    "qft lean": {"kind": "qft", "preset": "lean"},
    "qft paper": {"kind": "qft", "preset": "paper"},
    "qlora": {"kind": "qlora"},
    "lora": {"kind": "lora"},
    "lora dropout": {"kind": "lora", "dropout": 0.1},
    "lomo": {"kind": "lomo", "precision": "bf16"},
    "lomo unclipped": {"kind": "lomo", "clip": "none", "precision": "bf16"},
    "lomo fp32": {"kind": "lomo", "precision": "fp32"},
    "adalomo": {"kind": "adalomo", "precision": "bf16"},
    "full": {"kind": "full"},
    "full sgd": {"kind": "full", "optimizer": "sgd"},
    "full bf16 8-bit": {"kind": "full", "precision": "bf16", "optimizer": "adamw_8bit"},
}


@dataclass(frozen=True)
class Case:
    """One model, one method, one batch."""

    method: str
    architecture: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    vocab_size: int
    tied: bool
    batch_size: int
    sequence_length: int
    checkpointing: bool

    def model(self) -> Any:
        """With random weights, in bfloat16."""
        config = self.config()
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention_of(config)
        )

    def config(self) -> Any:
        """Of that model."""
        return AutoConfig.for_model(
            self.architecture,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            vocab_size=self.vocab_size,
            tie_word_embeddings=self.tied,
            max_position_embeddings=self.sequence_length,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **self._own_sizes(),
        )

    def _own_sizes(self) -> dict[str, Any]:
        """What only some architectures know, by the names that they know it by."""
        if self.architecture == "gpt2":
            return {"n_inner": self.intermediate_size}
        if self.architecture == "opt":
            return {"ffn_dim": self.intermediate_size, "word_embed_proj_dim": self.hidden_size}
        own: dict[str, Any] = {"intermediate_size": self.intermediate_size}
        if self.architecture == "gpt_neox":
            return own
        own["num_key_value_heads"] = self.num_key_value_heads
        return own | {"head_dim": self.hidden_size // self.num_heads}

    def spec(self) -> RunSpec:
        """Of a run like this one."""
        train = {
            "steps": 2,
            "batch_size": self.batch_size,
            "sequence_length": self.sequence_length,
            "learning_rate": 1e-4,
            "activation_checkpointing": self.checkpointing,
            "max_grad_norm": 1.0 if self.method in ("lomo", "lomo fp32") else None,
        }
        method = SETTINGS[self.method]
        return validate_spec(
            {
                "model": {"source": "starter"},  # says no more than where an adapter belongs
                "data": {"source": "pirate"},
                "method": method,
                "train": train,
            }
        )


def random_cases(per_method: int, seed: int, methods: Sequence[str]) -> Iterator[Case]:
    """The same cases for the same seed, whatever methods are asked for.

    Every architecture in turn, but for what a method refuses: 4 bits hold no Conv1D.
    """
    for method in methods:
        draw = random.Random(f"{seed} {method}")
        for number in range(per_method):
            heads, batch = draw.choice((4, 8)), draw.choice((1, 2, 8))
            hidden = draw.choice((64, 128, 256, 384))
            known = [name for name in ARCHITECTURES if not (name == "gpt2" and method == "qlora")]
            yield Case(
                method=method,
                architecture=known[number % len(known)],
                hidden_size=hidden,
                intermediate_size=hidden * draw.choice((2, 3, 4)),
                num_layers=draw.choice((2, 4, 6)),
                num_heads=heads,
                num_key_value_heads=draw.choice((heads, heads // 2, heads // 4)),
                vocab_size=draw.choice((1024, 8192, 32_000, 64_000)),
                tied=draw.random() < 0.4,
                batch_size=batch,
                sequence_length=draw.choice((64, 128, 256, 512)[: 3 if batch == 8 else 4]),
                checkpointing=draw.random() < 0.5,
            )
