"""One process at a time has a GPU; real locks and real processes, under names no GPU has."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import engine.attempt
import engine.commands.probe
import engine.probe
from engine.commands.parser import main
from engine.contract.device_lock import DeviceBusyError, claim_device, holder_of
from engine.contract.errors import ExitCode, RequestError
from engine.contract.launch import PROJECT, engine_environment
from engine.memory import device_key as keys
from engine.memory.devices import this_computer
from engine.memory.machine_rates import device_key, rates_of, rates_path
from qft_gui import trials
from tests.tiny import chat_rows, tiny_model_folder, tiny_spec, write_jsonl
from tests.workshop import open_workshop

KEY = "GPU-00000000-test"
HOLD = (
    "import sys; from engine.contract.device_lock import claim_device;"
    "claim = claim_device(sys.argv[1], 'chat', 'otto'); print('held', flush=True);"
    "sys.stdin.read()"
)


@contextmanager
def another_process(key: str = KEY) -> Iterator[subprocess.Popen[bytes]]:
    """That holds the device until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, key],
        cwd=PROJECT,
        env=engine_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_second_is_told_who_holds_it() -> None:
    with another_process() as process:
        with pytest.raises(DeviceBusyError) as found:
            claim_device(KEY, "training", "mara")
        assert found.value.holder is not None
        assert found.value.holder.identity.pid == process.pid
        assert found.value.message == f"the GPU is in use by chat of otto (process {process.pid})."
        assert found.value.as_json()["class"] == "device_busy"
        assert "Unload" in found.value.advice
        holder = holder_of(KEY)
        assert holder is not None
        assert (holder.purpose, holder.name) == ("chat", "otto")
        claim_device("GPU-of-another-kind", "chat").release()


def test_a_killed_holder_holds_nothing() -> None:
    with another_process() as process:
        process.kill()
        process.wait()
        assert holder_of(KEY) is None
        with claim_device(KEY, "judging", "mara"):
            holder = holder_of(KEY)
            assert holder is not None
            assert holder.purpose == "judging"
    assert holder_of(KEY) is None


def test_released_it_is_free_and_released_twice_too() -> None:
    first = claim_device(KEY, "chat")
    with pytest.raises(DeviceBusyError, match=r"in use by chat \(process"):
        claim_device(KEY, "chat")
    first.release()
    first.release()
    second = claim_device(KEY, "training", "mara")
    first.release()  # it is no longer the first's to release
    with pytest.raises(DeviceBusyError, match="training of mara"):
        claim_device(KEY, "chat")
    second.release()


def test_a_cpu_needs_no_lock() -> None:
    assert keys.device_key("cpu") is None
    with claim_device(None, "training"), claim_device(None, "chat"):
        pass


def test_a_gpu_is_known_by_its_uuid_whatever_cuda_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    uuids = ["GPU-aa", "GPU-bb"]
    monkeypatch.setattr(keys.pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(keys.pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(keys.pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(keys.pynvml, "nvmlDeviceGetUUID", lambda handle: uuids[handle].encode())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [keys.device_key(one) for one in ("cuda", "cuda:1")] == uuids
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert keys.device_key("cuda:0") == "GPU-bb"
    assert keys.device_key("cuda:1") == "cuda-1"


def test_without_a_driver_it_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise keys.pynvml.NVMLError(keys.pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(keys.pynvml, "nvmlInit", fail)
    assert keys.device_key("cuda:3") == "cuda-3"


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(RequestError, match="cannot be written to"):
        claim_device(KEY, "chat")


def test_a_run_is_refused_while_the_chat_has_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.attempt, "device_key", lambda device: KEY)
    with open_workshop(tmp_path) as workshop, another_process():
        run = workshop.create("mara", steps=1)
        assert engine.attempt.main(str(run.path)) == 1
        result = run.result
        assert result is not None
        assert result["outcome"] == "failed"
        assert result["error"]["class"] == "device_busy"
        assert "chat of otto" in result["error"]["message"]
        assert not list(run.checkpoints.iterdir())
    run = workshop.create("lin", steps=1)
    assert engine.attempt.main(str(run.path)) == 0
    assert holder_of(KEY) is None


@pytest.mark.parametrize("command", ["probe", "measure"])
def test_what_is_tried_or_measured_waits_for_the_gpu(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in (engine.probe, engine.commands.probe):
        monkeypatch.setattr(module, "device_key", lambda device: KEY)
    arguments = ["measure", "--device", "cpu"]
    if command == "probe":
        data = write_jsonl(tmp_path / "chats.jsonl", chat_rows(24))
        spec = tiny_spec(tiny_model_folder(tmp_path / "model"), data, "full")
        (tmp_path / "spec.json").write_text(json.dumps(spec.model_dump(mode="json")))
        arguments = ["probe", str(tmp_path / "spec.json")]
    with another_process():
        assert main(arguments) == ExitCode.BAD_REQUEST
        assert "the GPU is in use by chat of otto" in capsys.readouterr().err
    assert main(arguments) == ExitCode.DONE
    assert holder_of(KEY) is None


def test_no_rates_are_taken_of_a_gpu_that_someone_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is no failure: they are taken once it is free."""
    monkeypatch.setattr(trials, "gpu_key", lambda device: KEY)
    taker, device = trials.RatesTaker(lambda: False), this_computer()
    rates_path(device_key(device)).unlink(missing_ok=True)
    with another_process():
        taker.measure(device)
        while taker.is_measuring(device):
            time.sleep(0.01)
        assert rates_of(device) is None
        assert taker.failure(device) is None
    taker.measure(device)
    while taker.is_measuring(device):
        time.sleep(0.05)
    assert rates_of(device) is not None
