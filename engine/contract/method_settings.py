"""What each method can be told: one settings class per method, with presets where it has them.

A preset fills the settings that were left out; a setting that was given wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import Field, model_validator

from engine.contract.frozen import Frozen, field_errors

MethodKind = Literal["qft", "qlora", "lora", "lomo", "adalomo", "full"]
METHOD_KINDS: tuple[MethodKind, ...] = get_args(MethodKind)
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
        return _filled(value, QFT_PRESETS)

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


AdapterPreset = Literal["balanced", "paper"]
# QLoRA's hyperparameters for Guanaco (Dettmers et al., 2023, appendix B); dropout is that of the
# small models. What they set of the training itself is in `engine.contract.presets`.
QLORA_PRESETS: dict[AdapterPreset, dict[str, Any]] = {
    "balanced": {},
    "paper": {"rank": 64, "alpha": 16.0, "dropout": 0.1, "optimizer": "paged_adamw"},
}


class _AdapterSettings(Frozen):
    """What QLoRA and LoRA share: low-rank matrices beside frozen ones."""

    rank: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Width of the adapter: more can learn more, and takes more memory.",
    )
    alpha: float = Field(
        default=32.0,
        gt=0,
        le=4096,
        description="Weight of the adapter: alpha over rank multiplies what it adds.",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the adapter's inputs that are left out at random; it takes a third "
        "more memory for activations.",
    )
    targets: str = Field(
        default="all-linear",
        min_length=1,
        max_length=1024,
        description="Which layers get an adapter: all-linear, or names such as q_proj, v_proj.",
    )
    optimizer: Literal["paged_adamw_8bit", "adamw_8bit", "paged_adamw", "adamw"] = Field(
        default="paged_adamw_8bit",
        description="AdamW with its moments in 8 or 32 bits; paged moments move to main memory "
        "where the GPU is full.",
    )


class QloraSettings(_AdapterSettings):
    """QLoRA: the model is frozen in 4 bits, and an adapter beside it learns."""

    kind: Literal["qlora"] = "qlora"
    preset: AdapterPreset = Field(
        default="balanced",
        description="Sets what is left out. Balanced suits a few hundred steps; paper is the "
        "published recipe.",
    )
    quant_type: Literal["nf4", "fp4"] = Field(
        default="nf4", description="The sixteen values of a 4-bit weight; nf4 is more exact."
    )
    double_quant: bool = Field(
        default=True, description="Quantize the scales too: 0.4 bits less per weight."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, value: Any) -> Any:
        return _filled(value, QLORA_PRESETS)


class LoraSettings(_AdapterSettings):
    """LoRA: the model is frozen in 16 bits, and an adapter beside it learns."""

    kind: Literal["lora"] = "lora"


class _FusedSettings(Frozen):
    """What LOMO and AdaLomo share: the update happens inside the backward pass."""

    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="Format of the weights, 2 or 4 bytes each; auto is bf16 on a GPU and fp32 on a "
        "CPU, which computes in that.",
    )
    rounding: Literal["stochastic", "nearest"] = Field(
        default="stochastic",
        description="How a weight in bf16 is rounded; nearest loses small updates.",
    )
    clip: Literal["two_pass_norm", "value", "none"] = Field(
        default="none", description="How a large gradient is cut down."
    )
    clip_value: float = Field(
        default=1.0,
        gt=0,
        description="With clip value: entries of a gradient beyond this are cut down to it.",
    )
    embedding_rate: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="Learning rate of embeddings and head, as a multiple of the others'; 0 "
        "freezes them.",
    )


class LomoSettings(_FusedSettings):
    """LOMO: plain gradient descent on every weight, with one gradient alive at a time."""

    kind: Literal["lomo"] = "lomo"
    clip: Literal["two_pass_norm", "value", "none"] = Field(
        default="two_pass_norm",
        description="By the exact length of the whole gradient (two_pass_norm), which takes a "
        "second backward pass; or each entry by its value.",
    )


class AdaLomoSettings(_FusedSettings):
    """AdaLomo: as LOMO, with a factored second moment and a normalised update per matrix."""

    kind: Literal["adalomo"] = "adalomo"
    clip: Literal["none", "two_pass_norm", "value"] = Field(
        default="none",
        description="Not needed, as each update is normalised; by the exact length of the whole "
        "gradient (two_pass_norm), or each entry by its value.",
    )


class FullSettings(Frozen):
    """Full tuning with a well-known optimizer: the yardstick."""

    kind: Literal["full"] = "full"
    optimizer: Literal["adamw", "adamw_8bit", "lion", "sgd"] = Field(
        default="adamw", description="AdamW keeps two moments, Lion one, SGD none."
    )
    precision: Literal["mixed", "fp32", "bf16"] = Field(
        default="mixed",
        description="Mixed keeps 32-bit weights and computes in 16 bits on a GPU; bf16 keeps "
        "16-bit weights, rounded stochastically.",
    )


MethodSettings = Annotated[
    QftSettings | QloraSettings | LoraSettings | LomoSettings | AdaLomoSettings | FullSettings,
    Field(discriminator="kind"),
]


def _filled(value: Any, presets: Mapping[Any, Mapping[str, Any]]) -> Any:
    """The given settings, and the preset's where none was given."""
    if not isinstance(value, dict):
        return value
    given = cast("dict[str, Any]", value)
    name = given.get("preset")
    if not isinstance(name, str) or name not in presets:
        return given  # the preset's own field refuses an unknown one
    return {**presets[name], **given}
