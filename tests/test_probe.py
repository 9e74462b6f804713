"""Trying steps: what is said is measured on the run itself, and nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.commands.parser import main
from engine.contract.launch import PROJECT, engine_environment
from engine.memory.cases import read_cases
from engine.memory.devices import this_computer
from engine.memory.estimate import estimate
from engine.memory.machine_rates import rates_of
from engine.meter import StepPeak
from engine.probe import _typical_steps
from tests.tiny import prepared, tiny_model_folder, tiny_spec
from tests.workshop import tree

KEYS = {
    *("seconds_per_step", "low_seconds", "high_seconds", "steps", "total_seconds"),
    *("low_total_seconds", "high_total_seconds", "measured_peak_bytes", "forecast_bytes"),
    *("error_percent", "parted", "free_bytes", "fits", "notices"),
}


def write_spec(
    folder: Path, model: Path | str, data: Path | str, method: Any, **train: Any
) -> Path:
    path = folder / "spec.json"
    settings = {"kind": method} if isinstance(method, str) else method
    defaults = {"steps": 6, "batch_size": 4, "sequence_length": 96, "device": "cpu"}
    spec = {
        "model": {"source": str(model)},
        "data": {"source": str(data)},
        "method": settings,
        "train": {**defaults, **train},
    }
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


@pytest.mark.parametrize("method", ["qft", "qlora", "lora", "lomo", "adalomo", "full"])
def test_the_peak_is_that_of_the_run_and_nothing_is_left(
    tiny_folder: Callable[[str], Path],
    chats_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    model = tiny_folder("llama")
    spec = write_spec(tmp_path, model, chats_file, method, activation_checkpointing=False)
    before = tree(tmp_path), tree(model)
    assert main(["probe", str(spec), "--json"]) == 0
    said = capsys.readouterr()
    assert (tree(tmp_path), tree(model)) == before
    found = json.loads(said.out)
    assert set(found) == KEYS
    assert 0 < found["low_seconds"] < found["seconds_per_step"] < found["high_seconds"]
    assert found["steps"] == 6
    assert found["total_seconds"] > 6 * found["seconds_per_step"]
    assert found["fits"] is True
    assert found["measured_peak_bytes"] == peak_of_a_run(
        tiny_spec(model, chats_file, method), tmp_path
    )
    error = 100 * (found["forecast_bytes"] / found["measured_peak_bytes"] - 1)
    assert found["error_percent"] == pytest.approx(error, abs=0.01)
    assert found["parted"] is None


def peak_of_a_run(spec: Any, folder: Path) -> int:
    one = prepared(spec, folder / "runs")
    peak = StepPeak(one.device, one.live_tensors, lambda _: None)
    for step in (1, 2):
        with peak.around_step():
            one.method.step(one.batches(step), 1e-4, step)
    assert peak.peak_bytes is not None
    return peak.peak_bytes


def test_a_peak_outside_the_band_is_said(
    tiny_folder: Callable[[str], Path],
    chats_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The forecast is honestly wrong: the data's longest conversation is far longer than told."""
    monkeypatch.setattr("engine.expectation.estimate", of_short_conversations)
    spec = write_spec(tmp_path, tiny_folder("llama"), chats_file, "full", batch_size=20)
    assert main(["probe", str(spec), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parted"].startswith("The tensors of the steps that were tried needed ")
    assert found["parted"].endswith(" were forecast.")
    assert main(["probe", str(spec)]) == 0
    assert found["parted"] in capsys.readouterr().out.splitlines()
    assert read_cases() == ()


def of_short_conversations(spec: Any, shape: Any, device: Any, longest_tokens: int) -> Any:
    return estimate(spec, shape, device, longest_tokens // 8)


def test_the_steps_that_are_timed_are_of_middling_width(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path
) -> None:
    one = prepared(tiny_spec(tiny_folder("llama"), chats_file, steps=40, batch_size=1), tmp_path)
    widths = {step: one.order.of_step(step)[0].input_ids.numel() for step in range(3, 41)}
    chosen = [widths[step] for step in _typical_steps(one)]
    assert len(chosen) == 2
    assert min(widths.values()) < min(chosen)
    assert max(chosen) < max(widths.values())
    assert all(step > 2 for step in _typical_steps(one)), "the first steps are widened"


def test_a_run_of_one_step_can_be_tried(
    tiny_folder: Callable[[str], Path],
    chats_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = write_spec(tmp_path, tiny_folder("llama"), chats_file, "qft", steps=1)
    assert main(["probe", str(spec)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["step", "run", "peak", "Fits", "Only"]
    assert lines[-1] == "Only 2 rows are held out: their loss says little."
    assert lines[1].endswith(", 1 steps")


def test_it_refuses_what_a_run_refuses(
    tmp_path: Path, chats_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path, "no model", "nosuch.jsonl", "qft")
    said: list[str] = []
    for command in (["probe", str(spec)], ["run", str(spec), "--runs", str(tmp_path / "runs")]):
        assert main(command) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert [line.split(":")[0] for line in said[0].splitlines()] == ["model.source", "data.source"]
    assert not (tmp_path / "runs").exists()


def test_rows_that_are_too_long_are_said(
    tiny_folder: Callable[[str], Path],
    chats_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = write_spec(tmp_path, tiny_folder("llama"), chats_file, "qft", sequence_length=8)
    assert main(["probe", str(spec)]) == 2
    assert "nothing to learn from" in capsys.readouterr().err


def test_weights_that_are_nowhere_are_a_sentence(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "llama-2-7b", "pirate", "qft")
    environment = {
        **engine_environment(),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "engine", "probe", str(spec)],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("model.source: ")
    assert "is not on this computer and the hub cannot be reached." in line


def test_a_rate_that_is_no_use_ends_as_the_run_would(
    tmp_path: Path, chats_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first step makes the weights so large that the next has no loss."""
    model = tiny_model_folder(tmp_path / "model")
    method = {"kind": "full", "optimizer": "sgd"}
    train = {"learning_rate": 1.0, "warmup_steps": 0, "max_grad_norm": None}
    blow_up(model)
    spec = write_spec(tmp_path, model, chats_file, method, **train)
    assert main(["probe", str(spec), "--json"]) == 5
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert error["class"] == "diverged"
    assert error["field"] == "train.learning_rate"


def blow_up(folder: Path) -> None:
    """Weights so large that scores overflow."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = {
        name: (tensor.float() * 1e30).to(tensor.dtype) for name, tensor in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
def test_too_little_memory_is_the_sentence_and_the_exit_code_of_a_run(
    tmp_path: Path, tiny_folder: Callable[[str], Path], chats_file: Path
) -> None:
    train = {"batch_size": 4096, "sequence_length": 96, "batching": "shuffled"}
    spec = write_spec(tmp_path, tiny_folder("llama"), chats_file, "full", **train)
    assert main(["inspect", str(tiny_folder("llama"))]) == 0  # looked at without the limit
    script = (
        "import resource, sys; import psutil; import engine.probe\n"
        "from engine.commands.parser import main\n"
        "limit = psutil.Process().memory_info().vms + (400 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "probe", str(spec), "--json"],
        cwd=PROJECT,
        env=engine_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    (error,) = json.loads(done.stdout)["errors"]
    assert error["class"] == "out_of_memory"
    assert error["message"].startswith("Memory ran out in the steps that were tried: ")
    assert error["advice"].startswith("Lower the batch size")


def test_measuring_keeps_the_rates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--device", "cpu", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {"device", "flops_per_s", "bytes_per_s", "seconds_per_operation"}
    kept = rates_of(this_computer())
    assert kept is not None
    assert kept.flops_per_s == said["flops_per_s"]
    assert main(["measure", "--device", "cpu"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["device", "float32", "memory", "operation", "kept"]


def test_a_device_that_is_not_there_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--device", "cuda:77"]) == 2
    assert "there is no cuda:77 here" in capsys.readouterr().err
