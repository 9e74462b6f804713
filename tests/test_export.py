"""The result loads with transformers alone and is the model that was trained."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.contract.method_settings import METHOD_KINDS
from engine.contract.model_source import check_model_folder
from engine.contract.run_dir import RunDir
from engine.data.chat import DEFAULT_TEMPLATE
from engine.export import export_model
from engine.generate import Sampling, reply_to
from engine.preparation import Prepared
from tests.tiny import (
    ARCHITECTURES,
    before_call,
    float_twin,
    in_child,
    needs_fork,
    prepared,
    scores,
    tiny_model_folder,
    tiny_spec,
)

# The others' result is an adapter.
WHOLE_MODELS = [kind for kind in METHOD_KINDS if kind not in ("qlora", "lora")]
HELLO = [{"role": "user", "content": "What is Mara number 7 at?"}]


def trained(folder: Path, chats: Path, method: str, tmp_path: Path, steps: int = 2) -> Prepared:
    one = prepared(tiny_spec(folder, chats, method), tmp_path / "runs")
    for step in range(1, steps + 1):
        one.method.step(one.batches(step)[:1], 3e-3, step)
    return one


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    return run


def export(run: RunDir, one: Prepared) -> Path:
    return export_model(run, one.loaded, one.method)


def stored(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("method", WHOLE_MODELS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_export_is_the_trained_model_in_the_original_form(
    tiny_folder: Callable[[str], Path],
    chats_file: Path,
    tmp_path: Path,
    run: RunDir,
    architecture: str,
    method: str,
) -> None:
    original = tiny_folder(architecture)
    one = trained(original, chats_file, method, tmp_path)
    folder = export(run, one)
    assert folder == run.export
    form = {name: (t.dtype, t.shape) for name, t in stored(original).items()}
    assert {name: (t.dtype, t.shape) for name, t in stored(folder).items()} == form
    check_model_folder(folder)

    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert loaded.dtype == torch.bfloat16
    assert type(loaded.config).model_type == architecture
    batch = one.batches(1)[0]
    found, expected = scores(loaded.float(), batch), scores(one.loaded.model, batch)
    twin = float_twin(one)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(parameter.bfloat16())
    rounded = scores(twin, batch)
    assert torch.allclose(found, rounded, atol=1e-5 * float(expected.abs().max()))
    # In a mixture the last bits of a bfloat16 may send a token to another expert.
    apart = (found - expected).abs().amax(dim=-1)
    share = 0.98 if architecture == "mixtral" else 1.0
    assert float((apart < 0.02 * expected.abs().max()).double().mean()) >= share
    untrained = AutoModelForCausalLM.from_pretrained(original, local_files_only=True).float()
    moved = float((scores(untrained, batch) - expected).abs().max())
    assert moved > 5 * float((found - expected).abs().max())


@pytest.mark.parametrize("method", WHOLE_MODELS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
def test_an_export_says_word_for_word_the_same(
    chats_file: Path, tmp_path: Path, run: RunDir, architecture: str, method: str
) -> None:
    """In float32 nothing is rounded, so every word is the same."""
    original = tiny_model_folder(tmp_path / "model", architecture, dtype=torch.float32)
    one = trained(original, chats_file, method, tmp_path, steps=12)
    folder = export(run, one)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    batch = one.batches(1)[0]
    assert torch.equal(scores(model, batch), scores(one.loaded.model, batch))
    sampling = Sampling(max_new_tokens=24)
    said = reply_to(model, tokenizer, HELLO, sampling).text
    assert said == reply_to(one.loaded.model, one.loaded.tokenizer, HELLO, sampling).text
    assert said
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == (architecture != "llama")
    assert ("lm_head.weight" in stored(folder)) != tied


def test_an_export_carries_tokenizer_template_and_settings(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path, run: RunDir
) -> None:
    original = tiny_folder("llama")
    folder = export(run, trained(original, chats_file, "qft", tmp_path, steps=0))
    before, after = AutoTokenizer.from_pretrained(original), AutoTokenizer.from_pretrained(folder)
    assert after.chat_template == before.chat_template
    assert after.get_vocab() == before.get_vocab()
    assert after.special_tokens_map == before.special_tokens_map
    config, old = (json.loads((f / "config.json").read_text()) for f in (folder, original))
    assert config == old
    settings = [json.loads((f / "generation_config.json").read_text()) for f in (folder, original)]
    assert settings[0] == settings[1]


def test_a_template_that_was_added_goes_with_the_result(
    chats_file: Path, tmp_path: Path, run: RunDir
) -> None:
    original = tiny_model_folder(tmp_path / "model")
    (original / "chat_template.jinja").unlink()
    one = trained(original, chats_file, "qft", tmp_path, steps=0)
    assert one.loaded.template_added
    assert AutoTokenizer.from_pretrained(export(run, one)).chat_template == DEFAULT_TEMPLATE


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_an_export_is_stored_as_its_original_even_if_the_config_is_silent(
    chats_file: Path, tmp_path: Path, run: RunDir, dtype: torch.dtype
) -> None:
    original = tiny_model_folder(tmp_path / "model", dtype=dtype)
    config = json.loads((original / "config.json").read_text())
    del config["dtype"]
    (original / "config.json").write_text(json.dumps(config))
    folder = export(run, trained(original, chats_file, "full", tmp_path, steps=0))
    assert {tensor.dtype for tensor in stored(folder).values()} == {dtype}
    assert json.loads((folder / "config.json").read_text())["dtype"] == str(dtype).split(".")[1]


def test_an_export_replaces_the_one_before_and_clears_what_a_killed_engine_left(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path, run: RunDir
) -> None:
    one = trained(tiny_folder("llama"), chats_file, "qft", tmp_path, steps=1)
    first = stored(export(run, one))
    (run.export / "notes.txt").write_text("gone with the old export")
    for age in ("new", "old"):
        (run.path / f".export-{age}-99999999").mkdir()
        (run.path / f".export-{age}-99999999" / "model.safetensors").write_bytes(b"half")
    one.method.step(one.batches(2), 3e-3, 2)
    second = stored(export(run, one))
    assert not torch.equal(first["lm_head.weight"], second["lm_head.weight"])
    assert not (run.export / "notes.txt").exists()
    assert [entry.name for entry in run.path.iterdir()] == ["export"]


def test_a_full_disk_leaves_the_export_before(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path, run: RunDir
) -> None:
    resource = pytest.importorskip("resource")
    one = trained(tiny_folder("llama"), chats_file, "qft", tmp_path, steps=1)
    first = stored(export(run, one))
    one.method.step(one.batches(2), 3e-3, 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as found:
            export(run, one)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.value.errno == errno.EFBIG
    assert [entry.name for entry in run.path.iterdir()] == ["export"]
    again = stored(run.export)
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


def contents(folder: Path) -> dict[str, bytes]:
    """What the files hold; nothing if there is no such folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else {}


@needs_fork
def test_killed_while_it_is_replaced_an_export_is_whole_or_absent(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path, run: RunDir
) -> None:
    one = trained(tiny_folder("llama"), chats_file, "qft", tmp_path, steps=1)
    first = contents(export(run, one))
    one.method.step(one.batches(2), 3e-3, 2)
    seen: list[dict[str, bytes]] = []
    code = -1
    while code:
        shutil.rmtree(run.path)
        run.export.mkdir(parents=True)
        for name, data in first.items():
            (run.export / name).write_bytes(data)

        def work() -> None:
            kill = partial(os.kill, os.getpid(), signal.SIGKILL)
            before_call(len(seen) + 1, kill, {"os.rename", "os.remove", "os.rmdir"})
            export(run, one)

        code = in_child(work)
        assert code in (0, -signal.SIGKILL)
        seen.append(contents(run.export))
    last = seen[-1]
    assert last.keys() == first.keys()
    assert last != first
    assert all(found in ({}, first, last) for found in seen)
    assert seen[0] == first
    assert len(seen) > 5
