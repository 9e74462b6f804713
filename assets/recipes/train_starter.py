"""Trains the starter model from scratch: `python -m assets.recipes.train_starter`.

Plain PyTorch: AdamW, a cosine schedule, conversations sorted by length into batches. Weights are
float32 while training (arithmetic in bfloat16) and bfloat16 in the saved folder.
"""

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from assets.recipes.batching import MAX_LENGTH, batches
from assets.recipes.build_tokenizer import build_tokenizer
from assets.recipes.card import read_stages, write_card, write_record
from assets.recipes.score_starter import HELD_OUT_FILE, MAX_NEW_TOKENS, STARTER
from assets.recipes.world import SEED, World, build_world, conversations

EVAL_SEED = 900_000_001


@dataclass
class Progress:
    """What has been measured so far; the loss is a running mean in nats per token."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = math.nan


def new_model(tokenizer: Any) -> LlamaForCausalLM:
    """A small Llama with tied embeddings and fresh weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(SEED)
    return LlamaForCausalLM(config)


def weighted_loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy in nats per token, weighted; padding is at the right and has no weight."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    weight = weights[:, 1:].flatten()
    return (losses * weight).sum() / weight.sum()


def learning_rate(step: int, done: float, chosen: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak; `done` goes from 0 to 1."""
    if step < chosen.warmup:
        return chosen.learning_rate * (step + 1) / chosen.warmup
    return chosen.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def share_done(progress: Progress, chosen: argparse.Namespace) -> float:
    """How much of the run is over, by steps or, if there is a limit, by time."""
    by_time = progress.seconds / (60 * chosen.minutes) if chosen.minutes else 0.0
    return max(progress.steps / chosen.steps, by_time)


@torch.no_grad()
def reply_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World) -> float:
    """Loss in nats per reply token on conversations that are drawn but never trained on."""
    total, num_tokens = 0.0, 0.0
    for ids, weights in islice(batches(tokenizer, world, EVAL_SEED), 20):
        replies = (weights == 1.0).float()
        num_replies = replies[:, 1:].sum().item()
        total += weighted_loss(model, ids, replies).item() * num_replies
        num_tokens += num_replies
    return total / num_tokens


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the folder that `from_pretrained` reads, in bfloat16; the model stays as it is."""
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    model.bfloat16().save_pretrained(folder)
    model.float().load_state_dict(state)
    tokenizer.save_pretrained(folder)


def new_optimizer(model: LlamaForCausalLM, peak: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves norms alone."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": 0.05},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    chosen: argparse.Namespace,
) -> Progress:
    """Train in place; now and then save the folder and a float32 checkpoint."""
    optimizer = new_optimizer(model, chosen.learning_rate)
    progress, started = Progress(), time.perf_counter()
    for ids, weights in batches(tokenizer, world, chosen.data_seed, chosen.batch_tokens):
        done = share_done(progress, chosen)
        if done >= 1:
            break
        rate = learning_rate(progress.steps, done, chosen)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = weighted_loss(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        last = loss.item()
        progress.loss = last if progress.steps == 0 else 0.98 * progress.loss + 0.02 * last
        progress.steps += 1
        progress.tokens += int((weights > 0).sum())
        progress.seconds = time.perf_counter() - started
        if progress.steps % 50 == 0:
            speed = progress.tokens / progress.seconds
            sys.stdout.write(
                f"step {progress.steps} loss {progress.loss:.4f} rate {rate:.2e} "
                f"{speed:.0f} tokens/s\n"
            )
            sys.stdout.flush()
        if progress.steps % chosen.save_every == 0:
            save(model, tokenizer, chosen.out)
            torch.save(model.state_dict(), chosen.checkpoint)
    return progress


def write_held_out(world: World) -> None:
    """Write the held-out questions beside the recipe."""
    lines = [json.dumps(row, ensure_ascii=False) for row in world.held_out]
    HELD_OUT_FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def the_tokenizer(world: World, chosen: argparse.Namespace) -> PreTrainedTokenizerFast:
    """A new tokenizer, or the one in the output folder when training goes on."""
    if chosen.start_from:
        return AutoTokenizer.from_pretrained(chosen.out)
    texts = (turn["content"] for chat in conversations(world, 40_000, 0) for turn in chat)
    return build_tokenizer(texts, MAX_LENGTH)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=STARTER)
    parser.add_argument("--steps", type=int, default=4200)
    parser.add_argument("--minutes", type=float, help="end earlier, after this time")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=2.5e-3)
    parser.add_argument("--data-seed", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=300)
    parser.add_argument("--start-from", type=Path, help="a float32 checkpoint to go on from")
    parser.add_argument("--checkpoint", type=Path, default=Path("starter-float32.pt"))
    return parser.parse_args()


def main() -> None:
    """Train, save, measure, and write the model card."""
    chosen = _arguments()
    torch.set_num_threads(os.cpu_count() or 1)
    world = build_world()
    write_held_out(world)
    tokenizer = the_tokenizer(world, chosen)
    model = new_model(tokenizer)
    if chosen.start_from:
        model.load_state_dict(torch.load(chosen.start_from))
    progress = train(model, tokenizer, world, chosen)
    torch.save(model.state_dict(), chosen.checkpoint)
    save(model, tokenizer, chosen.out)
    stage = {
        "steps": progress.steps,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds),
        "batch_tokens": chosen.batch_tokens,
        "learning_rate": chosen.learning_rate,
        "train_loss_nats": round(progress.loss, 4),
    }
    measured = {
        "stages": [*(read_stages(chosen.out) if chosen.start_from else []), stage],
        "reply_loss_nats": round(reply_loss(model, tokenizer, world), 4),
    }
    write_record(chosen.out, measured)
    write_card(chosen.out)


if __name__ == "__main__":
    main()
