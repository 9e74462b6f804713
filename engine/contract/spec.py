"""The spec: what to do. Frozen, validated, one YAML or JSON file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MethodKind = Literal["qft", "full"]
METHOD_KINDS: tuple[MethodKind, ...] = get_args(MethodKind)
Schedule = Literal["constant", "linear", "cosine"]


class Frozen(BaseModel):
    """Unknown keys, wrong types, NaN and later changes are all refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelSpec(Frozen):
    """Which model to start from."""

    source: str = Field(
        min_length=1,
        max_length=4096,
        description="starter, a catalogue name, a folder on this computer, or a hub id.",
    )
    revision: str | None = Field(
        default=None, description="Commit of a hub model; filled in when the run is created."
    )


class DataSpec(Frozen):
    """Which conversations to learn from."""

    source: str = Field(
        min_length=1,
        max_length=4096,
        description="A bundled sample or a .json or .jsonl file on this computer.",
    )
    format: Literal["auto", "messages", "sharegpt", "instruction"] = Field(
        default="auto", description="How a row holds its turns; auto finds out from the content."
    )
    eval_percent: float = Field(
        default=10.0, ge=0, le=50, description="Share of rows kept apart to measure progress."
    )
    max_rows: int | None = Field(default=None, ge=1, description="Use only the first rows.")
    train_on: Literal["replies", "all"] = Field(
        default="replies", description="Learn the replies only, or every word of the chat."
    )
    sha256: str | None = Field(
        default=None, description="Of the file; filled in when the run is created."
    )


QftPreset = Literal["balanced", "lean", "quality", "paper"]
# What a preset sets where the person did not; `balanced` is the fields' own defaults.
QFT_PRESETS: dict[QftPreset, dict[str, Any]] = {
    "balanced": {},
    "lean": {"residual_bits": 0, "moment_bits": 4},
    "quality": {"residual_bits": 4},
    "paper": {
        "rounding": "nearest",
        "residual_bits": 0,
        "outlier_percent": 1.0,
        "gradients": "stack",
        "scale_group": 32,
        "quantize": "all",
    },
}


