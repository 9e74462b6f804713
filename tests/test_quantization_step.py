"""The step read off the files is the one that the engine's own arithmetic gives."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.contract.bundled import STARTER
from engine.contract.method_settings import QftSettings
from engine.inspect_model import shape_of
from engine.memory import quantization_step
from engine.memory.catalogue import bundled_shape
from engine.memory.layout import groups_per_row
from engine.memory.model_shape import ModelShape
from engine.memory.quantization_step import median_step
from engine.model import empty_model
from engine.quant.int8 import HEADROOM, LIMIT, scales_of
from tests.tiny import tiny_model_folder

SETTINGS: list[dict[str, Any]] = [
    {},
    {"rounding": "nearest"},
    {"scale_group": 32},
    {"scale_group": 32, "outlier_percent": 1.0},
    {"preset": "paper"},
    {"residual_bits": 4},
    {"residual_bits": 8},
]


def settings_of(given: dict[str, Any]) -> QftSettings:
    return QftSettings.model_validate(given)


def inspected(folder: Path) -> ModelShape:
    return shape_of(empty_model(folder), folder.name)


def matrices(folder: Path, shape: ModelShape) -> list[Tensor]:
    """Every weight that becomes codes, shape (out, in)."""
    transposed = {
        tensor.name: tensor.transposed for tensor in shape.tensors if tensor.role == "linear"
    }
    found: list[Tensor] = []
    for name, parameter in AutoModelForCausalLM.from_pretrained(folder).named_parameters():
        pattern = re.sub(r"\.\d+\.", ".{}.", name)
        if pattern in transposed:
            weight = parameter.detach().float()
            found.append(weight.T if transposed[pattern] else weight)
    return found


def exact_step(folder: Path, shape: ModelShape, settings: QftSettings) -> float:
    """The median over all weights of the scale of their group."""
    headroom = HEADROOM if settings.rounding == "stochastic" else 1.0
    scales: list[Tensor] = []
    for matrix in matrices(folder, shape):
        kept = matrix.clone()
        count = round(matrix.numel() * settings.outlier_percent / 100)
        if count:
            kept.flatten()[matrix.abs().flatten().topk(count).indices] = 0
        groups = groups_per_row(settings.scale_group, matrix.shape[1])
        scale = scales_of(kept.contiguous(), groups, torch.float32, headroom)
        scales.append(scale.repeat_interleave(matrix.shape[1] // groups))
    return float(torch.cat(scales).median()) / 2**settings.residual_bits


def test_its_numbers_are_those_of_the_engine() -> None:
    assert (quantization_step.LIMIT, quantization_step.HEADROOM) == (LIMIT, HEADROOM)


@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_on_the_starter(given: dict[str, Any]) -> None:
    shape = bundled_shape("starter")
    assert shape is not None
    settings = settings_of(given)
    exact = exact_step(STARTER, shape, settings)
    assert median_step(STARTER, shape, settings) == pytest.approx(exact, rel=0.04)


@pytest.mark.parametrize(
    "architecture", ["llama", "qwen3", "gemma2", "phi3", "opt", "gpt2", "gpt_neox", "mixtral"]
)
@pytest.mark.parametrize("given", [{}, {"preset": "paper"}], ids=str)
def test_on_every_kind_of_model(
    tiny_folder: Callable[[str], Path], architecture: str, given: dict[str, Any]
) -> None:
    folder = tiny_folder(architecture)
    shape, settings = inspected(folder), settings_of(given)
    assert any(tensor.transposed for tensor in shape.tensors) == (architecture == "gpt2")
    exact = exact_step(folder, shape, settings)
    assert median_step(folder, shape, settings) == pytest.approx(exact, rel=0.12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_in_every_format(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tiny_model_folder(tmp_path / "model", dtype=dtype)
    shape, settings = inspected(folder), settings_of({})
    exact = exact_step(folder, shape, settings)
    assert median_step(folder, shape, settings) == pytest.approx(exact, rel=0.12)


def test_the_largest_weight_counts_whatever_its_sign(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    shape, file = inspected(folder), folder / "model.safetensors"
    weights = load_file(file)
    for sign in (1, -1):
        one_sign = {name: sign * weight.abs() for name, weight in weights.items()}
        save_file(one_sign, file, {"format": "pt"})
        os.utime(file, ns=(0, 10**18 + sign))
        step = median_step(folder, shape, settings_of({}))
        exact = exact_step(folder, shape, settings_of({}))
        assert step == pytest.approx(exact, rel=0.12)


def test_shards_and_names_without_the_models_part(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    shape = inspected(folder)
    whole = median_step(folder, shape, settings_of({}))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    short = {name.removeprefix("model."): weight for name, weight in weights.items()}
    names = sorted(short)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: short[name] for name in part}, folder / file, {"format": "pt"})
    table = {name: file for file, part in shards.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    assert median_step(folder, shape, settings_of({})) == pytest.approx(whole, rel=0.12)


def spoil_header(file: Path) -> None:
    file.write_bytes(b"\xff" * 64)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5000])


def only_pickles(file: Path) -> None:
    file.rename(file.with_name("pytorch_model.bin"))


def lie_about_size(file: Path) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b"[32,32]", b"[9999999,9999999]")
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


def not_a_number(file: Path) -> None:
    weights = load_file(file)
    save_file({name: weight * float("nan") for name, weight in weights.items()}, file)


def index_that_is_none(file: Path) -> None:
    file.with_name("model.safetensors.index.json").write_text('{"weight_map": [1]}')
    file.unlink()


@pytest.mark.parametrize(
    "damage", [spoil_header, cut_short, only_pickles, not_a_number, index_that_is_none]
)
def test_what_cannot_be_read_has_no_step(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    shape = inspected(folder)
    damage(folder / "model.safetensors")
    assert median_step(folder, shape, settings_of({})) is None


def test_a_size_that_is_a_lie_is_not_believed(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    shape = inspected(folder)
    lie_about_size(folder / "model.safetensors")
    # The other matrices tell; the one with a size beyond all reason is left out.
    assert median_step(folder, shape, settings_of({})) is not None


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    shape, file = inspected(folder), folder / "model.safetensors"
    before = median_step(folder, shape, settings_of({}))
    doubled = {name: 2 * weight for name, weight in load_file(file).items()}
    save_file(doubled, file, {"format": "pt"})
    os.utime(file, ns=(0, 10**18))
    assert before is not None
    assert median_step(folder, shape, settings_of({})) == pytest.approx(2 * before)


def test_a_model_without_codes_has_no_step() -> None:
    shape = bundled_shape("starter")
    assert shape is not None
    without = shape.model_copy(
        update={"tensors": tuple(t for t in shape.tensors if t.role != "linear")}
    )
    assert median_step(STARTER, without, settings_of({})) is None
