"""`estimate` says what would fit, on which GPU, who holds memory, and what each method gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.commands.output import duration
from engine.commands.parser import main
from engine.contract.presets import METHOD_CHOICES
from engine.memory.devices import this_computer
from engine.memory.gpus import NO_GPU_HOLDS_IT
from engine.memory.machine_rates import MachineRates, device_key, rates_path, save_rates
from engine.memory.quality import quality_of
from engine.memory.units import GIB

TIGHT = {"batch_size": 12, "sequence_length": 4096, "activation_checkpointing": False}


class Estimate:
    """The command in this process, on one spec."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.path = folder / "spec.json"
        self.capture = capture

    def write(self, kind: str = "lora", model: str = "llama-3.2-1b", **train: Any) -> None:
        document = {
            "model": {"source": model},
            "data": {"source": "pirate"},
            "method": {"kind": kind},
            "train": train,
        }
        self.path.write_text(json.dumps(document), encoding="utf-8")

    def set(self, settings: dict[str, Any]) -> None:
        document = json.loads(self.path.read_text(encoding="utf-8"))
        for field, value in settings.items():
            group, name = field.split(".")
            document[group][name] = value
        self.path.write_text(json.dumps(document), encoding="utf-8")

    def say(self, *options: str, code: int = 0) -> str:
        self.capture.readouterr()
        assert main(["estimate", str(self.path), *options]) == code
        said = self.capture.readouterr()
        return said.out if code == 0 else said.err

    def document(self, *options: str) -> Any:
        return json.loads(self.say(*options, "--json"))


@pytest.fixture
def estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Estimate:
    return Estimate(tmp_path, capsys)


def between(estimate: Estimate) -> str:
    """A GPU on which this request has to recompute, or more."""
    high = estimate.document("--gpu-gib", "1")["high_bytes"]
    return str(high / GIB / 3)


@pytest.mark.parametrize("kind", ["lora", "qlora", "full", "qft", "lomo", "adalomo"])
def test_a_request_with_its_new_settings_fits(estimate: Estimate, kind: str) -> None:
    estimate.write(kind, **TIGHT)
    size = between(estimate)
    before = estimate.document("--gpu-gib", size, "--fit")
    found = before["fit"]
    assert not before["fits"]
    if not found["fits"]:
        way = next(way for way in found["further"] if way["fits"])
        found["settings"].update({one["field"]: one["after"] for one in way["settings"]})
    assert found["settings"]
    estimate.set(found["settings"])
    after = estimate.document("--gpu-gib", size, "--fit")
    assert (after["verdict"], after["fit"]["settings"]) == ("fits", {})
    assert after["fit"]["fits"]


def test_changes_are_told_with_what_they_bring_and_cost(estimate: Estimate) -> None:
    estimate.write(**TIGHT)
    lines = estimate.say("--gpu-gib", between(estimate), "--fit").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("train."))
    assert lines[start].startswith("train.activation_checkpointing false -> true: ")
    assert lines[start].endswith(" GiB, a step takes about 50 % longer")
    assert lines[start + 1].startswith("  Activations are computed again")
    assert lines[-1].startswith("Fits then: ")
    estimate.write(batch_size=1, sequence_length=64)
    assert "It fits as it is: " in estimate.say("--gpu-gib", "100", "--fit")


def test_conversations_are_cut_only_when_that_was_asked_for(estimate: Estimate) -> None:
    estimate.write("lomo", **TIGHT)
    least = estimate.document("--gpu-gib", "1", "--fit")["fit"]["high_bytes"]
    size = str((least - 1) / GIB)
    kept = estimate.document("--gpu-gib", size, "--fit")["fit"]
    cut = estimate.document("--gpu-gib", size, "--fit", "--shorten")["fit"]
    assert "train.sequence_length" not in kept["settings"]
    assert not kept["fits"]
    assert cut["fits"]
    assert cut["settings"]["train.sequence_length"] == 3072
    said = estimate.say("--gpu-gib", size, "--fit")
    assert "Does not fit without a change of the training: " in said
    assert "With your consent, train.sequence_length 4096 -> 3072" in said


def test_what_does_not_fit_even_so_is_said_and_nothing_is_set(estimate: Estimate) -> None:
    estimate.write("full", **TIGHT)
    found = estimate.document("--gpu-gib", "1", "--fit", "--shorten")["fit"]
    assert (found["fits"], found["settings"]) == (False, {})
    assert found["changes"]
    assert not any(way["fits"] for way in found["further"])
    said = estimate.say("--gpu-gib", "1", "--fit", "--shorten")
    assert "Does not fit even so: " in said
    assert "without a change" not in said
    (alone,) = estimate.document("--gpu-gib", "1")["advice"]
    assert alone.startswith("The weights and their states alone take ")


def test_a_gpu_is_named_once_for_each_form_of_the_request(estimate: Estimate) -> None:
    for kind in ("full", "lomo", "qft", "lora"):
        estimate.write(kind, **TIGHT)
        lines = estimate.say("--gpu-gib", "1", "--fit").splitlines()
        named = [line for line in lines if " GiB or more, such as the " in line]
        assert named[0].startswith("Needs a GPU with ")
        assert len(named) == len({line.split(" with ")[-1] for line in named})
        assert all(line.startswith("With these changes it needs a GPU") for line in named[1:])


