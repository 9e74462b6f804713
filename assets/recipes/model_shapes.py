"""Writes `assets/models/`: what the forecast knows of the starter and of well-known models.

`python -m assets.recipes.model_shapes`
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engine.contract.bundled import MODELS, STARTER, sample_datasets
from engine.contract.spec import DataSpec
from engine.data.chat import ChatEncoder
from engine.data.items import Passage
from engine.data.source import read_items
from engine.inspect_model import traced_shape
from engine.memory.model_shape import ModelShape
from engine.model import load_tokenizer


@dataclass(frozen=True)
class Published:
    """A model as its config.json describes it."""

    name: str
    title: str
    hub_id: str
    model_type: str
    config: dict[str, Any]


def _llama_like(
    hidden: int,
    feed_forward: int,
    layers: int,
    heads: tuple[int, int],
    vocabulary: int,
    context: int,
    *,
    head_dim: int | None = None,
    tied: bool = False,
) -> dict[str, Any]:
    config = {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        "pad_token_id": None,
    }
    return config if head_dim is None else {**config, "head_dim": head_dim}


_QWEN25, _QWEN3, _SMOL = 151936, 151936, 49152

PUBLISHED = (
    Published(
        "gpt2", "GPT-2", "openai-community/gpt2", "gpt2",
        {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024},
    ),
    Published(
        "opt-125m", "OPT 125M", "facebook/opt-125m", "opt",
        {"hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
         "word_embed_proj_dim": 768, "vocab_size": 50272, "max_position_embeddings": 2048},
    ),
    Published(
        "opt-1.3b", "OPT 1.3B", "facebook/opt-1.3b", "opt",
        {"hidden_size": 2048, "ffn_dim": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
         "word_embed_proj_dim": 2048, "vocab_size": 50272, "max_position_embeddings": 2048},
    ),
    Published(
        "pythia-160m", "Pythia 160M", "EleutherAI/pythia-160m", "gpt_neox",
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
         "num_attention_heads": 12, "vocab_size": 50304, "max_position_embeddings": 2048},
    ),
    Published(
        "pythia-1.4b", "Pythia 1.4B", "EleutherAI/pythia-1.4b", "gpt_neox",
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
         "num_attention_heads": 16, "vocab_size": 50304, "max_position_embeddings": 2048},
    ),
    Published(
        "smollm2-135m", "SmolLM2 135M", "HuggingFaceTB/SmolLM2-135M-Instruct", "llama",
        _llama_like(576, 1536, 30, (9, 3), _SMOL, 8192, tied=True),
    ),
    Published(
        "smollm2-360m", "SmolLM2 360M", "HuggingFaceTB/SmolLM2-360M-Instruct", "llama",
        _llama_like(960, 2560, 32, (15, 5), _SMOL, 8192, tied=True),
    ),
    Published(
        "smollm2-1.7b", "SmolLM2 1.7B", "HuggingFaceTB/SmolLM2-1.7B-Instruct", "llama",
        _llama_like(2048, 8192, 24, (32, 32), _SMOL, 8192, tied=True),
    ),
    Published(
        "tinyllama-1.1b", "TinyLlama 1.1B", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "llama",
        _llama_like(2048, 5632, 22, (32, 4), 32000, 2048),
    ),
    Published(
        "llama-2-7b", "Llama 2 7B", "meta-llama/Llama-2-7b-hf", "llama",
        _llama_like(4096, 11008, 32, (32, 32), 32000, 4096),
    ),
    Published(
        "llama-2-13b", "Llama 2 13B", "meta-llama/Llama-2-13b-hf", "llama",
        _llama_like(5120, 13824, 40, (40, 40), 32000, 4096),
    ),
    Published(
        "llama-3.1-8b", "Llama 3.1 8B", "meta-llama/Llama-3.1-8B", "llama",
        _llama_like(4096, 14336, 32, (32, 8), 128256, 131072),
    ),
    Published(
        "llama-3.2-1b", "Llama 3.2 1B", "meta-llama/Llama-3.2-1B", "llama",
        _llama_like(2048, 8192, 16, (32, 8), 128256, 131072, head_dim=64, tied=True),
    ),
    Published(
        "llama-3.2-3b", "Llama 3.2 3B", "meta-llama/Llama-3.2-3B", "llama",
        _llama_like(3072, 8192, 28, (24, 8), 128256, 131072, head_dim=128, tied=True),
    ),
    Published(
        "qwen2.5-0.5b", "Qwen2.5 0.5B", "Qwen/Qwen2.5-0.5B-Instruct", "qwen2",
        _llama_like(896, 4864, 24, (14, 2), _QWEN25, 32768, tied=True),
    ),
    Published(
        "qwen2.5-1.5b", "Qwen2.5 1.5B", "Qwen/Qwen2.5-1.5B-Instruct", "qwen2",
        _llama_like(1536, 8960, 28, (12, 2), _QWEN25, 32768, tied=True),
    ),
    Published(
        "qwen2.5-7b", "Qwen2.5 7B", "Qwen/Qwen2.5-7B-Instruct", "qwen2",
        _llama_like(3584, 18944, 28, (28, 4), 152064, 32768),
    ),
    Published(
        "qwen3-0.6b", "Qwen3 0.6B", "Qwen/Qwen3-0.6B", "qwen3",
        _llama_like(1024, 3072, 28, (16, 8), _QWEN3, 40960, head_dim=128, tied=True),
    ),
    Published(
        "qwen3-1.7b", "Qwen3 1.7B", "Qwen/Qwen3-1.7B", "qwen3",
        _llama_like(2048, 6144, 28, (16, 8), _QWEN3, 40960, head_dim=128, tied=True),
    ),
    Published(
        "qwen3-4b", "Qwen3 4B", "Qwen/Qwen3-4B", "qwen3",
        _llama_like(2560, 9728, 36, (32, 8), _QWEN3, 40960, head_dim=128, tied=True),
    ),
    Published(
        "qwen3-8b", "Qwen3 8B", "Qwen/Qwen3-8B", "qwen3",
        _llama_like(4096, 12288, 36, (32, 8), _QWEN3, 40960, head_dim=128),
    ),
    Published(
        "mistral-7b", "Mistral 7B v0.3", "mistralai/Mistral-7B-Instruct-v0.3", "mistral",
        _llama_like(4096, 14336, 32, (32, 8), 32768, 32768),
    ),
    Published(
        "gemma-2-2b", "Gemma 2 2B", "google/gemma-2-2b-it", "gemma2",
        _llama_like(2304, 9216, 26, (8, 4), 256000, 8192, head_dim=256, tied=True),
    ),
    Published(
        "gemma-3-1b", "Gemma 3 1B", "google/gemma-3-1b-it", "gemma3_text",
        _llama_like(1152, 6912, 26, (4, 1), 262144, 32768, head_dim=256, tied=True),
    ),
    Published(
        "phi-3.5-mini", "Phi-3.5 mini", "microsoft/Phi-3.5-mini-instruct", "phi3",
        _llama_like(3072, 8192, 32, (32, 32), 32064, 4096),
    ),
)  # fmt: skip


def build_model(published: Published) -> Any:
    """A published model on the meta device."""
    config = AutoConfig.for_model(published.model_type, **published.config)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def build_shape(published: Published) -> ModelShape:
    """Its shape."""
    return traced_shape(build_model(published), published.name, published.hub_id)


def starter_shape() -> ModelShape:
    """The shape of the bundled starter."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(STARTER))
    return traced_shape(model, "starter")


def starter_lengths() -> dict[str, int]:
    """Tokens in the longest row of each sample dataset, as the starter reads it."""
    tokenizer, _ = load_tokenizer(STARTER)
    encoder = ChatEncoder(tokenizer, 1 << 30, train_on="replies")
    return {
        name: max(
            len(encoder.encode(item).tokens)
            for item in read_items(DataSpec(source=name))
            if not isinstance(item, Passage)
        )
        for name in sample_datasets()
    }


def main() -> None:
    """Write one file per shape and the index."""
    MODELS.mkdir(parents=True, exist_ok=True)
    index: dict[str, dict[str, Any]] = {}
    for published in PUBLISHED:
        shape = build_shape(published)
        _write(shape)
        index[published.name] = {
            "title": published.title,
            "hub_id": published.hub_id,
            "num_parameters": shape.num_parameters,
        }
    _write(starter_shape())
    _write_json("starter_lengths", starter_lengths())
    _write_json("index", index)


def _write(shape: ModelShape) -> None:
    _write_json(shape.name, shape.model_dump(mode="json"))


def _write_json(name: str, value: Any) -> None:
    text = json.dumps(value, indent=1) + "\n"
    (MODELS / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
