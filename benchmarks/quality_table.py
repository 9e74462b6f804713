"""What each choice of a method learns, from the results: `python -m benchmarks.quality_table`.

    share = (start - end) / (start - end of full AdamW)

of held-out loss on the starter, at the same steps, and each choice at the learning rate that suited
it best. Presets of QFT are compared in the ablation, all others in the search behind the presets.
The ablation also tells what is left at the lowest rate that it tried, where an update is far less
than one step of an 8-bit code: there the yardstick is the same optimizer in float32.

`--measure-start` measures the loss of the untrained starter again, which the search does not keep.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.contract.launch import engine_environment

if __name__ == "__main__" and os.environ != engine_environment():
    # OpenMP reads its settings once, when torch is loaded.
    os.execve(
        sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], engine_environment()
    )

from benchmarks.ablation_summary import rates, rows
from engine.contract.bundled import ASSETS
from engine.contract.durable import read_json, write_json
from engine.contract.presets import METHOD_CHOICES, MethodChoice

RESULTS = Path(__file__).resolve().parent / "results"
MODEL, YARDSTICK = "starter", "full adamw"
# What a choice is called in the search.
_SEARCHED = {
    MethodChoice("qlora", "balanced"): "qlora",
    MethodChoice("lora"): "lora",
    MethodChoice("lomo"): "lomo",
    MethodChoice("adalomo"): "adalomo",
    MethodChoice("full"): YARDSTICK,
}


def quality_table() -> dict[str, Any]:
    """What `assets/quality.json` holds, by the key of each choice."""
    search, ablation, start = (
        _result(name) for name in ("preset_sweep_cpu", "qft_ablation_cpu", "starter_start_cpu")
    )
    return {
        "model": MODEL,
        "num_parameters": ablation["models"][MODEL]["num_parameters"],
        "choices": {
            choice.key: _quality(choice, search, ablation, start) for choice in METHOD_CHOICES
        },
    }


def _quality(choice: MethodChoice, search: Any, ablation: Any, start: Any) -> dict[str, Any] | None:
    if choice.kind == "qft":
        return _ablated(f"QFT {choice.preset}", ablation)
    name = _SEARCHED.get(choice)
    return None if name is None else _searched(name, search, start["losses"])


def _searched(name: str, search: Any, start: dict[str, float]) -> dict[str, Any] | None:
    """Mean over samples and seeds, which are paired."""
    own, best = (_best_losses(search, method) for method in (name, YARDSTICK))
    before = [start[sample] for sample in search["samples"] for _ in range(search["seeds"])]
    return {
        "share_percent": _mean_share(before, own, best),
        "low_rate_share_percent": None,
        "steps": search["steps"],
        "result": "preset_sweep_cpu",
    }


def _best_losses(search: Any, method: str) -> list[float]:
    """Of the rate, schedule and clipping that suited a method best."""
    trials = [
        one for one in search["trials"] if one["method"] == method and one["mean"] is not None
    ]
    return min(trials, key=lambda one: one["mean"])["losses"]


def _ablated(variant: str, ablation: Any) -> dict[str, Any]:
    section = ablation["models"][MODEL]
    adamw = _best_outcome(section, "fp32 AdamW")
    own = _best_outcome(section, variant)
    before = adamw["before"] * len(adamw["after"])
    lowest = rates(rows(section), variant)[0]
    return {
        "share_percent": _mean_share(before, own["after"], adamw["after"]),
        "low_rate_share_percent": round(lowest.share, 1),
        "steps": section["steps"],
        "result": "qft_ablation_cpu",
    }


def _best_outcome(section: Any, variant: str) -> Any:
    found = [
        one for one in section["outcomes"] if one["variant"] == variant and None not in one["after"]
    ]
    return min(found, key=lambda one: statistics.fmean(one["after"]))


def _mean_share(before: Iterable[float], own: Iterable[float], best: Iterable[float]) -> float:
    """Percent of the loss that the yardstick takes away."""
    shares = [
        100 * (start - end) / (start - yardstick)
        for start, end, yardstick in zip(before, own, best, strict=True)
    ]
    return round(statistics.fmean(shares), 1)


def _result(name: str) -> Any:
    found = read_json(RESULTS / f"{name}.json")
    assert found is not None, f"benchmarks/results/{name}.json cannot be read"
    return found


def measure_start() -> dict[str, Any]:
    """Held-out loss of the untrained starter, on the samples and lengths of the search."""
    import tempfile
    from importlib.metadata import version

    from benchmarks.preset_sweep import held_out
    from engine.contract.events import EventWriter
    from engine.contract.spec_file import validate_spec
    from engine.preparation import prepare
    from engine.request import create_checked_run

    search = _result("preset_sweep_cpu")
    losses: dict[str, float] = {}
    for sample in search["samples"]:
        train = {"steps": 1, "batch_size": 8, "sequence_length": 128, "device": "cpu"}
        wish = {"model": {"source": MODEL}, "data": {"source": sample}, "train": train}
        with tempfile.TemporaryDirectory() as runs:
            spec = validate_spec({**wish, "method": {"kind": "full"}})
            run = create_checked_run(spec, Path(runs), None)
            with EventWriter(run.events_path, attempt=1) as events:
                losses[sample] = held_out(prepare(run, events))
    return {
        "benchmark": "starter_start",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": version("torch"),
        "losses": losses,
    }


def main() -> None:
    """Write `assets/quality.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure-start", action="store_true")
    options = parser.parse_args()
    if options.measure_start:
        write_json(RESULTS / "starter_start_cpu.json", measure_start())
    table = quality_table()
    write_json(ASSETS / "quality.json", table)
    for key, quality in table["choices"].items():
        print(f"{key:16} {quality}")


if __name__ == "__main__":
    main()
