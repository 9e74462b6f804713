"""A run that was stopped, killed or disturbed ends in the very bits of one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.checkpoint import committed
from engine.contract.errors import RequestError
from engine.contract.events import Event, EventReader, EventWriter
from engine.contract.run_dir import RunDir, create_run
from engine.fingerprint import TOLERANCE, probe_scores, recorded_result
from engine.preparation import prepare
from engine.result import load_target
from engine.target import find_target
from engine.train import Stopped, Trainer
from tests.tiny import assert_same_state, snapshot, tiny_model_folder, tiny_spec, write_jsonl

STEPS = 6
METHODS: dict[str, dict[str, Any]] = {
    "qft": {},
    "qlora": {},
    "lora": {"grad_accumulation": 2, "max_grad_norm": 0.3},
    "lomo": {"learning_rate": 0.1},
    "adalomo": {"learning_rate": 1e-2},
    "full": {"grad_accumulation": 2},
}

Make = Callable[..., RunDir]
Curves = dict[tuple[str, int], tuple[float, float]]
Unbroken = Callable[[str], tuple[dict[str, Tensor], Curves]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With dropout, so that a step draws random numbers, and with biases."""
    rates: dict[str, Any] = {"dropout": 0.2, "attention_dropout": 0.1, "activation_dropout": 0.1}
    return tiny_model_folder(tmp_path_factory.mktemp("model") / "opt", "opt", **rates)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One question, so that sampling is quick."""
    rows = [
        {"instruction": "Count.", "output": f"It is {number}, {'or so, ' * (number % 3)}yes."}
        for number in range(20)
    ]
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", rows)


@pytest.fixture
def make(folder: Path, data: Path, tmp_path: Path) -> Make:
    def make(method: str, **train: Any) -> RunDir:
        defaults = {"steps": STEPS, "eval_every": 3, "learning_rate": 1e-3, "weight_decay": 0.1}
        spec = tiny_spec(folder, data, method, **{**defaults, **METHODS[method], **train})
        return create_run(tmp_path / "runs", spec)

    return make


class Killed(Exception):
    """In place of a signal, after which nothing is saved."""


def work(run: RunDir, stop_after: int | None = None, kill_after: int | None = None) -> None:
    """One attempt by all the engine's parts, from loading on."""
    attempt = run.attempt()
    with EventWriter(run.events_path, attempt) as events:

        def stop_requested() -> bool:
            if kill_after is not None and trainer.progress.step >= kill_after:
                raise Killed
            return stop_after is not None and trainer.progress.step >= stop_after

        trainer = Trainer(run, prepare(run, events), events, attempt, stop_requested)
        try:
            trainer.train()
        except Stopped:
            assert trainer.progress.step == stop_after
        except Killed:
            return
        trainer.save()


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_says_what_the_model_is_known_by(make: Make, method: str) -> None:
    run = make(method)
    work(run, stop_after=2)
    record = recorded_result(run.checkpoints / "step-000002")
    assert record is not None
    target = find_target(f"{run.path}@2", run.path.parent)
    assert record.difference(probe_scores(load_target(target, torch.device("cpu")))) < TOLERANCE / 3


def final_state(run: RunDir, steps: int = STEPS) -> dict[str, Tensor]:
    """Read anew from the checkpoint, with what belongs to it."""
    with EventWriter(run.events_path, run.attempt()) as events:
        one = prepare(run, events)
    assert one.progress.step == steps
    return snapshot(one)


def events_of(run: RunDir, kind: str) -> list[Event]:
    return [event for event in EventReader(run.events_path).read() if event["kind"] == kind]


def curves(run: RunDir) -> Curves:
    """Both losses and the gradient's length, of the last time each step was done."""
    steps = {("step", e["step"]): (e["loss_nats"], e["grad_norm"]) for e in events_of(run, "step")}
    evals = {("eval", e["step"]): (e["loss_nats"], 0.0) for e in events_of(run, "eval")}
    return {**steps, **evals}


