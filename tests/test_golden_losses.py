"""Twenty steps of every method give the losses on record, so that no change goes unseen.

`python -m tests.test_golden_losses` records them anew, after a change that is meant to change them;
records of another processor's kernels it drops, until it runs there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.contract.presets import METHOD_CHOICES, MethodChoice, preset_of
from engine.schedule import learning_rate
from tests.tiny import chat_rows, prepared, tiny_model_folder, tiny_spec, write_jsonl

RECORD = Path(__file__).parent / "data" / "golden_losses.json"
STEPS = 20
# Other CPUs round a product differently in the last digit.
TOLERANCE = 2e-4
# And then chance may round a weight differently.
TOLERANCE_OF_CHANCE = 2e-3
# bitsandbytes' kernels for 4 bits differ by processor, so that of these there are two records.
OTHER_KERNELS = " without AVX-512"


def losses(choice: MethodChoice, folder: Path, chats: Path, runs: Path) -> list[float]:
    """Nats per target token before each of the steps.

    A quarter of the preset's rate, which is near the highest that works: there, what the last digit
    of a product is would decide more and more.
    """
    method = {key: value for key, value in choice._asdict().items() if value is not None}
    spec = tiny_spec(folder, chats, method, steps=STEPS, warmup_steps=5)
    rate = preset_of(spec.method).learning_rate_small / 4
    one = prepared(tiny_spec(folder, chats, method, steps=STEPS, learning_rate=rate), runs)
    found: list[float] = []
    for step in range(1, STEPS + 1):
        torch.manual_seed(step)  # dropout draws from it
        rate = learning_rate(step, STEPS, one.spec.train)
        report = one.method.step(one.batches(step), rate, step)
        found.append(round(report.loss_nats / report.num_target_tokens, 5))
    return found


@pytest.mark.parametrize("choice", METHOD_CHOICES, ids=lambda choice: choice.key)
def test_the_losses_are_those_on_record(
    choice: Any, tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path
) -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    found = losses(choice, tiny_folder("llama"), chats_file, tmp_path)
    tolerance = TOLERANCE_OF_CHANCE if choice.kind == "qft" else TOLERANCE
    known = [recorded[key] for key in (choice.key, choice.key + OTHER_KERNELS) if key in recorded]
    assert any(found == pytest.approx(one, rel=tolerance) for one in known), (found, known)
    assert found[-1] < found[0]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        model = tiny_model_folder(Path(scratch) / "model", "llama")
        data = write_jsonl(Path(scratch) / "chats.jsonl", chat_rows(24))
        has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
        record = {
            choice.key
            + (OTHER_KERNELS if choice.kind == "qlora" and not has_avx512 else ""): losses(
                choice, model, data, Path(scratch) / "runs"
            )
            for choice in METHOD_CHOICES
        }
    lines = [f"{json.dumps(key)}: {json.dumps(values)}" for key, values in record.items()]
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")
