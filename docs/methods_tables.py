"""The tables of docs/methods.md: from the forecast, the presets and benchmarks/results/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.preset_sweep import SEARCHED
from docs.tables import measured_on, result, short_rate, table
from engine.contract.bundled import catalogue
from engine.contract.errors import RequestError
from engine.contract.method_settings import MethodSettings
from engine.contract.presets import METHOD_CHOICES, SMALL_MODEL_PARAMETERS, preset_of
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device
from engine.memory.estimate import Forecast, estimate
from engine.memory.resolve import resolve_for_device
from engine.memory.units import GIB

GEOMETRIES = ("llama-2-7b", "llama-3.1-8b")
TOKENS = 1024
CARDS_GIB = (8, 12, 16, 24, 48)
# What a desktop may hold of a card.
DESKTOP_BYTES = GIB
# A row's name, and its settings.
_ROWS: dict[str, dict[str, Any]] = {
    **{
        " ".join(filter(None, choice)): {
            "kind": choice.kind,
            **({"preset": choice.preset} if choice.preset else {}),
        }
        for choice in METHOD_CHOICES
    },
    "full, adamw_8bit in bf16": {"kind": "full", "optimizer": "adamw_8bit", "precision": "bf16"},
}
_SWEEP = "preset_sweep_cpu"


def _forecast(settings: dict[str, Any], model: str, free_bytes: int = 0) -> Forecast:
    """One conversation of `TOKENS` tokens with checkpointing, on a GPU."""
    train = {"batch_size": 1, "sequence_length": TOKENS, "activation_checkpointing": True}
    spec = validate_spec(
        {
            "model": {"source": model},
            "data": {"source": "pirate"},
            "method": settings,
            "train": train,
        }
    )
    shape = bundled_shape(model)
    assert shape is not None
    gpu = Device("cuda:0", "cuda", "any", free_bytes, free_bytes)
    return estimate(resolve_for_device(spec, shape, gpu), shape, gpu, longest_tokens=TOKENS)


def memory_table() -> str:
    """What each method's states take, and what a run needs in all."""
    cells: list[tuple[str, ...]] = []
    for name, settings in _ROWS.items():
        forecasts = [_forecast(settings, model) for model in GEOMETRIES]
        first = forecasts[0]
        cells.append(
            (
                f"`{name}`",
                f"{first.states_bytes / first.num_parameters:.2f}",
                _per_parameter(first.terms["gradients"] / first.num_parameters),
                *(
                    f"{size / GIB:.1f}"
                    for forecast in forecasts
                    for size in (forecast.states_bytes, forecast.total_bytes)
                ),
            )
        )
    titles = [catalogue()[model].title for model in GEOMETRIES]
    sizes = [word for title in titles for word in (f"{title}: states, GiB", "run, GiB")]
    return (
        f"{table(('method', 'states', 'gradients', *sizes), cells)}\n\n"
        f"States (weights, moments and adapters) and gradients alive at once in bytes per "
        f"parameter of {titles[0]}; states and the whole run in GiB, for one conversation of "
        f"{TOKENS:,} tokens with activation checkpointing on a GPU. This is the forecast, not a "
        "measurement."
    )


def _per_parameter(size: float) -> str:
    return f"{size:.2f}" if size >= 0.01 else "under 0.01"


def fits_table() -> str:
    """The largest model of the catalogue for each method and card."""
    rows = {name: settings for name, settings in _ROWS.items() if "paper" not in name}
    cells = [
        (f"`{name}`", *(_largest(settings, card) for card in CARDS_GIB))
        for name, settings in rows.items()
    ]
    headings = ("method", *(f"{card} GiB" for card in CARDS_GIB))
    return (
        f"{table(headings, cells)}\n\nThe largest of the {len(catalogue())} models in the "
        f"catalogue whose forecast, at the upper end of its band, leaves {DESKTOP_BYTES / GIB:g} "
        f"GiB of the card for a desktop; one conversation of {TOKENS:,} tokens with "
        "checkpointing. Where `llama-2-13b` stands, larger ones may fit: the catalogue has none."
    )


def _largest(settings: dict[str, Any], card_gib: int) -> str:
    free = card_gib * GIB - DESKTOP_BYTES
    fitting = [model for model in catalogue() if _fits(settings, model, free)]
    return fitting[-1] if fitting else "none"


def _fits(settings: dict[str, Any], model: str, free_bytes: int) -> bool:
    try:
        return _forecast(settings, model, free_bytes).verdict == "fits"
    except RequestError:  # GPT-2 has no layer that 4 bits can hold
        return False


