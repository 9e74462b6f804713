"""The result of an adapter run is PEFT's own folder, and is answered with wherever a model is."""

from __future__ import annotations

import errno
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from engine.adapter_folder import load_adapter
from engine.checkpoint import Progress, save_checkpoint
from engine.commands.parser import main
from engine.contract.errors import RequestError
from engine.contract.model_source import is_adapter_folder
from engine.contract.run_dir import RunDir
from engine.data.chat import DEFAULT_TEMPLATE
from engine.export import export_model
from engine.generate import Sampling, reply_to
from engine.model import choose_torch_device
from engine.preparation import Prepared
from engine.result import load_result
from engine.xray import ADAPTER_ONLY, xray_run
from qft_gui.chat_client import ChatClient
from tests.tiny import prepared, scores, tiny_model_folder, tiny_spec

CPU = torch.device("cpu")
HELLO = [{"role": "user", "content": "What is Mara number 7 at?"}]
SAMPLING = Sampling(max_new_tokens=24)
QLORA: dict[str, Any] = {"kind": "qlora", "quant_type": "fp4", "double_quant": False}
Result = tuple[RunDir, Prepared]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of at least 64 values: narrower ones no fused kernel takes."""
    path = tmp_path_factory.mktemp("models") / "base"
    return tiny_model_folder(path, hidden_size=64, intermediate_size=128)


def trained(
    folder: Path, chats: Path, method: dict[str, Any], runs: Path, steps: int = 12
) -> Result:
    one = prepared(tiny_spec(folder, chats, {"rank": 8, **method}), runs)
    for step in range(1, steps + 1):
        one.method.step(one.batches(1), 1e-2, step)
    (run,) = (RunDir(path) for path in runs.iterdir())
    export_model(run, one.loaded, one.method)
    return run, one


@pytest.fixture(scope="module", params=["lora", "qlora", "fp4"])
def result(
    request: pytest.FixtureRequest,
    base_folder: Path,
    chats_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Result:
    method = QLORA if request.param == "fp4" else {"kind": request.param}
    return trained(base_folder, chats_file, method, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def lora(base_folder: Path, chats_file: Path, tmp_path: Path) -> Result:
    """For tests that spoil it."""
    return trained(base_folder, chats_file, {"kind": "lora"}, tmp_path / "runs", steps=2)


def four_bits(one: Prepared) -> bool:
    return one.spec.method.kind == "qlora"


def plain(folder: Path, dtype: torch.dtype) -> Any:
    """As anyone loads it who has transformers, PEFT and bitsandbytes, and no code of ours."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    settings: dict[str, Any] = {"dtype": dtype}
    quantization = folder / "quantization_config.json"
    if quantization.is_file():
        document = json.loads(quantization.read_text(encoding="utf-8"))
        settings["quantization_config"] = BitsAndBytesConfig(**document)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        base = AutoModelForCausalLM.from_pretrained(
            config["base_model_name_or_path"], revision=config["revision"], **settings
        )
        return PeftModel.from_pretrained(base, folder)


def test_plain_peft_loads_it_and_says_the_same(result: Result) -> None:
    run, one = result
    batch = one.batches(1)[0]
    expected = scores(one.loaded.model, batch)
    found = scores(plain(run.export, torch.bfloat16), batch)
    # It computes in bfloat16, the run in float32.
    assert float((found - expected).norm() / expected.norm()) < 0.02
    bare = AutoModelForCausalLM.from_pretrained(one.loaded.folder).float()
    assert float((scores(bare, batch) - expected).norm() / expected.norm()) > 0.2
    if not four_bits(one):
        assert torch.equal(scores(plain(run.export, torch.float32), batch), expected)


@pytest.mark.parametrize("architecture", ["qwen3", "phi3", "gpt2", "gpt_neox", "mixtral"])
def test_plain_peft_loads_other_architectures(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path, architecture: str
) -> None:
    run, one = trained(tiny_folder(architecture), chats_file, {"kind": "lora"}, tmp_path / "runs")
    batch = one.batches(1)[0]
    expected = scores(one.loaded.model, batch)
    assert torch.allclose(scores(plain(run.export, torch.float32), batch), expected, atol=1e-5)
    again = load_adapter(run.export, CPU)
    assert torch.equal(scores(again.model, batch), expected)


