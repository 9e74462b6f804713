"""An adapter that was read and is on no model yet: from PEFT's folder, or a run's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.adapters import ADAPTER, adapter_config, add_adapter
from engine.contract.durable import read_json
from engine.contract.errors import RequestError
from engine.contract.model_source import ADAPTER_CONFIG, FIELD, read_header, resolve_model
from engine.contract.paths import is_file
from engine.contract.run_dir import RunDir
from engine.four_bit import FourBitFormat
from engine.model import empty_model, fetch_model
from engine.roles import refuse_non_finite

WEIGHTS = "adapter_model.safetensors"
QUANTIZATION = "quantization_config.json"
# PEFT wraps the model twice.
_PREFIX = "base_model.model."
# What decides a plain adapter, and what says nothing about how it computes.
_READ = {"r", "lora_alpha", "target_modules", "fan_in_fan_out", "use_rslora"}
_SILENT = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}


@dataclass(frozen=True)
class AdapterParts:
    """What an adapter is made of.

    Attributes:
        folder: Where it was read.
        base_source: The model that it belongs to, as `model.source` takes it.
        revision: That model's commit on the hub.
        form: How that model's linear layers are kept in 4 bits; None for bfloat16.
        tokenizer: The folder whose tokenizer goes with it; None for the base's.
        config: Its shape, as PEFT says it.
        weights: By their names in PEFT's files, in main memory.
    """

    folder: Path
    base_source: str
    revision: str | None
    form: FourBitFormat | None
    tokenizer: Path | None
    config: LoraConfig
    weights: Mapping[str, Tensor]

    def base_folder(self) -> Path:
        """The folder of the model that it belongs to; a hub model is downloaded.

        Raises:
            RequestError: It cannot be had.
        """
        return fetch_model(resolve_model(self.base_source), self.revision)

    @property
    def num_bytes(self) -> int:
        """Of its matrices on a model, which are in float32."""
        return sum(4 * matrix.numel() for matrix in self.weights.values())

    def put_on(self, model: nn.Module, name: str = ADAPTER) -> None:
        """Put it on its base, as `freeze` leaves that.

        Raises:
            RequestError: It belongs to another model, or holds no finite numbers.
        """
        try:
            trained = add_adapter(model, self.config, seed=0, name=name)
        except ValueError as error:
            raise self._does_not_fit() from error
        expected = {file_name(path, name): matrix for path, matrix in trained.items()}
        shapes = {path: matrix.shape for path, matrix in expected.items()}
        if shapes != {path: tensor.shape for path, tensor in self.weights.items()}:
            raise self._does_not_fit()
        with torch.no_grad():
            for path, matrix in expected.items():
                matrix.copy_(self.weights[path])
                refuse_non_finite(path, matrix)
        model.eval()

    def _does_not_fit(self) -> RequestError:
        return RequestError(
            FIELD,
            f"the adapter in {self.folder} does not fit {self.base_source}.",
            "It belongs to another model.",
        )


def read_adapter(folder: Path) -> AdapterParts:
    """An adapter from a folder as PEFT keeps it.

    Args:
        folder: In a run folder the run's spec says what the base is, elsewhere the adapter does.

    Raises:
        RequestError: It is damaged, or no plain LoRA.
    """
    document = read_json(folder / ADAPTER_CONFIG)
    if document is None:
        raise _damaged(folder / ADAPTER_CONFIG)
    config = _config(folder, document)
    stored = _stored(folder)
    source, revision = _base(folder, document)
    return AdapterParts(folder, source, revision, _form(folder), folder, config, stored)


def read_adapter_checkpoint(run: RunDir, folder: Path) -> AdapterParts:
    """The adapter of a run at one of its checkpoints, without its optimizer's state.

    Args:
        run: Of LoRA or QLoRA.
        folder: Of a checkpoint that was verified.

    Raises:
        RequestError: The model that the run began with cannot be had any more.
    """
    spec = run.spec()
    method, model = spec.method, spec.model
    assert method.kind == "lora" or method.kind == "qlora"
    weights: dict[str, Tensor] = {}
    with safe_open(next(folder.glob("*.safetensors")), framework="pt") as stored:
        for name in stored.keys():  # noqa: SIM118  it is no dictionary
            path, _, part = name.rpartition("/")
            if part == "weight":
                weights[file_name(path)] = stored.get_tensor(name)
    form = None
    if method.kind == "qlora":
        form = FourBitFormat(method.quant_type, method.double_quant)
    base = fetch_model(resolve_model(model.source), model.revision)
    config = adapter_config(empty_model(base), method)
    return AdapterParts(folder, model.source, model.revision, form, None, config, weights)


def file_name(path: str, name: str = ADAPTER) -> str:
    """What PEFT calls a matrix in its files, by its path in the model that has the adapter on."""
    return _PREFIX + path.replace(f".{name}.", ".")


def quantization(form: FourBitFormat) -> dict[str, Any]:
    """How the base is kept, as transformers' `BitsAndBytesConfig` takes it."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": form.quant_type,
        "bnb_4bit_use_double_quant": form.double_quant,
        "bnb_4bit_compute_dtype": "bfloat16",
    }


def _form(folder: Path) -> FourBitFormat | None:
    path = folder / QUANTIZATION
    if not is_file(path):
        return None
    document = read_json(path) or {}
    quant_type = document.get("bnb_4bit_quant_type")
    if quant_type not in ("nf4", "fp4"):
        raise _damaged(path)
    form = FourBitFormat(quant_type, document.get("bnb_4bit_use_double_quant") is True)
    if document != quantization(form):
        raise _damaged(path)
    return form


def _config(folder: Path, document: Mapping[str, Any]) -> LoraConfig:
    """Only what a plain adapter needs is taken over: PEFT's config can name code to import."""
    usual = LoraConfig().to_dict()
    strange = [
        key
        for key, value in document.items()
        if key not in _READ | _SILENT and value and value != usual.get(key)
    ]
    if document.get("peft_type") != "LORA" or strange:
        what = strange[0] if strange else document.get("peft_type")
        raise RequestError(
            FIELD, f"{folder} holds no plain LoRA adapter, but one with {what}.", "Choose another."
        )
    try:
        return LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=int(document["r"]),
            lora_alpha=float(document["lora_alpha"]),  # pyright: ignore[reportArgumentType]
            target_modules=[str(name) for name in document["target_modules"]],
            fan_in_fan_out=document.get("fan_in_fan_out") is True,
            use_rslora=document.get("use_rslora") is True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / ADAPTER_CONFIG) from error


def _stored(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not is_file(path):
        raise RequestError(
            FIELD, f"{folder} has no {WEIGHTS}.", "An adapter is loaded from safetensors only."
        )
    read_header(path)  # refuses a damaged file
    return load_file(path)


def _base(folder: Path, document: Mapping[str, Any]) -> tuple[str, str | None]:
    run = RunDir(folder.parent)
    if folder == run.export and is_file(run.spec_path):
        model = run.spec().model
        return model.source, model.revision
    source = document.get("base_model_name_or_path")
    if not source:
        raise RequestError(
            FIELD,
            f"the adapter in {folder} does not say which model it belongs to.",
            f"Write that model's name or folder as base_model_name_or_path into {ADAPTER_CONFIG}.",
        )
    return str(source), document.get("revision")


def _damaged(path: Path) -> RequestError:
    return RequestError(FIELD, f"{path} is damaged.", "Get it anew.")
