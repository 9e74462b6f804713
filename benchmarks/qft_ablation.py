"""Convergence with and without master weights: `python -m benchmarks.qft_ablation`.

Lion and AdamW in float32 and bfloat16 beside every rounding and residual of QFT: same start, same
batches, same schedule, same held-out tokens. The seed decides the order of the data and the
rounding. Without `--model` the starter is tuned on a bundled sample; with it, a model folder on
plain text or a sample. Results are written after every run, so a run that is cut off counts too.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.contract.launch import engine_environment

if __name__ == "__main__" and os.environ != engine_environment():
    # OpenMP reads its settings once, when torch is loaded.
    os.execve(
        sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], engine_environment()
    )

import torch
from torch import Tensor, nn

from benchmarks.ablation_data import Material, chats, texts
from benchmarks.ablation_variants import RATES, VARIANTS, Variant
from engine.contract.bundled import STARTER
from engine.contract.durable import read_json, write_whole
from engine.contract.method_settings import QftSettings
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.evaluate import held_out_loss
from engine.methods import METHODS
from engine.methods.protocol import NonFiniteError
from engine.model import LoadedModel
from engine.quant.int8_product import int8_hardware
from engine.roles import named_weights
from engine.schedule import learning_rate

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Length:
    """How long every run is, the same for all."""

    steps: int
    batch_size: int
    warmup_steps: int

    def spec(self, settings: dict[str, Any] | None, rate: float, seed: int) -> RunSpec:
        """The spec of one run; references take what concerns the schedule from it."""
        train = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "warmup_steps": self.warmup_steps,
            "schedule": "cosine",
            "learning_rate": rate,
            "seed": seed,
        }
        method = settings or {"kind": "full"}
        fields = {"model": {"source": "-"}, "data": {"source": "-"}, "method": method}
        return validate_spec({**fields, "train": train})


@dataclass
class Outcome:
    """What one variant did at one rate: a number for each seed.

    Losses are in nats per held-out token, None where training met a number that is not finite.
    """

    variant: str
    learning_rate: float
    before: list[float] = field(default_factory=list[float])  # one for all seeds
    after: list[float | None] = field(default_factory=list[float | None])
    codes_changed_percent: list[float] = field(default_factory=list[float])
    step_s: list[float] = field(default_factory=list[float])
    state_bytes: int = 0


def train_once(material: Material, variant: Variant, spec: RunSpec, into: Outcome) -> None:
    """One run, from the same weights as every other."""
    model = copy.deepcopy(material.loaded.model)
    loaded = replace(material.loaded, model=model)
    if variant.from_codes:
        _round_to_codes(model, spec)
    method = variant.method()
    method.prepare(model, spec, CPU)
    model.train()
    state = method.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items() if _is_weight(name)}
    into.state_bytes = sum(tensor.nbytes for tensor in state.values())
    if not into.before:  # no seed decides the start
        into.before.append(_loss(loaded, material))
    seconds: list[float] = []
    finite = True
    for step in range(1, (spec.train.steps or 0) + 1):
        batch = material.batch(spec, step)
        started = time.perf_counter()
        try:
            if material.begins_epoch(spec, step):
                method.new_epoch(step)
            method.step([batch], learning_rate(step, spec.train.steps or 0, spec.train), step)
        except NonFiniteError:
            finite = False
            break
        seconds.append(time.perf_counter() - started)
    into.after.append(_loss(loaded, material) if finite else None)
    into.codes_changed_percent.append(round(_changed_percent(before, method.state_dict()), 3))
    into.step_s.append(round(statistics.median(seconds), 5) if seconds else 0.0)


def _round_to_codes(model: nn.Module, spec: RunSpec) -> None:
    """Every weight becomes what QFT's balanced preset would start from."""
    twin = copy.deepcopy(model)
    quantized = METHODS["qft"]()
    quantized.prepare(twin, spec.model_copy(update={"method": QftSettings()}), CPU)
    values = dict(quantized.weights())
    with torch.no_grad():
        for named in named_weights(model):
            named.parameter.copy_(values[named.name])


def _loss(loaded: LoadedModel, material: Material) -> float:
    found = held_out_loss(loaded, material.held_out, 32, CPU, lambda: False)
    assert found is not None
    return round(found[0] / found[1], 6)


def _is_weight(name: str) -> bool:
    """Codes of a quantized weight; the values of a matrix that has none are not counted there."""
    return name.endswith(("/weight", "/weight.codes"))


def _changed_percent(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Share of stored numbers that are others than at the start."""
    pairs = [(old, after[name]) for name, old in before.items()]
    changed = sum(int((old != new).sum()) for old, new in pairs)
    return 100 * changed / sum(old.numel() for old, _ in pairs)


def run_all(
    material: Material, length: Length, names: Sequence[str], seeds: int
) -> Iterator[dict[str, Any]]:
    """The section of this model in the result file, after every run."""
    outcomes: dict[tuple[str, int], Outcome] = {}
    section: dict[str, Any] = {
        "data": material.data,
        "num_parameters": sum(p.numel() for p in material.loaded.model.parameters()),
        "training_examples": len(material.training),
        "held_out_tokens": material.num_held_out_tokens,
        "steps": length.steps,
        "batch_size": length.batch_size,
        "warmup_steps": length.warmup_steps,
        "threads": torch.get_num_threads(),
        "outcomes": [],
    }
    for seed in range(seeds):
        for place in range(len(RATES["lion"])):
            for name in names:
                variant = VARIANTS[name]
                rate = RATES[variant.optimizer][place]
                outcome = outcomes.setdefault((name, place), Outcome(name, rate))
                spec = length.spec(variant.settings, rate, seed)
                train_once(material, variant, spec, outcome)
                print(f"{material.name} seed {seed} lr {rate:g} {name}: {outcome.after[-1]}")
                yield {**section, "outcomes": [vars(one) for one in outcomes.values()]}


def write_result(path: Path, model: str, section: dict[str, Any]) -> None:
    """Replace one model's section; one outcome to a line, so that the file stays short."""
    document: dict[str, Any] = read_json(path) or {"models": {}}
    document = {
        "benchmark": "qft_ablation",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "transformers": version("transformers"),
        "models": {**document["models"], model: section},
    }
    text = json.dumps(_short(document), indent=1, allow_nan=False)
    text = re.sub(r'"(\{.*\})"', lambda found: json.loads(found[0]), text)
    write_whole(path, (text + "\n").encode())


def _short(document: dict[str, Any]) -> dict[str, Any]:
    """With every outcome as the text of its own JSON."""
    models = {
        name: {**section, "outcomes": [json.dumps(one) for one in section["outcomes"]]}
        for name, section in document["models"].items()
    }
    return {**document, "models": models}


def main() -> None:
    """Train every variant; write as results come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER, help="a model folder")
    parser.add_argument("--text", type=Path, action="append", help="plain text to tune on")
    parser.add_argument("--data", default="pirate", help="a bundled sample, where no text is given")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--length", type=int, default=128, help="tokens of an example")
    parser.add_argument("--warmup-steps", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=VARIANTS)
    parser.add_argument("--name", help="of the section in the result file; the model's if left out")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.text:
        material = texts(options.model, options.text, options.length)
    else:
        material = chats(options.model, options.data, options.length)
    length = Length(options.steps, options.batch_size, options.warmup_steps)
    names = options.only or [
        name for name in VARIANTS if name != "QFT int8 products" or int8_hardware(CPU)
    ]
    for section in run_all(material, length, names, options.seeds):
        if options.save:
            write_result(options.save, options.name or material.name, section)


if __name__ == "__main__":
    main()