def test_what_is_in_the_folder(result: Result, base_folder: Path) -> None:
    run, one = result
    config = json.loads((run.export / "adapter_config.json").read_text(encoding="utf-8"))
    assert {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base_folder),
        "r": 8,
        "lora_alpha": 32.0,
        "inference_mode": True,
    }.items() <= config.items()
    weights = load_file(run.export / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert sum(t.numel() for t in weights.values()) == sum(
        weight.numel() for _, weight in one.method.weights()
    )
    assert not list(run.export.glob("*.bin"))
    assert not (run.export / "config.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(run.export)
    assert tokenizer.get_vocab() == one.loaded.tokenizer.get_vocab()
    assert tokenizer.chat_template == one.loaded.tokenizer.chat_template
    assert is_adapter_folder(run.export)
    assert run.has_export
    assert (run.export / "quantization_config.json").is_file() == four_bits(one)


def test_it_is_answered_with_as_it_was_trained(result: Result) -> None:
    run, one = result
    again = load_result(run.export, CPU)
    assert not again.model.training
    batch = one.batches(1)[0]
    assert torch.equal(scores(again.model, batch), scores(one.loaded.model, batch))
    said = reply_to(again.model, again.tokenizer, HELLO, SAMPLING).text
    assert said == reply_to(one.loaded.model.eval(), one.loaded.tokenizer, HELLO, SAMPLING).text
    assert said


def test_ask_answers_with_the_run_and_with_the_folder_elsewhere(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, one = result
    expected = reply_to(one.loaded.model.eval(), one.loaded.tokenizer, HELLO, SAMPLING).text
    copy = shutil.copytree(run.export, tmp_path / "adapter")
    bare = load_result(one.loaded.folder, CPU)
    for target, side in ((run.path, "tuned"), (copy, "tuned"), (run.path, "base")):
        base = ["--base"] if side == "base" else []
        arguments = ["ask", str(target), HELLO[0]["content"], "--max-new-tokens", "24", "--json"]
        assert main([*arguments, *base]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["side"] == side
        if side == "base":
            expected = reply_to(bare.model, bare.tokenizer, HELLO, SAMPLING).text
        assert answer["text"] == expected


def test_the_chat_worker_compares_it_with_its_base(
    base_folder: Path, chats_file: Path, tmp_path: Path
) -> None:
    run, one = trained(base_folder, chats_file, {"kind": "qlora"}, tmp_path / "runs")
    question = {"system": "", "seed": 0, "temperature": 0.0, "max_new_tokens": 24}
    client = ChatClient(tmp_path / "chat.log")
    try:
        compared = client.load(str(one.loaded.folder), str(run.export))
        assert compared["different"]
        assert compared["largest_difference"] > 0.1
        assert (compared["plan"], compared["base_form"]) == ("shared", "4-bit")
        assert compared["proof"]["same_as_recorded"] is True
        events = list(client.ask({"b": HELLO}, **question))
    finally:
        client.close()
    said = "".join(event["text"] for event in events if event["event"] == "text")
    device = choose_torch_device("auto")
    again = load_result(run.export, device)
    assert said == reply_to(again.model, again.tokenizer, HELLO, SAMPLING).text


def test_xray_shows_the_adapter(lora: Result) -> None:
    run, one = lora
    names = {name for name, _ in one.method.weights()}
    seen = xray_run(run, None, lambda what: None)
    assert (seen.step, seen.kinds.keys()) == (None, {"weights", "gradients"})
    run.checkpoints.mkdir(exist_ok=True)
    save_checkpoint(run, 1, Progress(step=2), one.method.state_dict())
    seen = xray_run(run, None, lambda what: None)
    assert (seen.step, list(seen.kinds)) == (
        2,
        ["weights", "gradients", "exp_avg", "exp_avg_sq"],
    )
    assert all(set(views) == names for views in seen.kinds.values())
    assert seen.num_parameters == sum(weight.numel() for _, weight in one.method.weights())
    assert ADAPTER_ONLY in seen.notes


def test_a_full_disk_leaves_the_result_before(lora: Result) -> None:
    resource = pytest.importorskip("resource")
    run, one = lora
    first = (run.export / "adapter_model.safetensors").read_bytes()
    one.method.step(one.batches(2), 1e-2, 3)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as found:
            export_model(run, one.loaded, one.method)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.value.errno == errno.EFBIG
    assert (run.export / "adapter_model.safetensors").read_bytes() == first
    assert not list(run.path.glob(".export-*"))
    export_model(run, one.loaded, one.method)
    assert (run.export / "adapter_model.safetensors").read_bytes() != first


def test_a_template_that_was_added_goes_with_the_result(chats_file: Path, tmp_path: Path) -> None:
    original = tiny_model_folder(tmp_path / "model")
    (original / "chat_template.jinja").unlink()
    run, _ = trained(original, chats_file, {"kind": "lora"}, tmp_path / "runs", steps=1)
    loaded = load_result(run.export, CPU)
    assert loaded.tokenizer.chat_template == DEFAULT_TEMPLATE
    assert not loaded.template_added


def edit_json(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, **changes}), encoding="utf-8")


def only_a_pickle(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "adapter_model.bin")
    weights.unlink()


def cut_short(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def without_a_matrix(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    del weights[min(weights)]
    save_file(weights, folder / "adapter_model.safetensors")


def no_number(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    weights[min(weights)].fill_(float("nan"))
    save_file(weights, folder / "adapter_model.safetensors")


def config_is(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "adapter_config.json", **changes)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (only_a_pickle, "has no adapter_model.safetensors."),
        (cut_short, "is damaged or no safetensors file."),
        (without_a_matrix, "does not fit"),
        (no_number, "holds NaN or infinity"),
        (config_is(r=4), "does not fit"),
        (config_is(target_modules=["c_attn"]), "does not fit"),
        (config_is(target_modules=None), "adapter_config.json is damaged."),
        (config_is(use_dora=True), "but one with use_dora."),
        (config_is(modules_to_save=["lm_head"]), "but one with modules_to_save."),
        (config_is(megatron_config={"a": 1}), "but one with megatron_config."),
        (config_is(peft_type="IA3"), "but one with IA3."),
        (config_is(base_model_name_or_path="/no/such/place"), "called '/no/such/place'."),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "is damaged."),
        (
            lambda folder: (folder / "quantization_config.json").write_text("{}"),
            "quantization_config.json is damaged.",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    lora: Result, tmp_path: Path, spoil: Callable[[Path], Any], sentence: str
) -> None:
    folder = shutil.copytree(lora[0].export, tmp_path / "adapter")
    load_adapter(folder, CPU)
    spoil(folder)
    with pytest.raises(RequestError) as found:
        load_adapter(folder, CPU)
    assert sentence in found.value.message


def test_the_adapter_of_another_model_is_refused(
    lora: Result, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(lora[0].export, tmp_path / "adapter")
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(tiny_folder("gpt2")))
    with pytest.raises(RequestError, match="does not fit"):
        load_adapter(folder, CPU)


def test_a_base_that_must_not_be_loaded_is_refused(
    lora: Result, base_folder: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(base_folder, tmp_path / "base")
    edit_json(base / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    folder = shutil.copytree(lora[0].export, tmp_path / "adapter")
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    with pytest.raises(RequestError, match="wants to run code of its own"):
        load_adapter(folder, CPU)


def test_in_its_run_the_spec_says_what_the_base_is(lora: Result) -> None:
    """A starter that has moved with the app is found all the same."""
    run, one = lora
    edit_json(run.export / "adapter_config.json", base_model_name_or_path="/gone")
    again = load_adapter(run.export, CPU)
    batch = one.batches(1)[0]
    assert torch.equal(scores(again.model, batch), scores(one.loaded.model, batch))
