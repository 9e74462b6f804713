"""`export`: whole or absent, in forms that other programs load, with a card beside it."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.adapter_folder import load_adapter
from engine.commands.parser import main
from engine.contract.model_source import check_model_folder
from engine.contract.run_dir import RunDir
from engine.data.chat import DEFAULT_TEMPLATE, ChatEncoder
from engine.exports.end_of_turn import turn_end_tokens
from engine.exports.merge_check import PROMPTS
from engine.exports.shards import write_shards
from tests.exported import exported_run, trained_run
from tests.tiny import CONTEXT, TURN_END, chat_rows, scores, tiny_model_folder, tiny_tokenizer
from tests.workshop import tree

CPU = torch.device("cpu")
Say = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, chats_file: Path) -> dict[str, RunDir]:
    """One run of each kind of result; tests only read them."""
    folder = tmp_path_factory.mktemp("runs")
    base = tiny_model_folder(folder / "base", hidden_size=64, intermediate_size=128)
    return {
        method: exported_run(folder / "runs", method, base, chats_file, method)[0]
        for method in ("full", "qlora")
    }


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def command(run: RunDir | Path, to: str, out: Path, *more: str, code: int = 0) -> Any:
        capsys.readouterr()
        path = run.path if isinstance(run, RunDir) else run
        assert main(["export", str(path), "--to", to, "--out", str(out), *more]) == code
        said = capsys.readouterr()
        return said.out, said.err

    return command


def test_a_whole_model_is_the_run_s_own_result(
    runs: dict[str, RunDir], say: Say, tmp_path: Path
) -> None:
    before = tree(runs["full"].path)
    out = tmp_path / "my model"
    report = json.loads(say(runs["full"], "hf", out, "--json")[0])
    assert {"out", "to", "files", "total_bytes", "merge", "notes"} == report.keys()
    assert (report["out"], report["to"], report["merge"]) == (str(out), "hf", None)
    assert report["files"] == {file.name: file.stat().st_size for file in out.iterdir()}
    assert report["total_bytes"] == sum(report["files"].values())
    check_model_folder(out)
    ours, theirs = (load_file(f / "model.safetensors") for f in (runs["full"].export, out))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert tree(runs["full"].path) == before
    modes = {file.stat().st_mode & 0o777 for file in out.iterdir()}
    (tmp_path / "usual").touch()
    assert modes == {(tmp_path / "usual").stat().st_mode & 0o777}


def test_a_merged_model_is_what_base_and_adapter_are(
    runs: dict[str, RunDir], say: Say, tmp_path: Path
) -> None:
    run, out = runs["qlora"], tmp_path / "merged"
    report = json.loads(say(run, "hf", out, "--json")[0])
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {
        torch.bfloat16
    }
    apart = load_adapter(run.export, CPU)
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, local_files_only=True)
    encoder = ChatEncoder(apart.tokenizer, CONTEXT, train_on="replies")
    largest, scale = 0.0, 0.0
    for prompt in PROMPTS:
        tokens = torch.tensor([encoder.prompt_tokens([{"role": "user", "content": prompt}])])
        with torch.no_grad():
            one, other = (model(input_ids=tokens).logits for model in (apart.model, plain))
        largest = max(largest, float((one - other).abs().max()))
        scale = max(scale, float(one.abs().max()))
    assert report["merge"]["largest_difference"] == pytest.approx(largest, rel=1e-3)
    assert report["merge"]["largest_logit"] == pytest.approx(scale, rel=1e-3)
    assert 0 < largest < 0.03 * scale
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"at most {largest:.2g}" in card
    assert report["notes"] == [note for note in report["notes"] if note in card]


def test_the_adapter_is_loaded_by_plain_peft(
    runs: dict[str, RunDir], say: Say, tmp_path: Path
) -> None:
    run, out = runs["qlora"], tmp_path / "adapter"
    say(run, "adapter", out)
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == run.spec().model.source
    assert "revision" in config
    base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"]).float()
    bare = scores(base, some_batch())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        adapted = scores(PeftModel.from_pretrained(base, out), some_batch())
    assert float((bare - adapted).abs().max()) > 0.01
    adapted_to = load_adapter(run.export, CPU)
    assert float((scores(adapted_to.model, some_batch()) - adapted).norm() / adapted.norm()) < 0.3
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "library_name: peft" in card
    assert "quantization_config.json" in card


def some_batch() -> Any:
    tokens = torch.arange(20, 60)[None]
    return SimpleNamespace(input_ids=tokens, attention_mask=torch.ones_like(tokens))


def test_the_card_tells_what_happened_and_nothing_of_the_data_s_text(
    tiny_folder: Callable[[str], Path], chats_file: Path, say: Say, tmp_path: Path
) -> None:
    """In the run's own result, written before the run has ended, and in what is exported later."""
    run, trainer = trained_run(tmp_path / "runs", "one", tiny_folder("llama"), chats_file)
    say(run, "hf", tmp_path / "out")
    for folder in (run.export, tmp_path / "out"):
        card = text(folder / "README.md")
        assert f"{trainer.progress.eval_loss_before:.4f} before" in card
        assert f"{trainer.eval_loss_last:.4f} after at step 3" in card
        assert f"last training step: {trainer.train_loss_last:.4f}" in card
        assert "- Rows: 24," in card
        assert f"SHA-256: {run.spec().data.sha256}" in card
        assert "CPU cores" in card
        assert "Source: chats.jsonl" in card
        assert str(tmp_path) not in card
        assert str(chats_file.parent) not in card
        assert '"steps": 3' in card
        for row in chat_rows(24):
            assert not [one for one in row["messages"] if one["content"] in card]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_licence_of_the_base_goes_along(chats_file: Path, say: Say, tmp_path: Path) -> None:
    base = tiny_model_folder(tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: mit\n---\n# It\nlicense: gpl\n", "utf-8")
    run, _ = exported_run(tmp_path / "runs", "one", base, chats_file, "full")
    shutil.rmtree(base)
    base.mkdir()  # gone since
    say(run, "hf", tmp_path / "out")
    card = text(tmp_path / "out" / "README.md")
    assert "license: mit\n" in card
    assert "The base's licence, mit, goes on to apply." in card


def test_replies_end_where_the_template_ends_them(
    chats_file: Path, say: Say, tmp_path: Path
) -> None:
    """Many base models name another token as their end."""
    base = tiny_model_folder(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(base)
    for name in ("config.json", "generation_config.json"):
        document = json.loads(text(base / name))
        document["eos_token_id"] = tokenizer.eos_token_id
        (base / name).write_text(json.dumps(document), encoding="utf-8")
    run, _ = exported_run(tmp_path / "runs", "one", base, chats_file, "full")
    turn_end = tokenizer.convert_tokens_to_ids(TURN_END)
    say(run, "hf", tmp_path / "out")
    for folder in (run.export, tmp_path / "out"):
        settings = json.loads(text(folder / "generation_config.json"))
        assert settings["eos_token_id"] == sorted([tokenizer.eos_token_id, turn_end])


def test_the_end_of_a_turn_is_found() -> None:
    tokenizer = tiny_tokenizer()
    end = tokenizer.get_vocab()[TURN_END]
    assert turn_end_tokens(tokenizer) == {end}
    tokenizer.chat_template = DEFAULT_TEMPLATE
    assert turn_end_tokens(tokenizer) == {end}
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    )
    assert turn_end_tokens(tokenizer) == set()


def test_weights_in_several_files_are_those_in_one(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tiny_folder("llama")
    weights = load_file(folder / "model.safetensors")
    several = shutil.copytree(folder, tmp_path / "several")
    (several / "model.safetensors").unlink()
    total = write_shards(several, weights.items(), shard_bytes=30_000)
    files = sorted(several.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert total == sum(tensor.nbytes for tensor in weights.values())
    largest = max(tensor.nbytes for tensor in weights.values())
    assert all(file.stat().st_size < max(30_000, largest) + 4096 for file in files)
    again = AutoModelForCausalLM.from_pretrained(several, local_files_only=True).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
