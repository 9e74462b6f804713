"""The tables of docs/qft.md: measured ones from benchmarks/results/, exact ones from the plans."""

from __future__ import annotations

import statistics
from typing import Any, Literal

from benchmarks.ablation_summary import PROMISES, Row, is_adamw, rates, rows
from docs.tables import measured_on, result, short_rate, table
from engine.contract.method_settings import QFT_PRESETS, FullSettings, QftSettings
from engine.memory.catalogue import bundled_shape
from engine.memory.model_shape import ModelShape
from engine.memory.plans import MemoryPlan, plan_for, qft_plan
from engine.memory.units import GIB

GEOMETRY = "llama-2-7b"
# What a preset's row in the tables is called, and its settings.
_MEASURED: dict[str, dict[str, Any]] = {
    "QFT balanced": {},
    "QFT lean": {"preset": "lean"},
    "QFT quality": {"preset": "quality"},
    "QFT paper": {"preset": "paper"},
    "QFT-AdamW": {"update": "adamw"},
    "QFT-AdamW, moments 4": {"update": "adamw", "moment_bits": 4},
}
Kind = Literal["weights", "moments", "gradients"]


def shape() -> ModelShape:
    """Of the model that bytes are told of."""
    found = bundled_shape(GEOMETRY)
    assert found is not None
    return found


def plan_bytes(plan: MemoryPlan, *kinds: Kind) -> int:
    """Bytes of these in the geometry; gradients only where all of them wait at once."""
    total = 0
    for tensor in shape().tensors:
        of = plan.of(tensor.role)
        layouts = {
            "weights": [of.weight],
            "moments": of.moments,
            "gradients": [] if plan.fused else [of.gradient],
        }
        each = [layout.nbytes(tensor.stored_shape) for kind in kinds for layout in layouts[kind]]
        total += sum(each) * tensor.repeat
    return total


def _per_weight(plan: MemoryPlan, kind: Kind) -> str:
    return f"{plan_bytes(plan, kind) / shape().num_parameters:.2f}"


def preset_table() -> str:
    """What each preset sets and what it takes."""
    plans = {name: qft_plan(QftSettings.model_validate(of)) for name, of in _MEASURED.items()}
    cells: list[tuple[str, ...]] = [
        (
            f"`{name.removeprefix('QFT ')}`" if name.startswith("QFT ") else name,
            _set_by(_MEASURED[name]),
            _per_weight(plan, "weights"),
            _per_weight(plan, "moments"),
            "some rows" if plan.fused else _per_weight(plan, "gradients"),
            f"{plan_bytes(plan, 'weights', 'moments', 'gradients') / GIB:.2f} GiB",
        )
        for name, plan in plans.items()
    ]
    plan = plan_for(FullSettings())
    kinds: tuple[Kind, ...] = ("weights", "moments", "gradients")
    whole = f"{plan_bytes(plan, *kinds) / GIB:.2f} GiB"
    cells.append(("`full`", "AdamW in float32", *(_per_weight(plan, k) for k in kinds), whole))
    headings = ("preset", "sets", "weights", "moments", "gradients held", "LLaMA-2-7B, all three")
    return f"{table(headings, cells)}\n\nBytes per weight; activations come on top."


def _set_by(settings: dict[str, Any]) -> str:
    filled = QFT_PRESETS[settings["preset"]] if "preset" in settings else settings
    return ", ".join(f"{name} {value}" for name, value in filled.items()) or "the defaults"


def share_table() -> str:
    """One table for each model: shares by learning rate."""
    found = result("qft_ablation_cpu")
    parts = [_share_table(name, section) for name, section in found["models"].items()]
    threads = next(iter(found["models"].values()))["threads"]
    where = measured_on({**found, "threads": threads})
    return "\n\n".join([*parts, f"Measured on a {where}."])


def _share_table(name: str, section: dict[str, Any]) -> str:
    every = rows(section)
    variants = dict.fromkeys(row.variant for row in every)
    seeds = len(every[0].shares)
    headings = ("variant", "low", "middle", "high", "changed", "step time", "bytes per weight")
    cells = [_share_cells(rates(every, variant)) for variant in sorted(variants, key=is_adamw)]
    scale = [row.learning_rate for row in rates(every, "fp32 Lion")]
    other = [row.learning_rate for row in rates(every, "fp32 AdamW")]
    words = [short_rate(rate) for rate in (*scale, *other)]
    return (
        f"**{name}**, {section['num_parameters']:,} weights, tuned on {section['data']}: "
        f"{section['steps']} steps of {section['batch_size']}, {seeds} seeds, "
        f"{section['held_out_tokens']:,} held-out tokens. Learning rates of Lion: "
        f"{', '.join(words[:3])}; of AdamW: {', '.join(words[3:])}.\n\n{table(headings, cells)}"
    )


def _share_cells(found: list[Row]) -> tuple[str, ...]:
    changed = " / ".join(f"{row.changed_percent:.0f}" for row in found)
    ratio = statistics.median(row.step_ratio for row in found)
    size = f"{found[0].bytes_per_weight:.2f}"
    return (found[0].variant, *map(_share_cell, found), f"{changed} %", f"{ratio:.1f} x", size)


def _share_cell(row: Row) -> str:
    """Mean and range of the seeds; for float32 itself the losses."""
    if row.variant.startswith("fp32") and "start" not in row.variant:
        return f"{row.before:.3f} to {row.after:.3f}"
    if row.after is None:
        return "diverged"
    spread = f"{min(row.shares):.1f} to {max(row.shares):.1f}"
    return f"**{row.share:.1f} %** ({spread})"