def rate_table() -> str:
    """What each method fills in where the person says nothing."""
    cells: list[tuple[str, ...]] = []
    for name, searched in SEARCHED.items():
        preset = preset_of(_settings(searched.method))
        cells.append(
            (
                f"`{name}`",
                short_rate(preset.learning_rate),
                short_rate(preset.learning_rate_small),
                preset.schedule,
                "none" if preset.max_grad_norm is None else f"{preset.max_grad_norm:g}",
                f"{preset.warmup_steps} steps",
            )
        )
    small = f"{SMALL_MODEL_PARAMETERS // 1_000_000} million"
    headings = ("method", "learning rate", f"under {small}", "schedule", "clipped to", "warm-up")
    return table(headings, cells)


def _settings(method: dict[str, Any]) -> MethodSettings:
    document = {"model": {"source": "starter"}, "data": {"source": "pirate"}, "method": method}
    return validate_spec(document).method


def sweep_table() -> str:
    """The best settings that the sweep found, the next best, and our defaults among them."""
    return sweep_of(result(_SWEEP))


def sweep_of(found: dict[str, Any]) -> str:
    """The table of a sweep.

    Args:
        found: What `benchmarks.preset_sweep` writes.
    """
    names = dict.fromkeys(trial["method"] for trial in found["trials"])
    cells = [
        _sweep_row(name, [trial for trial in found["trials"] if trial["method"] == name])
        for name in names
    ]
    headings = ("method", "best", "loss", "next best", "loss", "our default", "tried")
    samples = " and ".join(f"`{sample}`" for sample in found["samples"])
    return (
        f"{table(headings, cells)}\n\nHeld-out loss in nats per token: means over {samples} and "
        f"{found['seeds']} seeds, {found['steps']} steps of 8 conversations, the starter model, "
        f"{measured_on(found)}."
    )


def _sweep_row(name: str, trials: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    finite = sorted((one for one in trials if one["mean"] is not None), key=lambda one: one["mean"])
    best, following = finite[0], finite[1:2]
    preset = preset_of(_settings(SEARCHED[name].method))
    held = (preset.learning_rate_small, preset.schedule, preset.max_grad_norm)
    default = next((one for one in trials if _setting(one) == held), None)
    return (
        f"`{name}`",
        _words(best),
        _loss(best),
        *((_words(following[0]), _loss(following[0])) if following else ("", "")),
        "the best" if default is best else "not tried" if default is None else _loss(default),
        str(len(trials)),
    )


def _setting(trial: dict[str, Any]) -> tuple[float, str, float | None]:
    return trial["learning_rate"], trial["schedule"], trial["max_grad_norm"]


def _words(trial: dict[str, Any]) -> str:
    rate, schedule, clip = _setting(trial)
    return f"{short_rate(rate)}, {schedule}, {'no clip' if clip is None else f'clip {clip:g}'}"


def _loss(trial: dict[str, Any]) -> str:
    return "diverged" if trial["mean"] is None else f"{trial['mean']:.3f}"


def bf16_table() -> str:
    """How far LOMO and AdaLomo get with weights in 16 bits, by how they are rounded."""
    found = result("bf16_rounding_cpu")
    cells = [
        (
            f"`{row['method']}`",
            "the preset's" if row["rate"] is None else short_rate(row["rate"]),
            f"{row['percent']['bfloat16 stochastic']:.1f} %",
            f"{row['percent']['bfloat16 nearest']:.1f} %",
        )
        for row in found["rows"]
    ]
    samples = " and ".join(f"`{sample}`" for sample in found["samples"])
    return (
        f"{table(('method', 'rate', 'stochastic', 'nearest'), cells)}\n\n"
        f"Share of the loss drop of float32 after 60 steps on {samples}, {found['seeds']} seeds, "
        f"{measured_on(found)}."
    )


def step_table() -> str:
    """Step times beside torch's AdamW, and those of other packages that do the same."""
    found = result("step_time_cpu")
    names = ("lomo", "lomo clipped", "adalomo", "lomo bf16", "adalomo bf16", "lora", "qlora")
    others = {
        "lomo": "lomo-optim",
        "lomo clipped": "lomo-optim clipped",
        "qlora": "peft bitsandbytes",
    }
    cells = [
        (
            f"`{name}`",
            f"{found['ratio'][name]:.2f}",
            f"{found['ratio'][others[name]]:.2f}, {others[name]}" if name in others else "",
        )
        for name in names
    ]
    return (
        f"{table(('method', 'times AdamW', 'another package'), cells)}\n\n"
        f"A step of {found['tokens']} tokens on a Llama of "
        f"{found['num_parameters'] / 1e6:.1f} million weights beside torch's fused AdamW in "
        f"float32, in turns, median of {found['rounds']}, {measured_on(found)}. Weights in float32 "
        "where the name does not say bf16, as `auto` has it on a CPU."
    )
