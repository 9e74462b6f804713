"""The spec: what to do. Frozen, validated, one YAML or JSON file."""

from __future__ import annotations

import codecs
from typing import Any, Literal

from pydantic import Field, model_validator

from engine.contract.frozen import Frozen, field_errors
from engine.contract.method_settings import AdaLomoSettings, LomoSettings, MethodSettings

Schedule = Literal["constant", "linear", "cosine"]
DataFormat = Literal["auto", "messages", "instruction", "completion", "qa", "preference", "text"]
# What a column can be to a chat. `messages` and `text` hold all of it, the others parts.
ColumnRole = Literal["messages", "system", "history", "prompt", "input", "reply", "text"]
# How names of hosts and texts of programs are written.
_NO_ENCODINGS_OF_FILES = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"}


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
        description="A bundled sample, a file on this computer, or a hub id.",
    )
    format: DataFormat | Literal["sharegpt"] = Field(
        default="auto",
        description="How a row holds its words; auto finds out from the content. preference learns "
        "the chosen replies only.",
    )
    columns: dict[ColumnRole, str] | None = Field(
        default=None,
        description="Which column is what, such as prompt: Question; found out if left out.",
    )
    encoding: str | None = Field(
        default=None,
        max_length=40,
        description="Encoding of a text file, such as cp1250 or shift_jis; found out if left out.",
    )
    config: str | None = Field(default=None, description="Which part of a hub dataset.")
    split: str | None = Field(
        default=None, description="Which split of a hub dataset; train if left out."
    )
    revision: str | None = Field(
        default=None, description="Commit of a hub dataset; filled in when the run is created."
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

    @model_validator(mode="after")
    def _known_encoding(self) -> DataSpec:
        if self.encoding is not None and not _is_text_encoding(self.encoding):
            raise field_errors(
                (
                    "data.encoding",
                    f"{self.encoding!r} is no encoding of text known here; use a name such as "
                    "utf-8, cp1250, cp1251, shift_jis or gbk, or leave it out.",
                )
            )
        return self


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
    batching: Literal["grouped", "shuffled", "packed"] = Field(
        default="grouped",
        description="Grouped batches chats of like length, so that little is padding; packed puts "
        "several chats into one row, each on its own; shuffled does neither.",
    )
    learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="Size of an update; the method's preset if left out."
    )
    schedule: Schedule | None = Field(
        default=None,
        description="How the learning rate falls over the run; the method's preset if left out.",
    )
    warmup_steps: int | None = Field(
        default=None, ge=0, description="Steps over which the learning rate rises."
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="Pull of weights to zero.")
    max_grad_norm: float | None = Field(
        default=None,
        gt=0,
        description="Clip the gradient to this length; null never, left out the method's preset.",
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
        mistakes: list[tuple[str, str]] = []
        if isinstance(self.method, LomoSettings | AdaLomoSettings):
            mistakes = _what_a_fused_step_cannot(self.train, self.method)
        elif self.method.kind == "qft" and self.method.gradients == "fused":
            mistakes = _what_fused_gradients_cannot(self.train)
        if mistakes:
            raise field_errors(*mistakes)
        return self

    def as_json(self) -> dict[str, Any]:
        """What `spec.json` holds."""
        return self.model_dump(mode="json")


def _is_text_encoding(name: str) -> bool:
    """Whether a name means an encoding that a file of text can be in."""
    try:
        "a".encode(name)  # codecs that make bytes of bytes are refused here, unlike by a look-up
        return codecs.lookup(name).name not in _NO_ENCODINGS_OF_FILES
    except (LookupError, ValueError):
        return False


def _what_fused_gradients_cannot(train: TrainSpec) -> list[tuple[str, str]]:
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
    return mistakes


def _what_a_fused_step_cannot(
    train: TrainSpec, method: LomoSettings | AdaLomoSettings
) -> list[tuple[str, str]]:
    mistakes: list[tuple[str, str]] = []
    if train.grad_accumulation != 1:
        mistakes.append(
            (
                "train.grad_accumulation",
                f"{method.kind} moves each weight during the backward pass, so there is no "
                "gradient to add up; use grad_accumulation 1 and more steps.",
            )
        )
    if train.max_grad_norm is not None and method.clip != "two_pass_norm":
        mistakes.append(
            (
                "train.max_grad_norm",
                "the gradient's length is only known after a backward pass of its own; leave "
                "max_grad_norm out, or use clip two_pass_norm.",
            )
        )
    return mistakes