def promise_table() -> str:
    """What was promised and what was measured, by model and learning rate."""
    found = result("qft_ablation_cpu")
    cells: list[tuple[str, ...]] = []
    for model, section in found["models"].items():
        every = rows(section)
        for variant, least in PROMISES:
            for row in rates(every, variant):
                verdict = "yes" if row.share >= least else "**no**"
                rate = short_rate(row.learning_rate)
                cells.append((variant, model, rate, f"{least:g} %", f"{row.share:.2f} %", verdict))
    headings = ("variant", "model", "learning rate", "promised", "measured", "holds")
    return table(headings, cells)


def length_table() -> str:
    """The same on the same model, with more steps and with larger batches."""
    found = result("qft_ablation_lengths_cpu")
    cells: list[tuple[str, ...]] = []
    for name, section in found["models"].items():
        every = rows(section)
        length = f"{section['steps']} steps of {section['batch_size']}"
        for variant in ("QFT without residual", "QFT quality"):
            shares = (f"{row.share:.1f} %" for row in rates(every, variant))
            cells.append((f"{name}: {length}", variant, *shares))
    first = rates(rows(next(iter(found["models"].values()))), "fp32 Lion")
    headings = ("run", "variant", *(short_rate(row.learning_rate) for row in first))
    where = f"{found['hardware']}, torch {found['torch']}"
    return f"{table(headings, cells)}\n\nOne seed, {where}."


def phase_table() -> str:
    """Milliseconds of a step by phase."""
    found = result("qft_phases_cpu")
    phases = list(next(iter(found["median_s"].values())))
    cells = [
        (name, *(f"{1000 * row[phase]:.0f}" for phase in phases))
        for name, row in found["median_s"].items()
    ]
    return (
        f"{table(('ms', *phases), cells)}\n\nMedians of {found['rounds']} steps of "
        f"{found['tokens']} tokens in turns, the small Llama of `benchmarks/step_time.py`, "
        f"{measured_on(found)}. Other programs shared the computer."
    )


def speed_table() -> str:
    """Step times as shares of AdamW's, with few tokens and with many."""
    short, long = result("step_time_cpu"), result("step_time_long_cpu")
    cells = [
        (name, *(_ratio(run["ratio"].get(name)) for run in (short, long)))
        for name in short["ratio"]
    ]
    headings = ("method", f"{short['tokens']:,} tokens a step", f"{long['tokens']:,}")
    return (
        f"{table(headings, cells)}\n\nMedians of {short['rounds']} and {long['rounds']} steps, a "
        f"Llama of {short['num_parameters']:,} weights, {measured_on(short)}."
    )


def _ratio(found: float | None) -> str:
    return "" if found is None else f"{found:.2f} x"


def outlier_table() -> str:
    """Bytes, error and time of dense and sparse."""
    found = result("outlier_cost_cpu")
    cells = [
        (
            f"{row['outlier_percent']:g} %",
            str(row["scale_group"]),
            f"{row['bytes_per_weight']:.3f}",
            f"{100 * row['relative_error']:.2f} %",
            f"{row['step_ratio']:.2f} x",
        )
        for row in found["rows"]
    ]
    headings = ("outliers", "scale group", "bytes per weight", "error", "step time")
    return (
        f"{table(headings, cells)}\n\nBytes of a linear layer of LLaMA-2-7B; error is the length "
        f"of what storing changes in the linear layers of {found['weights_of']}, relative; step "
        f"time on the small Llama of `benchmarks/step_time.py`, {measured_on(found)}."
    )


def ledger_table() -> str:
    """The published sum, as the plan of `paper` adds it up."""
    paper = QftSettings(preset="paper", **QFT_PRESETS["paper"])
    plain = qft_plan(paper.model_copy(update={"outlier_percent": 0.0}))
    plan, full = qft_plan(paper), plan_for(FullSettings())
    kinds: tuple[Kind, ...] = ("weights", "moments", "gradients")
    states, whole = plan_bytes(plan, *kinds), plan_bytes(full, *kinds)
    sizes = {
        "8-bit weights, a float32 scale for every 32": plan_bytes(plain, "weights"),
        "with 1 % outliers, 6 bytes each": plan_bytes(plan, "weights"),
        "with gradients and momentum": states,
    }
    cells = [(what, f"{size / GIB:.2f} GiB") for what, size in sizes.items()]
    cells.append(("beside AdamW in float32", f"{100 * states / whole:.2f} %"))
    return table(("LLaMA-2-7B, `paper`", "states"), cells)


def offload_table() -> str:
    """Bytes over PCIe in one step, and how long that takes at least: arithmetic."""
    ways = (
        ("AdamW in float32: gradients down, then weights up", 4 + 4),
        ("the same in 16 bits", 2 + 2),
    )
    cells = [
        (
            way,
            f"{count * shape().num_parameters / 1e9:.1f} GB",
            *(f"{count * shape().num_parameters / _bandwidth(rate):.1f} s" for rate in (16, 32)),
        )
        for way, count in ways
    ]
    headings = ("LLaMA-2-7B, one step", "over PCIe", "4.0 x16", "5.0 x16")
    return table(headings, [*cells, ("QFT `balanced`", "0 GB", "0 s", "0 s")])


def _bandwidth(transfers: int) -> float:
    """Bytes per second of 16 lanes: giga-transfers a lane, 128 of 130 bits of use."""
    return transfers * 1e9 * 16 * (128 / 130) / 8
