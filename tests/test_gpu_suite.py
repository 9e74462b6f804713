"""The GPU suite, on a CPU: what it asks for is what the engine would be asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from pydantic import TypeAdapter

from benchmarks.gpu_checks import CPU, _unbiased, run_checks
from benchmarks.gpu_geometry import GEOMETRIES, shape_for
from benchmarks.gpu_jobs import Job, jobs, tiny_jobs
from benchmarks.gpu_report import report
from benchmarks.gpu_settings import METHODS, TRAIN, plain_spec
from benchmarks.gpu_suite import main, run_all
from benchmarks.published_memory import PUBLISHED
from engine.contract.method_settings import MethodSettings
from engine.contract.presets import preset_of
from engine.contract.spec import TrainSpec
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device
from engine.memory.estimate import estimate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: TypeAdapter[MethodSettings] = TypeAdapter(MethodSettings)
# What a computer with torch, transformers, numpy and PEFT alone does not have.
ABSENT = ("pydantic", "pydantic_core", "bitsandbytes", "pynvml", "platformdirs", "gradio", "psutil")
HIDE = f"""
import sys

class Without:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            return None
        return self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
GIB = 1 << 30


@dataclass(frozen=True)
class Ran:
    output: str
    result: dict[str, Any]

    def lines(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.result["lines"] if line["kind"] == kind]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python finds none of `ABSENT`."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def ran(bare: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    saved = tmp_path_factory.mktemp("suite") / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_suite", "--tiny", "--save", str(saved)],
        cwd=ROOT,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(saved.read_text(encoding="utf-8"))
    return Ran(done.stdout, result)


