"""A run whose numbers stop being numbers ends as diverged, with the last good state kept."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from engine import attempt
from engine.checkpoint import committed
from engine.contract.errors import ExitCode
from engine.contract.events import EventReader, EventWriter
from engine.contract.run_dir import RunDir, create_run
from engine.contract.status import derive_status
from engine.preparation import Prepared, prepare
from engine.schedule import learning_rate
from tests.tiny import assert_same_state, prepared, snapshot, tiny_spec

NAN = float("nan")
BAD_STEP = 5
STACK = {"gradients": "stack"}


@pytest.fixture(autouse=True)
def _same_signals() -> Iterator[None]:
    """An engine listens to signals; this process is not one for good."""
    names = [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {name: signal.getsignal(name) for name in names}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


def spoiled(one: Prepared, where: str, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """From step 5 on the last norm gives a loss, or a gradient, that is no number."""
    model: Any = one.loaded.model
    step = one.method.step
    now: list[int] = [0]

    def counted(batches: Any, learning_rate: float, number: int) -> Any:
        now[0] = number
        return step(batches, learning_rate, number)

    def spoil(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if now[0] < BAD_STEP or not output.requires_grad:
            return None
        if where == "loss":
            return output * NAN
        output.register_hook(lambda gradient: gradient * NAN)
        return None

    monkeypatch.setattr(one.method, "step", counted)
    model.model.norm.register_forward_hook(spoil)
    return one


@pytest.mark.parametrize(
    ("settings", "where", "kept"),
    [
        ({}, "loss", 4),
        ({}, "gradient", 3),  # weights had moved already, so only what was saved before is good
        (STACK, "loss", 4),
        (STACK, "gradient", 4),
        ({**STACK, "preset": "paper"}, "gradient", 4),
    ],
    ids=str,
)
def test_the_last_good_state_is_kept(
    tiny_folder: Callable[[str], Path],
    chats_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    where: str,
    kept: int,
) -> None:
    train = {"steps": 8, "checkpoint_every": 3, "eval_every": 100, "schedule": "constant"}
    spec = tiny_spec(tiny_folder("llama"), chats_file, {"kind": "qft", **settings}, **train)
    run = create_run(tmp_path / "runs", spec)
    monkeypatch.setattr(
        attempt, "prepare", lambda run, events: spoiled(prepare(run, events), where, monkeypatch)
    )
    assert attempt.main(str(run.path)) == ExitCode.DIVERGED
    assert derive_status(run) == "diverged"
    result = run.result
    assert result is not None
    assert result["steps_done"] == 4
    error = result["error"]
    what = "the loss" if where == "loss" else "the gradient of "
    assert error["message"].startswith(f"At step 5 {what}")
    assert error["message"].endswith(f"The checkpoint of step {kept} is kept.")
    assert "learning rate" in error["advice"]
    assert committed(run)[0].name == f"step-{kept:06d}"
    assert all(
        event["step"] <= 4 for event in EventReader(run.events_path).read() if "step" in event
    )
    assert_same_state(restored(run), good_state(run, tmp_path, kept))
    assert not run.export.exists()


def restored(run: RunDir) -> dict[str, Tensor]:
    with EventWriter(run.events_path, 2) as events:
        return snapshot(prepare(run, events))


def good_state(run: RunDir, folder: Path, steps: int) -> dict[str, Tensor]:
    """The same steps without anything spoiled, and without the loop."""
    one = prepared(run.spec(), folder / "others")
    for step in range(1, steps + 1):
        if one.begins_epoch(step):
            one.method.new_epoch(step)
        rate = learning_rate(step, one.num_steps, one.spec.train)
        one.method.step(one.batches(step), rate, step)
    return snapshot(one)