@pytest.fixture(scope="module")
def unbroken(folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    found: dict[str, tuple[dict[str, Tensor], Curves]] = {}

    def unbroken(method: str) -> tuple[dict[str, Tensor], Curves]:
        if method not in found:
            train = {"learning_rate": 1e-3, "weight_decay": 0.1, **METHODS[method]}
            spec = tiny_spec(folder, data, method, **{"steps": STEPS, "eval_every": 3, **train})
            run = create_run(tmp_path_factory.mktemp("runs"), spec)
            work(run)
            found[method] = (final_state(run), curves(run))
        return found[method]

    return unbroken


@pytest.mark.parametrize(
    ("method", "stop_after"),
    [
        # The loop may be stopped anywhere; how each method lays its state down, early and late, is
        # also held by the runs that are killed below.
        *(("lora", step) for step in range(1, STEPS)),
        *(("qft", step) for step in (1, 3, 5)),
        *(("qlora", 1), ("lomo", 2), ("adalomo", 3), ("full", 4)),
    ],
)
def test_a_stopped_run_goes_on_bitwise(
    make: Make, unbroken: Unbroken, method: str, stop_after: int
) -> None:
    run = make(method)
    work(run, stop_after=stop_after)
    work(run)
    assert [e["resumed_at"] for e in events_of(run, "phase") if "resumed_at" in e] == [
        0,
        stop_after,
    ]
    state, expected = unbroken(method)
    found = curves(run)
    assert found.items() <= expected.items()
    # A stop does not wait for the evaluation that its step would have had.
    assert expected.keys() - found.keys() <= {("eval", stop_after)}
    assert_same_state(final_state(run), state)


LION = {"update": "lion", "residual_bits": 4, "outlier_percent": 1.0}
ADAMW4 = {"update": "adamw", "moment_bits": 4, "outlier_percent": 1.0, "scale_group": 32}
STACK = {"gradients": "stack", "quantize": "all"}


@pytest.mark.parametrize(
    "settings", [LION, {**LION, **STACK}, ADAMW4, {**ADAMW4, **STACK}], ids=str
)
def test_ten_steps_are_five_and_five_bitwise_in_several_passes(
    folder: Path, data: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """With outliers that are chosen anew on both sides of the break."""
    stacked = settings.get("gradients") == "stack"
    train = {"steps": 10, "eval_every": 100, "learning_rate": 1e-3, "weight_decay": 0.1}
    if stacked:
        train |= {"grad_accumulation": 2, "batch_size": 3, "max_grad_norm": 0.5}
    else:
        train |= {"batch_size": 6}
    spec = tiny_spec(folder, data, {"kind": "qft", **settings}, **train)
    whole, broken = (create_run(tmp_path / "runs", spec, name) for name in ("whole", "broken"))
    work(whole)
    work(broken, stop_after=5)
    work(broken)
    with EventWriter(tmp_path / "events.jsonl", 1) as events:
        one = prepare(create_run(tmp_path / "runs", spec), events)
    new_passes = [step for step in range(1, 11) if one.begins_epoch(step)]
    assert min(new_passes) <= 5 < max(new_passes)
    state = final_state(whole, 10)
    assert_same_state(final_state(broken, 10), state)
    expected = curves(whole)
    assert len([kind for kind, _ in expected if kind == "step"]) == 10
    assert curves(broken) == expected
    places = "model.decoder.layers.0.fc1.weight/weight.outlier_offsets"
    assert not torch.equal(snapshot(one)[places], state[places])


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_does_the_lost_steps_again(
    make: Make, unbroken: Unbroken, method: str
) -> None:
    run = make(method, checkpoint_every=2)
    work(run, kill_after=3)
    assert [folder.name for folder in committed(run)] == ["step-000002"]
    work(run, kill_after=5)
    work(run, stop_after=5)
    work(run)
    steps = [event["step"] for event in events_of(run, "step")]
    assert steps == [1, 2, 3, 3, 4, 5, 5, 6]
    state, expected = unbroken(method)
    assert curves(run) == expected
    assert_same_state(final_state(run), state)


@pytest.mark.parametrize("method", METHODS)
def test_evaluating_sampling_and_saving_change_nothing(
    make: Make, unbroken: Unbroken, method: str
) -> None:
    run = make(method, eval_every=1, checkpoint_every=1)
    work(run)
    assert [e["step"] for e in events_of(run, "eval")] == list(range(STEPS + 1))
    assert [e["step"] for e in events_of(run, "sample")] == list(range(STEPS + 1))
    state, expected = unbroken(method)
    assert curves(run).items() >= expected.items()
    assert_same_state(final_state(run), state)


@pytest.mark.parametrize("method", METHODS)
def test_the_unbroken_run_is_no_constant(unbroken: Unbroken, make: Make, method: str) -> None:
    """Another seed ends elsewhere, so equal bits mean something."""
    run = make(method, seed=1, eval_every=100)
    work(run)
    state, expected = unbroken(method)
    assert curves(run) != expected
    found = final_state(run)
    assert any(not (found[name] == state[name]).all() for name in state if "fc1" in name)


def test_what_the_loop_remembers_is_restored(make: Make) -> None:
    run = make("qft")
    work(run, stop_after=2)
    with EventWriter(run.events_path, 2) as events:
        progress = prepare(run, events).progress
    (first,) = [e for e in events_of(run, "eval") if e["step"] == 0]
    assert progress.step == 2
    assert progress.eval_loss_before == first["loss_nats"]
    assert progress.tokens_seen > 100
    assert progress.elapsed_s > 0


def test_data_that_changed_is_refused(make: Make, folder: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "own.jsonl", [{"instruction": "Hi.", "output": "Ho."}] * 3)
    run = create_run(tmp_path / "runs", tiny_spec(folder, file, "qft"))
    write_jsonl(file, [{"instruction": "Hi.", "output": "No."}] * 3)
    with (
        EventWriter(run.events_path, 1) as events,
        pytest.raises(RequestError, match="has changed since this run was made"),
    ):
        prepare(run, events)


def test_a_full_disk_is_told_and_training_goes_on(make: Make, unbroken: Unbroken) -> None:
    resource = pytest.importorskip("resource")
    run = make("qft", checkpoint_every=2)
    work(run, stop_after=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        work(run, kill_after=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # Two rows are held out, which each attempt tells.
    (notice,) = [e for e in events_of(run, "notice") if "held out" not in e["message"]]
    assert notice["message"] == (
        "The checkpoint of step 4 could not be saved: File too large. Older checkpoints are kept."
    )
    assert [entry.name for entry in run.checkpoints.iterdir()] == ["step-000002"]
    work(run)
    assert_same_state(final_state(run), unbroken("qft")[0])