class QftSettings(Frozen):
    """Quantized full-parameter tuning: every weight is trained and kept in 8 bits."""

    kind: Literal["qft"] = "qft"
    preset: QftPreset = Field(
        default="balanced",
        description="Sets the settings below that are left out. Balanced trains nearly as "
        "float32 does; lean takes least memory; quality keeps more of each update; paper is the "
        "published algorithm.",
    )
    update: Literal["lion", "adamw"] = Field(
        default="lion",
        description="Lion keeps one moment and moves every weight equally far; AdamW keeps two.",
    )
    rounding: Literal["stochastic", "nearest"] = Field(
        default="stochastic",
        description="Stochastic keeps small updates on average; nearest loses most of them.",
    )
    residual_bits: Literal[0, 1, 4, 8] = Field(
        default=1,
        description="Bits kept of what an 8-bit code cannot hold, so that less of an update is "
        "random.",
    )
    outlier_percent: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Share of the largest weights kept in float32, 6 bytes each.",
    )
    gradients: Literal["fused", "stack"] = Field(
        default="fused",
        description="Fused updates a weight as soon as its gradient is known; stack keeps all "
        "gradients in 8 bits, for clipping and accumulation.",
    )
    scale_group: Literal["row", 32, 64, 128] = Field(
        default="row", description="Weights that share one quantization scale."
    )
    moment_bits: Literal[8, 4] = Field(
        default=8, description="Bits of an optimizer moment; 4 is leaner and less exact."
    )
    matmul: Literal["dequantize", "int8"] = Field(
        default="dequantize",
        description="Int8 multiplies 8-bit activations and weights: faster on some hardware, "
        "less exact.",
    )
    quantize: Literal["linear", "all"] = Field(
        default="linear",
        description="Which weights become codes: those of linear layers, or embeddings, head, "
        "norms and biases too.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = cast("dict[str, Any]", value)
        filling: dict[str, Any] = {}
        for name, settings in QFT_PRESETS.items():
            if name == given.get("preset"):  # an unknown one is refused by its own field
                filling = settings
        return {**filling, **given}

    @model_validator(mode="after")
    def _what_int8_matmul_needs(self) -> QftSettings:
        if self.matmul == "int8" and (self.scale_group != "row" or self.outlier_percent):
            raise field_errors(
                (
                    "method.matmul",
                    "int8 products need one scale per row and no weights in float32 among them; "
                    "use dequantize, or scale_group row and outlier_percent 0.",
                )
            )
        return self

    @property
    def follows_preset(self) -> bool:
        """Whether every setting is the preset's own."""
        return self == QftSettings.model_validate({"preset": self.preset})


class FullSettings(Frozen):
    """Full tuning with AdamW in 32 bits: the yardstick."""

    kind: Literal["full"] = "full"


MethodSettings = Annotated[QftSettings | FullSettings, Field(discriminator="kind")]


class TrainSpec(Frozen):
    """How long, how fast, how much at once. What is left out, the method's preset fills."""

    steps: int | None = Field(default=None, ge=1, le=10_000_000, description="Number of updates.")
    epochs: float | None = Field(
        default=None, gt=0, le=10_000, description="Passes over the data, instead of steps."
    )
    batch_size: int = Field(default=8, ge=1, le=4096, description="Conversations per update.")
    grad_accumulation: int = Field(
        default=1, ge=1, le=4096, description="Batches whose gradients make one update."
    )
    sequence_length: int = Field(
        default=256, ge=8, le=1_048_576, description="Longest conversation, in tokens."
    )
    learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="Size of an update; the method's preset if left out."
    )
    schedule: Schedule = Field(
        default="cosine", description="How the learning rate falls over the run."
    )
    warmup_steps: int | None = Field(
        default=None, ge=0, description="Steps over which the learning rate rises."
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="Pull of weights to zero.")
    max_grad_norm: float | None = Field(
        default=None, gt=0, description="Clip the gradient to this length."
    )
    activation_checkpointing: Literal["auto"] | bool = Field(
        default="auto", description="Recompute activations to save memory; auto decides."
    )
    checkpoint_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")
    eval_every: int = Field(default=20, ge=1, description="Steps between held-out measurements.")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Same seed, same run.")
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda|cuda:\d{1,2}|mps)$", description="Where to train."
    )

    @model_validator(mode="after")
    def _one_length(self) -> TrainSpec:
        if self.steps is not None and self.epochs is not None:
            raise field_errors(
                ("train.epochs", "steps and epochs were both given; keep one of them.")
            )
        return self


class RunSpec(Frozen):
    """One run. Lengths are in tokens, sizes in conversations."""

    model: ModelSpec
    data: DataSpec
    method: MethodSettings
    train: TrainSpec = TrainSpec()

    @model_validator(mode="after")
    def _what_the_method_can(self) -> RunSpec:
        if self.method.kind == "qft" and self.method.gradients == "fused":
            _refuse_for_fused_updates(self.train)
        return self

    def as_json(self) -> dict[str, Any]:
        """What `spec.json` holds."""
        return self.model_dump(mode="json")


def field_errors(*mistakes: tuple[str, str]) -> PydanticCustomError:
    """Mistakes that several fields make together, each reported at one of them.

    Args:
        *mistakes: Field and message; in the message `; ` stands between cause and way out.
    """
    words = " ".join(f"{field}: {message}" for field, message in mistakes)
    return PydanticCustomError("request", "{words}", {"mistakes": mistakes, "words": words})


def _refuse_for_fused_updates(train: TrainSpec) -> None:
    mistakes: list[tuple[str, str]] = []
    if train.grad_accumulation != 1:
        mistakes.append(
            (
                "train.grad_accumulation",
                "fused updates move each weight during the backward pass, so there is no gradient "
                "to add up; use grad_accumulation 1, or gradients stack.",
            )
        )
    if train.max_grad_norm is not None:
        mistakes.append(
            (
                "train.max_grad_norm",
                "fused updates move each weight before the whole gradient's length is known; "
                "leave max_grad_norm out, or use gradients stack.",
            )
        )
    if mistakes:
        raise field_errors(*mistakes)
