"""Memory that others published, each with the setting that it was measured in.

Figures are as printed: "GB" of the papers of QFT and LOMO are GiB, as their weights show (7 billion
weights of 2 bytes are 12.55 GiB).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One figure.

    Attributes:
        gib: Peak of the whole training, in GiB.
        source: Where it stands, with what differs from our cell.
    """

    gib: float
    source: str


_TORCHTUNE = "torchtune's README, 2 x 2048 packed and compiled, one RTX 4090"
PUBLISHED: dict[tuple[str, str, int, int], Published] = {
    # Model, method, conversations, tokens in each.
    ("llama-2-7b", "qft-paper", 1, 1024): Published(
        28.9, "QFT, table 1, LLaMA-2-7B; batch and length are not stated"
    ),
    ("llama-2-7b", "lomo-unclipped", 8, 512): Published(
        14.58, "LOMO, table 1, LLaMA-7B, 8 x 512, activations recomputed"
    ),
    ("llama-2-7b", "lomo-unclipped", 1, 1024): Published(
        13.61, "LOMO, table 2, LLaMA-7B, 1 x 1024, one RTX 3090"
    ),
    ("llama-2-7b", "qlora", 1, 512): Published(
        6.9, "QLoRA, figure of the memory footprint, LLaMA-7B, one sequence of 512"
    ),
    ("llama-3.1-8b", "lora", 2, 2048): Published(16.2, _TORCHTUNE),
    ("llama-3.1-8b", "qlora", 2, 2048): Published(7.4, _TORCHTUNE),
    ("llama-3.1-8b", "full-adamw-8bit", 2, 2048): Published(
        18.9, f"{_TORCHTUNE}; all its weights, by another recipe"
    ),
}
