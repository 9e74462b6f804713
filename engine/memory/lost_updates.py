"""Will the learning rate move the weights? Said before a run that would train next to nothing.

Rounding to nearest undoes every change under half a quantization step; stochastic rounding keeps
it on average, by moving a code now and then. Lion changes every weight by the learning rate, AdamW
by about as much, so that rate over step decides. The precedent is `check_numerics` of FlashOptim,
which refuses a learning rate that cannot move the largest weight.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from engine.contract.errors import RequestError
from engine.contract.method_settings import AdaLomoSettings, QftSettings
from engine.contract.model_source import ModelReference, read_config, resolve_model
from engine.contract.spec import RunSpec
from engine.memory.catalogue import bundled_shape
from engine.memory.model_shape import ModelShape, read_shape, shape_cache_path
from engine.memory.quantization_step import median_step

# Shares of the median step. At a half, rounding to nearest keeps the updates of the other half of
# the weights; at a tenth, of hardly any.
HALF_A_STEP = 0.5
FAR_BELOW = 0.1
# One update in ten thousand moves a code: a run has fewer steps than that.
HARDLY_EVER = 1e-4
# Of a weight's size, where rounding to nearest begins to lose changes: 8 bits, the largest of which
# says nothing, and half of the last.
BFLOAT16_HALF_STEP = 2.0**-9
# A fifth of what the authors of AdaLomo use for chats.
ADALOMO_SLOW = 1e-4


def lost_updates(spec: RunSpec, shape: ModelShape | None = None) -> str | None:
    """A warning for a run whose updates would be lost, as one sentence.

    Never raises: what is wrong with a request is said by those who check it.

    Args:
        spec: A complete spec.
        shape: The model's shapes, where they are known already.

    Returns:
        None where there is nothing to warn of, or where the model's weights are not here yet.
    """
    if spec.train.learning_rate is None:
        return None
    if isinstance(spec.method, AdaLomoSettings):
        return _warning_of_adalomo(spec.method, spec.train.learning_rate)
    if not isinstance(spec.method, QftSettings):
        return None
    try:
        reference = resolve_model(spec.model.source)
        folder = _local_folder(reference, spec.model.revision)
        shape = shape or (_known_shape(reference, folder) if folder else None)
    except RequestError:
        return None
    if folder is None or shape is None:
        return None
    step = median_step(folder, shape, spec.method)
    return warning_of(spec.method, spec.train.learning_rate, step) if step else None


def warning_of(settings: QftSettings, learning_rate: float, step: float) -> str | None:
    """What a learning rate does to weights that are stored this finely; None if nothing is lost.

    Args:
        settings: How weights are stored and rounded.
        learning_rate: The highest of the run.
        step: The median step that an update is rounded to, in units of the weights.
    """
    share = learning_rate / step
    against = (
        f"The learning rate {_number(learning_rate)} is {_number(share)} of this model's median "
        f"quantization step ({_number(step)})"
    )
    if settings.rounding == "nearest":
        if share >= HALF_A_STEP:
            return None
        lost = "nearly every update" if share < FAR_BELOW else "most updates"
        return (
            f"{against}, and rounding to nearest loses {lost}: "
            "choose rounding stochastic, which keeps them on average."
        )
    if share >= HARDLY_EVER:
        return None
    finer = "" if settings.residual_bits == 8 else " or more residual bits"
    return (
        f"{against}, so that a weight moves about once in {_number(1 / share)} steps: "
        f"a larger learning rate{finer} would teach more."
    )


def _warning_of_adalomo(settings: AdaLomoSettings, learning_rate: float) -> str | None:
    """AdaLomo moves a weight by its learning rate times the weight's own size, as an average."""
    if settings.precision == "bf16" and settings.rounding == "nearest":
        if learning_rate < BFLOAT16_HALF_STEP:
            return (
                f"AdaLomo changes a weight by about {_number(learning_rate)} of its size, half of "
                f"what bf16 can hold is {_number(BFLOAT16_HALF_STEP)}, and rounding to nearest "
                "loses most updates: choose rounding stochastic, which keeps them on average."
            )
        return None
    if learning_rate >= ADALOMO_SLOW:
        return None
    return (
        f"AdaLomo changes a weight by about {_number(learning_rate)} of its size in a step, which "
        "teaches next to nothing: its authors use 5e-4 for chats."
    )


def _local_folder(reference: ModelReference, revision: str | None) -> Path | None:
    """The model's files, if they are on this computer."""
    if reference.folder is not None:
        return reference.folder
    assert reference.hub_id is not None
    for name in ("model.safetensors", "model.safetensors.index.json"):
        try:
            file = try_to_load_from_cache(reference.hub_id, name, revision=revision)
        except ValueError:  # no name that the hub could have
            return None
        if isinstance(file, str):
            return Path(file).parent
    return None


def _known_shape(reference: ModelReference, folder: Path) -> ModelShape | None:
    """Shapes that need no torch: shipped with the app, or kept from an inspection."""
    shipped = bundled_shape(reference.name) if reference.kind != "folder" else None
    return shipped or read_shape(shape_cache_path(read_config(folder)))


def _number(value: float) -> str:
    """Two digits, as people write them.

    >>> _number(0.0004), _number(0.21), _number(0.00194), _number(23456.0)
    ('4e-4', '0.21', '1.9e-3', '23,000')
    """
    if value >= 10:
        return f"{float(f'{value:.1e}'):,.0f}"
    if value >= 0.01:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
