"""Memory that others published, each figure with the setting that it was measured in.

Sizes are GiB. Where a source prints "GB", its own weights tell that it means GiB: 7 billion weights
of 2 bytes are 12.55 of them. Imports nothing, so that a GPU computer without pydantic can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """One figure.

    Attributes:
        name: The source's own name for it.
        model: The catalogue's model of the same shapes.
        method: The method of ours that is nearest, as a spec has it.
        batch_size: Conversations in a micro-batch.
        tokens: In each of them.
        gib: Peak of the whole training, in GiB.
        source: Where it stands, with what differs from our setting.
        differs: Why ours may be another, in a few words.
        recomputed: Whether activations are recomputed.
        grad_accumulation: Micro-batches that make one update.
        packed: Whether rows are filled up with several conversations.
        suite: What `benchmarks.gpu_suite` calls the method where it measures beside the figure.
    """

    name: str
    model: str
    method: Mapping[str, Any]
    batch_size: int
    tokens: int
    gib: float
    source: str
    differs: str
    recomputed: bool = True
    grad_accumulation: int = 1
    packed: bool = False
    suite: str | None = None


_QFT_ADAM = {"kind": "full", "precision": "fp32"}
_MIXED = {"kind": "full", "precision": "mixed"}
_BF16 = {"kind": "full", "precision": "bf16"}
_BF16_8BIT = {"kind": "full", "precision": "bf16", "optimizer": "adamw_8bit"}
_LOMO = {"kind": "lomo", "precision": "bf16", "clip": "none"}
# What its bars add up from: scales that are not quantized again, and an adapter of rank 64.
_QLORA = {"kind": "qlora", "preset": "paper", "double_quant": False}
_TORCHTUNE_ADAPTER = {"rank": 8, "alpha": 16.0, "targets": "q_proj, v_proj", "optimizer": "adamw"}
_TORCHTUNE = "torchtune's README, 2 x 2048 packed and compiled, one RTX 4090"
_TORCHAO = "torchao's page on optimizers, full fine-tuning in bfloat16 on Alpaca, one A100"
_LAB = "DoKu88/LoRA_Lab, phase 0.5, Mistral-7B-Instruct-v0.2, 512 tokens, one RTX 5090"
_BATCH_UNSTATED = "their batch and length are not stated; ours is one of 1,024"
_EAGER = "their attention keeps its scores, with float32 copies; ours keeps none"
_BOTH = f"they add gradients and activations up, in ours one comes as the other goes; {_EAGER}"
_SUM = "theirs is a sum of parts; ours is the peak, in which not all of them are alive at once"
_TORCHAO_BATCH = "their batch is not stated, and rows of Alpaca are short; ours is two of 512"

FIGURES: tuple[Published, ...] = (
    Published(
        "QFT",
        "llama-2-7b",
        {"kind": "qft", "preset": "paper"},
        1,
        1024,
        28.9,
        "QFT, table 1, LLaMA-2-7B; batch and length are not stated",
        f"{_BATCH_UNSTATED}; they keep 3.6 more at the peak than their total of 25.3",
        suite="qft-paper",
    ),
    Published(
        "Adam",
        "llama-2-7b",
        _QFT_ADAM,
        1,
        1024,
        129.0,
        "QFT, table 1, LLaMA-2-7B; batch and length are not stated",
        f"{_BATCH_UNSTATED}; their peak is one float32 copy above their total of 104",
    ),
    Published(
        "AdamW",
        "llama-2-7b",
        _MIXED,
        8,
        512,
        147.02,
        "LOMO, table 1, LLaMA-7B, 8 x 512, activations kept",
        _BOTH,
        recomputed=False,
    ),
    Published(
        "AdamW, recomputed",
        "llama-2-7b",
        _MIXED,
        8,
        512,
        102.20,
        "LOMO, table 1, LLaMA-7B, 8 x 512, activations recomputed",
        _SUM,
    ),
    Published(
        "SGD",
        "llama-2-7b",
        {**_MIXED, "optimizer": "sgd"},
        8,
        512,
        96.81,
        "LOMO, table 1, LLaMA-7B, 8 x 512, activations kept",
        _BOTH,
        recomputed=False,
    ),
    Published(
        "SGD, recomputed",
        "llama-2-7b",
        {**_MIXED, "optimizer": "sgd"},
        8,
        512,
        51.99,
        "LOMO, table 1, LLaMA-7B, 8 x 512, activations recomputed",
        _SUM,
    ),
    Published(
        "LOMO",
        "llama-2-7b",
        _LOMO,
        8,
        512,
        59.40,
        "LOMO, table 1, LLaMA-7B, 8 x 512, activations kept",
        _EAGER,
        recomputed=False,
    ),
    Published(
        "LOMO, recomputed",
        "llama-2-7b",
        _LOMO,
        8,
        512,
        14.58,
        "LOMO, table 1, LLaMA-7B, 8 x 512, activations recomputed",
        "theirs is a sum of parts, ours the peak with one block's way back; some of the closeness "
        "is chance",
        suite="lomo-unclipped",
    ),
    Published(
        "LOMO",
        "llama-2-7b",
        _LOMO,
        1,
        1024,
        13.61,
        "LOMO, table 2, LLaMA-7B, 1 x 1024, one RTX 3090",
        "what their figure counts is not stated",
        suite="lomo-unclipped",
    ),
    Published(
        "QLoRA 7B",
        "llama-2-7b",
        _QLORA,
        1,
        512,
        6.9,
        "QLoRA, figure of the memory footprint, LLaMA-7B, one sequence of 512",
        "their bars add up with float32 embeddings and some 0.4 for CUDA; ours are bfloat16",
        suite="qlora",
    ),
    Published(
        "QLoRA 13B",
        "llama-2-13b",
        _QLORA,
        1,
        512,
        11.3,
        "QLoRA, figure of the memory footprint, LLaMA-13B, one sequence of 512",
        "their bars add up with float32 embeddings and some 0.4 for CUDA; ours are bfloat16",
    ),
    Published(
        "torch AdamW",
        "llama-2-7b",
        _BF16,
        2,
        512,
        51.6,
        _TORCHAO,
        "their moments are bfloat16; ours are float32, which is 25.1 more",
    ),
    Published(
        "bitsandbytes 8-bit",
        "llama-2-7b",
        _BF16_8BIT,
        2,
        512,
        39.3,
        _TORCHAO,
        _TORCHAO_BATCH,
    ),
    Published(
        "torchao 8-bit",
        "llama-2-7b",
        _BF16_8BIT,
        2,
        512,
        39.1,
        _TORCHAO,
        f"their moments are torchao's, ours bitsandbytes'; {_TORCHAO_BATCH}",
    ),
    Published(
        "full",
        "llama-3.1-8b",
        _BF16_8BIT,
        2,
        2048,
        18.9,
        f"{_TORCHTUNE}; all its weights, by another recipe",
        "another algorithm: they update inside the backward pass, with moments paged off the card; "
        "we hold gradients and moments",
        packed=True,
        suite="full-adamw-8bit",
    ),
    Published(
        "LoRA",
        "llama-3.1-8b",
        {"kind": "lora", **_TORCHTUNE_ADAPTER},
        2,
        2048,
        16.2,
        _TORCHTUNE,
        "theirs is compiled; which layers their adapter is on is not stated, ours is on two",
        packed=True,
        suite="lora",
    ),
    Published(
        "QLoRA",
        "llama-3.1-8b",
        {"kind": "qlora", **_TORCHTUNE_ADAPTER},
        2,
        2048,
        7.4,
        _TORCHTUNE,
        "theirs is compiled; which layers their adapter is on is not stated, ours is on two",
        packed=True,
        suite="qlora",
    ),
    Published(
        "LOMO",
        "mistral-7b",
        _LOMO,
        1,
        512,
        14.60,
        _LAB,
        "lomo-optim's update has temporaries of a whole matrix; ours goes by rows",
    ),
    Published(
        "AdaLomo",
        "mistral-7b",
        {"kind": "adalomo", "precision": "bf16"},
        1,
        512,
        15.10,
        _LAB,
        "lomo-optim's update has temporaries of a whole matrix; ours goes by rows",
    ),
    Published(
        "paged 8-bit AdamW",
        "mistral-7b",
        _BF16_8BIT,
        1,
        512,
        27.64,
        _LAB,
        "their moments are paged, which torch does not count: 13.5 of ours",
        grad_accumulation=8,
    ),
)
PUBLISHED: dict[tuple[str, str, int, int], Published] = {
    # Model, method of the suite, conversations, tokens in each.
    (one.model, one.suite, one.batch_size, one.tokens): one
    for one in FIGURES
    if one.suite is not None
}
