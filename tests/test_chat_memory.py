"""Two sides on one set of weights need hardly more memory than one, and switching moves nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.chat_models import ChatModels, Loading
from engine.contract.launch import PROJECT
from engine.target import find_target
from engine.tensor_meter import LiveTensorMeter
from tests.talks import Talks
from tests.tiny import tiny_model_folder

CPU = torch.device("cpu")
RATIO = 1.1
# 32 blocks of many sizes up to 16 MiB, one after the other, each with a small one that stays.
CHURN = """
import sys
from contextlib import nullcontext
from engine.freed_memory import returning_large_blocks
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
kept = []
with returning_large_blocks() if sys.argv[1] == "inside" else nullcontext():
    before = resident()
    for size in range(32):
        large = [bytearray((16 - size % 16) << 20) for _ in range(4)]
        kept.append(bytearray(100_000))
        del large
    print(resident() - before)
"""


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Talks:
    found = Talks(tmp_path_factory.mktemp("talks"))
    # So large that its weights outweigh what a pass needs.
    tiny_model_folder(found.base, hidden_size=192, intermediate_size=384)
    found.train("qlora", "qlora", steps=2)
    found.train("lora", "lora", steps=2)
    return found


def loaded(talks: Talks, **sides: str) -> tuple[ChatModels, LiveTensorMeter, list[Loading]]:
    told: list[Loading] = []
    models = ChatModels(told.append)
    targets = {name: find_target(text, talks.runs) for name, text in sides.items()}
    with LiveTensorMeter([]) as meter:
        models.load(targets, CPU)
    return models, meter, told


@pytest.mark.parametrize("name", ["qlora", "lora"])
def test_the_base_as_the_other_side_needs_hardly_more_memory(talks: Talks, name: str) -> None:
    alone, one, _ = loaded(talks, b=name)
    alone_live = one.live_bytes
    both, two, told = loaded(talks, a=f"{name}@base", b=name)
    assert both.plan == "shared"
    assert len(told) == 1
    assert alone_live >= 0.8 * alone.sides["b"].num_bytes  # the weights were counted
    assert two.live_bytes <= RATIO * alone_live
    assert two.peak_bytes <= RATIO * one.peak_bytes


class Operations(TorchDispatchMode):
    """Counts what torch does."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["qlora", "lora"])
def test_switching_loads_moves_and_computes_nothing(talks: Talks, name: str) -> None:
    models, _, told = loaded(talks, a=f"{name}@base", b=name)
    before = len(told)
    with Operations() as operations:
        for _ in range(3):
            assert models.use("a").model is models.use("b").model
    assert operations.count == 0
    assert len(told) == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give freed memory back")
def test_what_laying_out_weights_needs_for_a_moment_is_given_back() -> None:
    kept = {
        where: int(
            subprocess.run(
                [sys.executable, "-c", CHURN, where],
                cwd=PROJECT,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
        )
        for where in ("inside", "outside")
    }
    # KiB. The small blocks alone are 3 MiB.
    assert kept["inside"] < 8 << 10
    assert kept["inside"] < kept["outside"], kept