def test_the_core_needs_none_of_what_the_contract_needs(bare: dict[str, str]) -> None:
    core = "import engine.methods, engine.adapters, engine.loss, engine.memory.estimate"
    done = subprocess.run(
        [sys.executable, "-c", core],
        cwd=ROOT,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_hidden_packages_are_hidden(bare: dict[str, str]) -> None:
    look = f"from importlib.util import find_spec; print([n for n in {ABSENT} if find_spec(n)])"
    done = subprocess.run(
        [sys.executable, "-c", look], env=bare, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_bare_computer_checks_every_method_it_can(ran: Ran) -> None:
    checks = ran.lines("check")
    needing = [name for name, method in METHODS.items() if "bitsandbytes" in method.needs]
    assert [check["name"] for check in checks if check["ok"] is False] == []
    skipped = [check for check in checks if check["ok"] is None]
    of_packages = [check["name"] for check in skipped if "needs" in check["detail"]]
    assert of_packages == [f"{name} learns as on a CPU" for name in needing]
    # Products of 8-bit numbers are for hardware that has them.
    assert len(skipped) - len(needing) <= 1


@pytest.mark.slow
def test_a_bare_computer_measures_every_size(ran: Ran) -> None:
    steps, caps = ran.lines("steps"), ran.lines("caps")
    assert [line["outcome"] for line in steps] == ["done"] * 3 + ["skipped"] * 3
    assert {line["reason"] for line in steps[3:]} == {"needs bitsandbytes"}
    for line in steps[:3]:
        assert line["num_timed"] >= 3
        tokens = line["batch_size"] * line["length"]
        assert line["tokens_per_s"] == pytest.approx(tokens / line["step_s"])
        assert line["forecast_bytes"] > 0
        assert 5 < line["loss_first"] < 7  # nats; chance is ln 320 = 5.8
    assert [(line["cap_gib"], line["outcome"]) for line in caps] == [
        (24.0, "fits"),
        (24.0, "fits"),
        (16.0, "fits"),
        (16.0, "fits"),
    ]


@pytest.mark.slow
def test_a_bare_computer_times_the_claim(ran: Ran) -> None:
    claim = ran.lines("claim")[-1]
    assert claim["outcome"] == "done"
    assert claim["ratio"] == pytest.approx(claim["qft_step_s"] / claim["adamw_step_s"])


@pytest.mark.slow
def test_the_table_comes_last_and_counts_what_is_missing(ran: Ran) -> None:
    assert ran.output.rstrip().endswith(report(ran.result).rstrip())
    last = ran.output.rstrip().splitlines()[-1]
    assert "3 steps done; 3 steps skipped" in last
    assert "4 caps fits" in last


@pytest.mark.slow
def test_the_result_names_what_it_was_measured_on(ran: Ran) -> None:
    assert ran.result["torch"] == torch.__version__
    assert ran.result["hardware"].endswith("-core CPU")
    assert ran.result["date"].endswith("+00:00")


@pytest.mark.parametrize("name", METHODS)
def test_plain_settings_are_the_contracts(name: str) -> None:
    method = METHODS[name]
    asked = SETTINGS.validate_python(method.asked)
    assert asked.model_dump() == method.filled
    preset = preset_of(asked)
    assert (preset.learning_rate, preset.max_grad_norm) == (
        method.learning_rate,
        method.max_grad_norm,
    )


def test_plain_training_is_the_contracts() -> None:
    chosen = {
        "steps": 60,
        "batch_size": 1,
        "sequence_length": 1024,
        "schedule": "constant",
        "warmup_steps": 0,
        "activation_checkpointing": True,
    }
    assert TrainSpec.model_validate(chosen).model_dump() == TRAIN


@pytest.mark.parametrize("geometry", sorted(GEOMETRIES.keys() - {"tiny"}))
@pytest.mark.parametrize("name", METHODS)
def test_plain_forecast_is_the_apps(name: str, geometry: str) -> None:
    method, shape = METHODS[name], bundled_shape(geometry)
    assert shape is not None
    device = Device("cuda:0", "cuda", "H100", 80 * GIB, 79 * GIB)
    spec = validate_spec(
        {
            "model": {"source": geometry},
            "data": {"source": "-"},
            "method": method.asked,
            "train": {
                "batch_size": 2,
                "sequence_length": 2048,
                "activation_checkpointing": True,
                "max_grad_norm": method.max_grad_norm,
            },
        }
    )
    plain_device = cast("Device", SimpleNamespace(kind="cuda", free_bytes=79 * GIB))
    asked = plain_spec(method, 2, 2048)
    plain = estimate(asked, shape_for(geometry, asked, "cuda"), plain_device)
    assert plain == estimate(spec, shape, device)


def test_a_job_that_dies_is_told_with_its_last_words() -> None:
    broken = Job("steps", "no such model", "lomo", ((1, 16), (1, 32)), device="cpu")
    lines = list(run_all([broken], time.monotonic() + 60))
    assert [line["outcome"] for line in lines] == ["failed", "failed"]
    assert "KeyError: 'no such model'" in lines[0]["reason"]


def test_what_there_is_no_time_for_is_listed() -> None:
    lines = list(run_all(tiny_jobs(), time.monotonic() - 1))
    steps = [line for line in lines if line["kind"] in ("steps", "caps")]
    assert len(steps) == sum(len(job.places) for job in tiny_jobs() if job.sizes) - 1
    assert {line["outcome"] for line in lines} <= {"not run", "skipped"}


def test_a_job_that_takes_too_long_is_ended_and_listed() -> None:
    started = time.monotonic()
    lines = list(run_all([tiny_jobs()[0]], started + 1.5))
    assert time.monotonic() - started < 10
    assert lines[-1]["outcome"] == "not run"
    assert lines[-1]["reason"] == "the job was ended after 1 s"


def test_jobs_cross_the_command_line_unchanged() -> None:
    for job in [*jobs(), *tiny_jobs()]:
        assert Job.from_json(job.as_json()) == job


def test_every_published_figure_is_measured_beside() -> None:
    places = {
        (job.geometry, job.method, *size)
        for job in jobs()
        if job.kind == "steps"
        for size in job.sizes
    }
    assert PUBLISHED.keys() <= places
    assert {job.method for job in jobs() if job.method} == METHODS.keys()


def test_a_check_finds_rounding_that_is_biased() -> None:
    assert _unbiased(0.3, 1.0, torch.floor, CPU).ok is False
    assert _unbiased(0.3, 1.0, torch.ceil, CPU).ok is False


def test_a_check_that_raises_has_failed() -> None:
    # There is no such device, so that every computation on it raises.
    findings = list(run_checks(torch.device("xla")))
    assert [finding["ok"] for finding in findings[:5]] == [False] * 5
    assert all(finding["ok"] is not True for finding in findings)


def _claim_line(peak: float, ratio: float, geometry: str = "llama-2-7b") -> dict[str, Any]:
    return {
        "kind": "claim",
        "geometry": geometry,
        "batch_size": 1,
        "length": 1024,
        "outcome": "done",
        "qft_allocated_bytes": round(peak * GIB),
        "qft_step_s": ratio,
        "adamw_step_s": 1.0,
        "ratio": ratio,
        "rounds": 9,
    }


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (_claim_line(15.9, 1.1), ("under 16, kept", "at most 1.15, kept")),
        (_claim_line(16.1, 1.2), ("under 16, NOT kept", "at most 1.15, NOT kept")),
        (_claim_line(16.1, 1.2, "tiny"), ("nothing is promised",)),
    ],
)
def test_the_report_judges_the_claim(line: dict[str, Any], found: tuple[str, ...]) -> None:
    words = report(_result([line]))
    assert all(part in words for part in found)


def test_the_report_sets_a_peak_beside_what_was_published() -> None:
    line = {
        "kind": "steps",
        "geometry": "llama-2-7b",
        "method": "lomo-unclipped",
        "batch_size": 8,
        "length": 512,
        "outcome": "done",
        "allocated_bytes": 15 * GIB,
        "forecast_bytes": 14 * GIB,
        "tokens_per_s": 1234.5,
        "step_s": 3.31794,
    }
    words = report(_result([line]))
    row = next(row for row in words.splitlines() if "8 x 512" in row and "done" in row)
    assert row.split()[-5:] == ["15.00", "14.00", "14.58", "1234", "3.3179"]
    assert "published 14.58: LOMO, table 1" in words


def _result(lines: list[dict[str, Any]]) -> dict[str, Any]:
    named = ("hardware", "driver", "torch", "transformers", "commit", "date", "seconds")
    return {**dict.fromkeys(named, "-"), "lines": lines}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this computer has a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_suite"])
    with pytest.raises(SystemExit) as ended:
        main()
    # Python prints a code that is text to the errors, and ends with 1.
    assert ended.value.code == (
        "This computer has no GPU that torch can use; --tiny goes through it on the CPU."
    )
