"""The largest tensors of a model, its tables, are updated without ever being whole in float."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.data.batching import Batch
from engine.freed_memory import give_back_freed_memory
from engine.memory.plans import MemoryPlan
from engine.methods.qft import QftMethod
from engine.tensor_meter import LiveTensorMeter
from tests.published import ALL_IN_CODES

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
VOCABULARY = 128 * 1024
TOKENS = 8
FLOAT32, BFLOAT16 = 4, 2


class Tables(nn.Module):
    """An embedding and a head with nothing between; only one of them is large."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        small, large = 16, VOCABULARY
        rows = {"embedding": (large, small), "head": (small, large), "tied": (large, large)}[kind]
        with torch.device("meta"):
            self.embedding = nn.Embedding(rows[0], width, dtype=torch.bfloat16)
            self.head = nn.Linear(width, rows[1], bias=False, dtype=torch.bfloat16)
        self.to_empty(device=CPU)
        if kind == "tied":
            self.head.weight = self.embedding.weight
        for parameter in self.parameters():
            parameter.data.fill_(0.01)

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.embedding(input_ids)))

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def spec(settings: dict[str, Any]) -> RunSpec:
    return validate_spec(
        {
            "model": {"source": "starter"},
            "data": {"source": "pirate"},
            "method": {"kind": "qft", **settings},
            "train": {"device": "cpu"},
        }
    )


@pytest.mark.parametrize(
    ("kind", "width", "settings"),
    [
        ("head", 1024, {}),
        ("embedding", 1024, {}),
        ("tied", 1024, {}),
        ("head", 512, ALL_IN_CODES),
        ("tied", 512, {**ALL_IN_CODES, "update": "adamw", "moment_bits": 4}),
    ],
    ids=str,
)
def test_a_large_table_is_updated_some_rows_at_a_time(
    kind: str, width: int, settings: dict[str, Any]
) -> None:
    give_back_freed_memory()  # of the case before
    model, method = Tables(kind, width), QftMethod()
    method.prepare(model, spec(settings), CPU)
    numbers = torch.arange(TOKENS).unsqueeze(0)
    batch = Batch(numbers, torch.ones_like(numbers), numbers)
    state = method.state_dict()
    first = {name: part[:TOKENS].clone() for name, part in state.items()}
    with LiveTensorMeter([*state.values(), *model.parameters(), numbers]) as meter:
        held = meter.live_bytes
        method.step([batch], 1e-3, 1)
        transient = meter.peak_bytes - held
    table, chunk = VOCABULARY * width, MemoryPlan.chunk_elements("cpu")
    product = MemoryPlan.product_elements("cpu")
    logits = 4 * TOKENS * VOCABULARY * FLOAT32
    bound = logits + 2 * product * FLOAT32 + 8 * chunk * FLOAT32
    assert bound < 0.3 * table * FLOAT32, "or the bound would prove nothing"
    if kind == "tied":  # the head's gradient waits for that of the embedding
        bound += table * BFLOAT16
    assert transient < bound
    changed = {name for name, part in state.items() if not torch.equal(part[:TOKENS], first[name])}
    assert {name.partition("/")[0] for name in changed} == {
        name.partition("/")[0] for name in state
    }
