"""The spec: what to do. Frozen, validated, one YAML or JSON file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

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


class QftSettings(Frozen):
    """Quantized full-parameter tuning: every weight is trained and kept in 8 bits."""

    kind: Literal["qft"] = "qft"
    rounding: Literal["stochastic", "nearest"] = Field(
        default="stochastic",
        description="Stochastic keeps small updates on average; nearest loses most of them.",
    )


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
        if self.method.kind == "qft":
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
                "qft updates each weight during the backward pass, so there is no gradient to add "
                "up; use grad_accumulation 1 and a larger batch_size.",
            )
        )
    if train.max_grad_norm is not None:
        mistakes.append(
            (
                "train.max_grad_norm",
                "qft updates each weight before the whole gradient's length is known, and its "
                "update has a fixed size anyway; leave max_grad_norm out.",
            )
        )
    if mistakes:
        raise field_errors(*mistakes)