def test_without_a_change_of_its_own_consent_is_what_helps(estimate: Estimate) -> None:
    estimate.write("lomo", **{**TIGHT, "activation_checkpointing": True})
    lines = estimate.say("--gpu-gib", "1", "--fit").splitlines()
    start = lines.index("Nothing helps without your consent.")
    assert lines[start + 1].startswith("Does not fit")
    assert lines[start + 2].startswith("With your consent, ")


def test_a_row_says_which_settings_its_gpu_presumes(estimate: Estimate) -> None:
    estimate.write(**TIGHT)
    options = ("--gpu-gib", "1", "--all-methods")
    rows = estimate.document(*options)["methods"]
    lines = estimate.say(*options).splitlines()[2:]
    little = [
        (row, line)
        for row, line in zip(rows, lines, strict=False)
        if "Settings save too little. " in line
    ]
    assert little
    for row, line in little:
        assert ("Settings save too little. With train." in line) == bool(row["fit"]["changes"])


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_gpu_that_the_spec_does_not_train_on_is_refused(estimate: Estimate, device: str) -> None:
    estimate.write(device=device)
    said = estimate.say("--gpu-gib", "8", code=2)
    assert said == (
        f"--gpu-gib: it is for a GPU, but train.device of this spec is {device}. "
        "Leave it out, or set train.device to auto.\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shorten"], "--shorten: it says what --fit may do. Add --fit.\n"),
        (["--fit", "--all-methods"], "--fit: --all-methods says what would fit already. "),
    ],
)
def test_options_that_do_not_go_together(
    estimate: Estimate, options: list[str], words: str
) -> None:
    estimate.write()
    assert estimate.say(*options, code=2).startswith(words)


def test_the_gpu_that_is_needed_is_named(estimate: Estimate) -> None:
    estimate.write("full", **TIGHT)
    needs = estimate.document()["needs"]
    assert set(needs) == {"gpu_gib", "gpu", "total_bytes", "high_bytes"}
    line = f"{needs['gpu_gib']} GiB or more, such as the {needs['gpu']}."
    assert f"A GPU would need {line}" in estimate.say()
    assert f"Needs a GPU with {line}" in estimate.say("--gpu-gib", "8")
    # The card that was named is enough, and one much smaller is not.
    fits = estimate.document("--gpu-gib", str(needs["high_bytes"] / GIB + 0.01))
    assert fits["verdict"] == "fits"
    estimate.write("full", model="llama-2-13b", **{**TIGHT, "batch_size": 64})
    assert estimate.document()["needs"] is None
    assert NO_GPU_HOLDS_IT in estimate.say()


def test_who_holds_memory_is_told_of_this_computer_only(estimate: Estimate) -> None:
    estimate.write()
    held = estimate.document()["holders"]
    assert held
    assert all(set(one) == {"name", "pid", "held_bytes", "kind"} for one in held)
    assert estimate.document("--gpu-gib", "8")["holders"] == []
    large = [one for one in held if one["held_bytes"] >= 1 << 28]
    said = estimate.say()
    assert ("Held now: " in said) or not large
    for one in large:
        assert f"{one['name']} " in said


def test_the_table_says_what_each_method_gives_and_what_would_make_it_fit(
    estimate: Estimate,
) -> None:
    estimate.write(**TIGHT)
    size = between(estimate)
    rows = estimate.document("--gpu-gib", size, "--all-methods")["methods"]
    lines = estimate.say("--gpu-gib", size, "--all-methods").splitlines()
    assert lines[1].split()[:2] == ["method", "memory"]
    for choice, row, line in zip(METHOD_CHOICES, rows, lines[2:], strict=False):
        assert (row["kind"], row["preset"]) == tuple(choice)
        quality = quality_of(choice)
        assert row["quality"] == (quality.as_json() if quality else None)
        assert row["trains"] == ("an adapter" if "lora" in choice.kind else "every weight")
        assert row["trains"] in line
        assert (row["fit"] is None) == (row["verdict"] == "fits")
        assert (quality.words if quality else "not measured") in line
        if row["fit"] and row["fit"]["fits"]:
            assert row["fit"]["settings"]
            assert "Fits with " in line
    assert lines[-1].startswith("?: ")  # nobody measured a GPU that is not there


def test_times_are_told_once_this_computer_was_measured(estimate: Estimate) -> None:
    estimate.write(batch_size=1, sequence_length=64, steps=40)
    assert estimate.document()["time"] is None
    device = device_key(this_computer())
    save_rates(MachineRates(device, {"float32": 1e11, "bfloat16": 2e10}, 1e10, 1e-5))
    try:
        found = estimate.document()
        time = found["time"]
        assert found["seconds_per_step"] == time["seconds_per_step"]
        assert 0 < time["low_seconds"] < time["seconds_per_step"] < time["high_seconds"]
        assert time["steps"] == 40
        assert time["total_seconds"] >= 40 * time["seconds_per_step"]
        said = estimate.say()
        assert f"A step takes {duration(time['seconds_per_step'])} (" in said
        assert f"40 steps {duration(time['total_seconds'])}" in said
        table = estimate.say("--all-methods")
        assert "?" not in table
        assert duration(time["seconds_per_step"]) in table
    finally:
        rates_path(device).unlink()
