"""Our forecast beside memory that others published: `python -m benchmarks.published_forecast`.

Nothing is measured: each figure's setting is forecast on a GPU that holds anything, and what torch
would count there is compared with what was printed. Nothing was adjusted to come nearer.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.published_memory import FIGURES, Published
from engine.contract.durable import write_json
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device
from engine.memory.estimate import Forecast, estimate
from engine.memory.resolve import resolve_for_device
from engine.memory.units import GIB

RESULT = Path(__file__).resolve().parent / "results" / "published_forecast.json"
# A GPU that holds anything.
_AMPLE_BYTES = 1024 * GIB
GPU = Device("cuda:0", "cuda", "any", _AMPLE_BYTES, _AMPLE_BYTES)


def spec_of(figure: Published) -> RunSpec:
    """The request that comes nearest to a published setting."""
    return validate_spec(
        {
            "model": {"source": figure.model},
            "data": {"source": "pirate"},
            "method": dict(figure.method),
            "train": {
                "batch_size": figure.batch_size,
                "grad_accumulation": figure.grad_accumulation,
                "sequence_length": figure.tokens,
                "batching": "packed" if figure.packed else "grouped",
                "activation_checkpointing": figure.recomputed,
            },
        }
    )


def forecast_of(figure: Published) -> Forecast:
    """Of that request, with conversations as long as theirs."""
    shape = bundled_shape(figure.model)
    assert shape is not None, f"{figure.model} is in the catalogue"
    spec = resolve_for_device(spec_of(figure), shape, GPU, figure.tokens)
    return estimate(spec, shape, GPU, figure.tokens)


def row(figure: Published) -> dict[str, Any]:
    """A figure, our forecast of it, and how far apart they are; sizes in bytes where not said."""
    forecast = forecast_of(figure)
    tensors_gib = forecast.tensor_bytes / GIB
    return {
        **asdict(figure),
        "tensor_bytes": forecast.tensor_bytes,
        "total_bytes": forecast.total_bytes,
        "low_bytes": forecast.low_bytes,
        "high_bytes": forecast.high_bytes,
        # Zero has no sign.
        "difference_gib": round(tensors_gib - figure.gib, 2) + 0.0,
        "difference_percent": round(100 * (tensors_gib / figure.gib - 1), 1) + 0.0,
    }


def document() -> dict[str, Any]:
    """What the result file holds: the same wherever and whenever it is made."""
    return {"benchmark": "published_forecast", "rows": [row(figure) for figure in FIGURES]}


def main() -> None:
    """Print the rows and keep them."""
    found = document()
    for one in found["rows"]:
        print(
            f"{one['name']:20} {one['model']:13} {one['batch_size']} x {one['tokens']:<5}"
            f" ours {one['tensor_bytes'] / GIB:7.2f}  theirs {one['gib']:7.2f}"
            f"  {one['difference_gib']:+7.2f} GiB  {one['difference_percent']:+6.1f} %"
        )
    write_json(RESULT, found)


if __name__ == "__main__":
    main()
