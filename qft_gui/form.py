"""The Setup page's fields: to a spec, and back from mistakes to the field that made them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from engine.contract.errors import RequestError
from engine.contract.spec import MethodKind, QftPreset, QftSettings

OTHER = "__other__"
QFT_FIELDS = tuple(name for name in QftSettings.model_fields if name not in ("kind", "preset"))


@dataclass(frozen=True)
class Form:
    """What the page holds, in the order of its inputs. Defaults are the demo's."""

    kind: MethodKind = "qft"
    preset: QftPreset = "balanced"
    model: str = "starter"
    model_path: str = ""
    data: str = "pirate"
    data_path: str = ""
    update: str = "lion"
    rounding: str = "stochastic"
    residual_bits: int = 1
    outlier_percent: float | None = 0
    gradients: str = "fused"
    scale_group: str | int = "row"
    moment_bits: int = 8
    matmul: str = "dequantize"
    quantize: str = "linear"
    steps: float | None = 60
    batch_size: float | None = 8
    grad_accumulation: float | None = 1
    sequence_length: float | None = 256
    learning_rate: str = ""
    schedule: str = "cosine"
    weight_decay: float | None = 0
    max_grad_norm: str = ""
    eval_percent: float | None = 10
    device: str = "auto"
    seed: float | None = 0
    name: str = ""

    @classmethod
    def of(cls, *values: Any) -> Form:
        """The form from the inputs' values, in order; an emptied text may come as None."""
        cleaned: dict[str, Any] = {}
        for field, value in zip(fields(cls), values, strict=True):
            is_text = isinstance(field.default, str)
            cleaned[field.name] = "" if is_text and value is None else value
        return cls(**cleaned)

    def with_method(self, kind: MethodKind, preset: QftPreset | None) -> Form:
        """The form with another method; a preset brings its own settings into the fields."""
        if preset is None:
            return replace(self, kind=kind)
        return replace(self, kind=kind, preset=preset, **own_settings(preset))

    @property
    def changed(self) -> tuple[str, ...]:
        """The fields of QFT that do not hold what its preset would set."""
        if self.kind != "qft":
            return ()
        own = own_settings(self.preset)
        given = {name: getattr(self, name) for name in QFT_FIELDS}
        return tuple(name for name in QFT_FIELDS if given[name] not in (None, own[name]))

    @property
    def data_source(self) -> str:
        """The dataset that is meant, as the spec names it."""
        return self.data_path.strip() if self.data == OTHER else self.data

    @property
    def run_name(self) -> str | None:
        """The wished name; None leaves it to the engine."""
        return self.name.strip() or None

    def document(self) -> dict[str, Any]:
        """The spec that is asked for; what is left empty, the presets fill."""
        method: dict[str, Any] = {"kind": self.kind}
        if self.kind == "qft":
            method["preset"] = self.preset
            method |= {name: getattr(self, name) for name in self.changed}
        train = {
            "steps": _whole(self.steps),
            "batch_size": _whole(self.batch_size),
            "grad_accumulation": _whole(self.grad_accumulation),
            "sequence_length": _whole(self.sequence_length),
            "learning_rate": _number(self.learning_rate),
            "schedule": self.schedule,
            "weight_decay": _whole(self.weight_decay),
            "max_grad_norm": _number(self.max_grad_norm),
            "seed": _whole(self.seed),
            "device": self.device,
        }
        data = {"source": self.data_source, "eval_percent": _whole(self.eval_percent)}
        return {
            "model": {"source": self.model_path.strip() if self.model == OTHER else self.model},
            "data": {key: value for key, value in data.items() if value is not None},
            "method": method,
            "train": {key: value for key, value in train.items() if value is not None},
        }


def field_names() -> tuple[str, ...]:
    """The fields in the order of the page's inputs."""
    return tuple(field.name for field in fields(Form))


def own_settings(preset: QftPreset) -> dict[str, Any]:
    """What a preset of QFT sets, by field."""
    return QftSettings.model_validate({"preset": preset}).model_dump(include=set(QFT_FIELDS))


_PLACES = {
    "train.steps": "steps",
    "train.epochs": "steps",
    "train.batch_size": "batch_size",
    "train.grad_accumulation": "grad_accumulation",
    "train.sequence_length": "sequence_length",
    "train.learning_rate": "learning_rate",
    "train.schedule": "schedule",
    "train.weight_decay": "weight_decay",
    "train.max_grad_norm": "max_grad_norm",
    "train.seed": "seed",
    "train.device": "device",
    "data.eval_percent": "eval_percent",
    "name": "name",
    **{f"method.{name}": name for name in QFT_FIELDS},
}


LABELS = {
    "model": "Model",
    "model_path": "Folder or hub id",
    "data": "Data",
    "data_path": "File",
    "update": "Update",
    "rounding": "Rounding",
    "residual_bits": "Residual",
    "outlier_percent": "Outlier percent",
    "gradients": "Gradients",
    "scale_group": "Scale group",
    "moment_bits": "Moments",
    "matmul": "Matmul",
    "quantize": "Quantize",
    "steps": "Steps",
    "batch_size": "Batch size",
    "grad_accumulation": "Accumulation",
    "sequence_length": "Sequence length",
    "learning_rate": "Learning rate",
    "schedule": "Schedule",
    "weight_decay": "Weight decay",
    "max_grad_norm": "Max gradient norm",
    "eval_percent": "Held-out percent",
    "device": "Device",
    "seed": "Seed",
    "name": "Run name",
}


def place_of(error: RequestError, form: Form) -> str | None:
    """The field that a mistake belongs to; None if it belongs to none."""
    if error.field.startswith("model"):
        return "model_path" if form.model == OTHER else "model"
    if error.field.startswith("data.source") or error.field == "data":
        return "data_path" if form.data == OTHER else "data"
    return _PLACES.get(error.field)


def early_mistakes(form: Form) -> dict[str, str]:
    """What is simply not filled in yet: a request for it, not an error message."""
    missing: dict[str, str] = {}
    if form.model == OTHER and not form.model_path.strip():
        missing["model_path"] = "Name a model folder or a hub id."
    if form.data == OTHER and not form.data_path.strip():
        missing["data_path"] = "Name a file, or upload one."
    return missing


def _whole(value: float | None) -> int | float | None:
    """The browser sends 8 as 8 or 8.0; a spec wants the whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(text: str) -> float | str | None:
    """A number as typed; what is no number stays as it is, for the spec to refuse."""
    plain = text.strip()
    if not plain:
        return None
    try:
        return float(plain.replace(",", "."))
    except ValueError:
        return plain
