"""A run's own export, which others are made from: checked to be whole, merged where it must be.

All of it is done in main memory: an export needs no GPU, so none is locked for it.
"""

from __future__ import annotations

import gc
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.contract.durable import read_json
from engine.contract.errors import RequestError
from engine.contract.model_source import (
    ADAPTER_CONFIG,
    check_model_folder,
    is_adapter_folder,
    read_header,
    resolve_model,
)
from engine.contract.paths import is_file
from engine.contract.run_dir import RunDir
from engine.exports.merge_check import compute_as_trained, logits_on_prompts, merge_error
from engine.exports.model_card import MergeError

FIELD = "RUN"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class ResultFolder:
    """The export of a run, or what its export would be at a checkpoint.

    Attributes:
        is_adapter: It is an adapter beside a base, not a model of its own.
        step: Of the checkpoint; None for the run's result.
    """

    run: RunDir
    folder: Path
    is_adapter: bool
    step: int | None = None

    @property
    def name(self) -> str:
        """What it is called by those it is handed on to."""
        return self.run.name if self.step is None else f"{self.run.name}-step-{self.step}"

    @property
    def file_bytes(self) -> int:
        """What its files take."""
        return sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file())


def result_of(run: RunDir) -> ResultFolder:
    """The export of a run, checked to be whole.

    Raises:
        RequestError: There is none, or part of it is missing or damaged.
    """
    folder = run.export
    if not run.has_export:
        what = "has no result yet" if not folder.exists() else "has a result that is not whole"
        raise RequestError(FIELD, f"{run.name} {what}.", "Let it finish, or resume it.")
    try:
        if is_adapter_folder(folder):
            _check_adapter(folder)
            return ResultFolder(run, folder, is_adapter=True)
        check_model_folder(folder)
        _check_shards(folder)
    except RequestError as error:
        raise RequestError(
            FIELD, f"the result of {run.name} is not whole: {error.message}", "Resume the run."
        ) from error
    return ResultFolder(run, folder, is_adapter=False)


def _check_adapter(folder: Path) -> None:
    from engine.adapter_folder import WEIGHTS  # only here: PEFT takes two seconds to import

    if read_json(folder / ADAPTER_CONFIG) is None:
        raise RequestError(FIELD, f"{folder / ADAPTER_CONFIG} is damaged.")
    if not is_file(folder / WEIGHTS):
        raise RequestError(FIELD, f"{folder} has no {WEIGHTS}.")
    read_header(folder / WEIGHTS)


def _check_shards(folder: Path) -> None:
    if not is_file(folder / _INDEX):
        return
    document = read_json(folder / _INDEX) or {}
    files = set(document.get("weight_map", {}).values())
    missing = sorted(name for name in files if not is_file(folder / str(name)))
    if missing or not files:
        raise RequestError(FIELD, f"{folder} lacks {missing[0] if missing else _INDEX}.")


def copy_files(folder: Path, draft: Path) -> None:
    """Copy a folder's files, a block at a time."""
    for file in sorted(folder.iterdir()):
        if file.is_file():
            shutil.copyfile(file, draft / file.name)


def merged_bytes(result: ResultFolder) -> int:
    """What the merged model will take: its base in bfloat16.

    Raises:
        RequestError: The base cannot be had.
    """
    from engine.model import fetch_model

    model = result.run.spec().model
    base = fetch_model(resolve_model(model.source), model.revision)
    shapes = [
        shape for file in base.glob("*.safetensors") for _, shape in read_header(file).values()
    ]
    return sum(2 * torch.Size(shape).numel() for shape in shapes)


def write_merged(result: ResultFolder, draft: Path) -> MergeError:
    """Write base and adapter as one model in bfloat16, and measure what that changed.

    Base and merged model are in memory one after the other, never together.

    Raises:
        RequestError: Base or adapter cannot be had, or do not fit.
        OSError: The disk is full or failing.
    """
    from engine.adapter_folder import load_adapter
    from engine.adapters import merged_weights
    from engine.export import write_model
    from engine.model import load_model

    device = torch.device("cpu")
    loaded = load_adapter(result.folder, device)
    apart = logits_on_prompts(loaded.model, loaded.tokenizer)
    with torch.no_grad():
        write_model(draft, loaded, merged_weights(loaded.model), torch.bfloat16)
    loaded.tokenizer.save_pretrained(draft)
    assert "quantization_config" not in json.loads((draft / "config.json").read_text())
    del loaded
    gc.collect()
    merged = load_model(draft)
    compute_as_trained(merged.model)
    return merge_error(apart, logits_on_prompts(merged.model, merged.tokenizer))
