"""Sentences and frames: what a number means is said once, and text is only text."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.contract.events import EventWriter
from engine.contract.identity import current_identity
from engine.contract.method_settings import METHOD_KINDS, MethodKind
from engine.contract.status import TERMINAL, Status
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device
from qft_gui import chat_room, spec_fields
from qft_gui.chat_client import ChatError
from qft_gui.chat_room import ChatRoom, Settings
from qft_gui.forecasts import METHOD_CHOICES, Forecasts
from qft_gui.form import Form
from qft_gui.fragments import render
from qft_gui.service import Service
from qft_gui.snapshots import Snapshot
from qft_gui.view import (
    chat,
    fit_card,
    fitting,
    method_table,
    methods,
    numbers,
    run,
    runs,
    sentences,
    setup,
    terms,
    times,
)
from qft_gui.view.reading import read_curve
from qft_gui.view.status import STATUS_MARKS
from tests.test_gui_golden import golden_run, result, write_step

ATTACK = "<img src=x onerror=window.__xss=1> ${window.__xss=2} {{7*7}} `x`"


def snapshot(runs_folder: Path, **options: Any) -> Snapshot:
    golden_run(runs_folder, **options)
    return Service(runs_folder).snapshot("golden")


def with_evals(runs_folder: Path, losses: dict[int, float], steps: int = 100) -> Snapshot:
    run_dir = golden_run(runs_folder, steps=steps, done=1, outcome="finished")
    with EventWriter(run_dir.events_path, 1) as log:
        for step, loss in losses.items():
            log.emit("eval", step=step, loss_nats=loss, num_target_tokens=9)
    return Service(runs_folder).snapshot("golden")


def test_number_formats() -> None:
    assert doctest.testmod(numbers).failed == 0
    for module in (sentences, methods, spec_fields, fitting, times):
        assert doctest.testmod(module).failed == 0


def test_every_status_has_a_shape_and_a_word() -> None:
    assert set(TERMINAL) <= set(STATUS_MARKS)
    assert len({mark.word for mark in STATUS_MARKS.values()}) == len(STATUS_MARKS)


def test_a_finished_run_is_read_in_one_sentence(tmp_path: Path) -> None:
    fact, advice = read_curve(snapshot(tmp_path))
    assert fact == "Finished. Held-out loss fell from 2.80 to 0.64."
    assert advice == ""


def test_a_resume_that_starts_is_not_over(tmp_path: Path) -> None:
    run_dir = golden_run(tmp_path, done=46, outcome="stopped")
    run_dir.archive_attempt()
    run_dir.write_owner(current_identity().as_json())
    service = Service(tmp_path)
    before = service.snapshot("golden")
    with EventWriter(run_dir.events_path, 2) as log:
        log.emit("phase", phase="training", steps=60, resumed_at=46)
        at_work = service.snapshot("golden")
        write_step(log, 47, 60, 6.0)
    for now in (before, at_work):
        assert read_curve(now).fact == "Resuming after step 46."
        assert "Time left" not in {fact["name"] for fact in run.run_head(now)["facts"]}
    after = service.snapshot("golden")
    assert not after.is_resuming
    assert "Time left" in {fact["name"] for fact in run.run_head(after)["facts"]}


def test_a_loss_older_than_the_stop_says_its_step(tmp_path: Path) -> None:
    run_dir = golden_run(tmp_path, done=46, outcome="stopped")
    run_dir.write_result({**result("stopped", 46), "eval_step": 40, "train_s": 75.0})
    now = Service(tmp_path).snapshot("golden")
    facts = {fact["name"]: fact for fact in run.run_head(now)["facts"]}
    assert facts["Held-out loss"]["unit"] == "at step 40, was 2.80"
    assert facts["Took"]["value"] == "75 s"
    assert read_curve(now).advice == "Its held-out loss was last measured at step 40."


def test_learning_by_heart_is_said(tmp_path: Path) -> None:
    now = with_evals(tmp_path, {0: 2.8, 20: 1.2, 40: 1.4, 60: 1.7})
    fact, advice = read_curve(now)
    assert "rises since step 20" in fact
    assert advice.startswith("Step 20 was the best")


def test_no_progress_is_not_praised(tmp_path: Path) -> None:
    now = with_evals(tmp_path, {0: 2.8, 20: 2.8, 40: 2.79})
    assert "has not moved" in read_curve(now).fact


def test_rounding_that_trains_nothing_is_named(tmp_path: Path) -> None:
    fact, advice = read_curve(snapshot(tmp_path, moved=0.0001))
    assert fact.startswith("Almost no weight moves")
    assert "Stochastic" in advice


def test_before_the_first_step_the_phase_is_said(tmp_path: Path) -> None:
    golden_run(tmp_path, done=0, outcome="interrupted")
    fact, _ = read_curve(Service(tmp_path).snapshot("golden"))
    assert fact == "It ended before the first step."


def test_the_head_shows_forecast_beside_measured(tmp_path: Path) -> None:
    facts = {fact["name"]: fact for fact in run.run_head(snapshot(tmp_path))["facts"]}
    assert facts["Step"]["value"] == "60"
    assert "3.1 % too high" in facts["Tensors at peak (without Python and PyTorch)"]["unit"]
    assert facts["Held-out loss"]["unit"] == "was 2.80"


def test_replies_keep_the_one_before_training(tmp_path: Path) -> None:
    frame = run.replies(snapshot(tmp_path))
    for item in frame["items"]:
        assert (item["before"], item["now"]) == ("I am small.", "Arr!")
    assert frame["step"] == 60


def test_a_failure_says_what_was_kept_and_the_way_out(tmp_path: Path) -> None:
    error = {"class": "out_of_memory", "message": "Ran out at step 14.", "advice": "Batch 4."}
    now = snapshot(tmp_path, done=14, outcome="out_of_memory", error=error)
    html = render("failure", **(run.failure(now) or {}))
    for words in ("Ran out at step 14.", "No checkpoint was made.", "Batch 4.", "attempt 1"):
        assert words in html


def test_a_killed_run_is_interrupted_and_says_so(tmp_path: Path) -> None:
    golden_run(tmp_path, done=14, outcome="interrupted")
    (tmp_path / "golden" / "result.json").unlink()
    now = Service(tmp_path).snapshot("golden")
    assert now.status.status == "interrupted"
    assert run.failure(now) is not None


@pytest.mark.parametrize("status", ["finished", "stopped"])
def test_a_run_that_did_not_fail_has_no_failure(tmp_path: Path, status: Status) -> None:
    assert run.failure(snapshot(tmp_path, outcome=status)) is None


def test_the_table_of_runs(tmp_path: Path) -> None:
    (row,) = runs.runs_table([snapshot(tmp_path)])["runs"]
    assert (row["was"], row["now"], row["off"]) == ("2.80", "0.64", "+3.1 %")
    for words in ("2.80 → 0.64", "forecast", "(+3.1 %)"):
        assert words in row["summary"]
    assert len(row["spark"].split()) > 10
    assert all(0 <= float(pair.split(",")[1]) <= 32 for pair in row["spark"].split())


def test_text_from_models_data_and_errors_is_only_text(tmp_path: Path) -> None:
    error = {"class": ATTACK, "message": ATTACK, "advice": ATTACK}
    run_dir = golden_run(tmp_path, outcome="failed", error=error)
    with EventWriter(run_dir.events_path, 1) as log:
        log.emit("sample", step=60, items=[{"prompt": ATTACK, "reply": ATTACK}])
        log.emit("notice", message=ATTACK)
    now = Service(tmp_path).snapshot("golden")
    pages = [
        render("run_head", **run.run_head(now)),
        render("failure", **(run.failure(now) or {})),
        render("replies", **run.replies(now)),
        render("runs_table", **runs.runs_table([now])),
        render("sentence", tone="bad", text=ATTACK),
        render("confirm", name=ATTACK),
    ]
    assert sum("&lt;img" in page for page in pages) >= 4
    for page in pages:
        assert "<img" not in page
        assert "49" not in page.replace("{{7*7}}", "")


def test_the_parts_of_the_bar_add_up_to_the_total() -> None:
    forecasts = Forecasts()
    for choice in METHOD_CHOICES:
        form = Form(model="llama-2-7b", device="cpu").with_method(*choice)
        forecast = forecasts.report(form.document()).chosen
        assert forecast is not None
        parts = terms.shown_terms(forecast)
        assert sum(parts.values()) == forecast.total_bytes
        assert min(parts.values()) > 0


def test_the_limit_is_left_out_where_it_is_far_away() -> None:
    assert method_table.axis([1], 100) == (1.2, False)
    assert method_table.axis([50], 100) == (145.0, True)
    assert method_table.axis([50], None) == (60.0, False)


def test_a_tight_fit_is_said_as_one() -> None:
    shape = bundled_shape("llama-3.2-1b")
    assert shape is not None
    forecasts = Forecasts()
    report = forecasts.report(Form(model="llama-3.2-1b", device="cpu").document())
    assert report.chosen is not None
    middle = (report.chosen.total_bytes + report.chosen.high_bytes) // 2
    tight = replace(report.chosen, free_bytes=middle)
    device = Device("cuda:0", "cuda", "GPU", middle * 2, middle)
    rows = tuple(
        replace(row, prospect=replace(row.prospect, forecast=tight))
        if row.is_chosen and row.prospect
        else row
        for row in report.methods
    )
    frame = fit_card.fit_card(replace(report, methods=rows, device=device))
    assert frame["mark"].word.startswith("Tight")
    assert frame["has_limit"]


def table_rows(form: Form) -> dict[str, dict[str, Any]]:
    report = Forecasts().report(form.document())
    families = method_table.method_table(report)["families"]
    return {row["key"]: row for family in families for row in family["rows"]}


def test_every_method_and_every_preset_is_a_row_with_a_sentence() -> None:
    rows = table_rows(Form(device="cpu"))
    assert set(rows) == {choice.key for choice in METHOD_CHOICES}
    assert len({row["name"] for row in rows.values()}) == len(rows)
    assert [key for key, row in rows.items() if row["picked"]] == ["qft-balanced"]
    assert rows["qft-paper"]["name"] == "QFT paper"
    assert rows["qlora-balanced"]["name"] == "QLoRA"
    assert rows["qft-paper"]["gives"] == (
        "As published; at fine-tuning rates it mostly trains scales and outliers"
    )
    assert len({row["gives"] for row in rows.values()}) == len(rows)
    assert all(row["known"] for row in rows.values())


def test_full_tuning_is_called_by_what_it_does() -> None:
    form = Form(device="cpu").with_method("full", None)
    assert table_rows(form)["full"]["name"] == "Full"
    assert table_rows(form)["full"]["gives"].endswith("in 32 bits, with AdamW: the yardstick")
    other = form.with_values({"full.optimizer": "adamw_8bit", "full.precision": "bf16"})
    row = table_rows(other)["full"]
    assert (row["name"], row["gives"]) == (
        "Full, changed",
        "Every weight in 16 bits, with 8-bit AdamW",
    )


def test_the_bits_of_lomo_are_the_devices_own() -> None:
    form = Form(device="cpu").with_method("lomo", None)
    assert table_rows(form)["lomo"]["gives"].endswith("weights in 32 bits")
    in_bf16 = form.with_values({"lomo.precision": "bf16"})
    assert table_rows(in_bf16)["lomo"]["gives"].endswith("weights in 16 bits")


@pytest.mark.parametrize(("model", "is_said"), [("starter", True), ("smollm2-135m", False)])
def test_where_all_methods_are_mostly_python_the_table_says_so(model: str, is_said: bool) -> None:
    report = Forecasts().report(Form(model=model, device="cpu").document())
    page = render("method_table", **method_table.method_table(report))
    assert ("Most of this is Python and PyTorch" in page) is is_said


@pytest.mark.parametrize(("typed", "shown"), [(512, "512"), (4096, "2,048, all that")])
def test_a_length_beyond_the_model_says_what_is_used(typed: int, shown: str) -> None:
    form = Form(model="tinyllama-1.1b", device="cpu", sequence_length=typed)
    facts = dict(fit_card.fit_card(Forecasts().report(form.document()))["facts"])
    assert facts["Length"].startswith(shown)


def test_a_preset_with_other_settings_says_that_it_is_changed() -> None:
    paper = Form(device="cpu").with_method("qft", "paper")
    rows = table_rows(paper.with_values({"qft.rounding": "stochastic"}))
    assert {row["name"] for row in rows.values() if row["picked"]} == {"QFT paper, changed"}
    assert rows["qft-lean"]["name"] == "QFT lean"
    note = setup.preset_note(paper.choice, ["Rounding", "Update"])
    assert "QFT paper, changed" in render("preset_note", **note)
    assert "changed" not in render("preset_note", **setup.preset_note(paper.choice, []))


def test_methods_that_change_every_weight_stand_apart_from_adapters() -> None:
    report = Forecasts().report(Form(device="cpu").document())
    families = method_table.method_table(report)["families"]
    kinds = {one["name"]: {row["key"].partition("-")[0] for row in one["rows"]} for one in families}
    assert kinds == {
        "Every weight": {"qft", "lomo", "adalomo", "full"},
        "An adapter": {"qlora", "lora"},
    }


@pytest.mark.parametrize("kind", METHOD_KINDS)
def test_a_run_of_every_method_is_shown(tmp_path: Path, kind: MethodKind) -> None:
    now = snapshot(tmp_path, kind=kind)
    assert f"· {methods.METHOD_NAMES[kind]}" in run.run_head(now)["about"]
    page = render("run_head", **run.run_head(now)) + render("runs_table", **runs.runs_table([now]))
    assert page.count(f"· {methods.METHOD_NAMES[kind]}") == 2


def test_a_method_that_cannot_do_it_says_why_and_the_others_keep_their_numbers() -> None:
    rows = table_rows(replace(Form(device="cpu"), max_grad_norm="1"))
    for name in ("balanced", "lean", "quality"):
        row = rows[f"qft-{name}"]
        assert row["why_not"] == (
            "Fused updates move each weight before the whole gradient's length is known."
        )
        assert (row["known"], row["mark"].word) == (False, "Cannot")
    assert rows["qft-paper"]["known"]
    assert rows["full"]["known"]


def test_a_mistake_that_is_no_methods_own_is_not_told_in_every_row() -> None:
    for row in table_rows(Form(device="cpu", steps=0)).values():
        assert (row["known"], row["why_not"], row["mark"].word) == (False, "", "Waits")


class FakeClient:
    """A chat client without a worker."""

    def __init__(self) -> None:
        self.loaded: tuple[str, str | None] | None = None
        self.closed_early = False
        self.problem = ""

    def load(self, base: str, tuned: str | None, **_: Any) -> dict[str, Any]:
        self.loaded = (base, tuned)
        return {"different": True, "largest_difference": 1.5, "seconds": 0.1}

    def ask(self, messages: dict[str, Any], **_: Any) -> Iterator[dict[str, Any]]:
        try:
            if self.problem:
                raise ChatError(self.problem, "Load them again.")
            for side in messages:
                for word in ("Arr, ", "matey!"):
                    yield {"event": "text", "side": side, "text": word}
                yield {
                    "event": "done",
                    "side": side,
                    "num_tokens": 4,
                    "seconds": 2.0,
                    "first_token_s": 0.25,
                    "stopped": False,
                }
        except GeneratorExit:
            self.closed_early = True
            raise

    def close(self) -> None:
        self.loaded = None


QUESTION: dict[chat_room.Side, list[dict[str, str]]] = {
    side: [{"role": "user", "content": "Hi"}] for side in chat_room.SIDES
}


def room_with(client: FakeClient) -> ChatRoom:
    return ChatRoom(client)  # pyright: ignore[reportArgumentType]


def test_both_sides_answer_and_the_proof_is_earned() -> None:
    answers = list(room_with(FakeClient()).ask(("a", "b"), QUESTION, Settings()))
    last = answers[-1]
    assert answers[0].loading_s == 0
    assert {side: reply.text for side, reply in last.replies.items()} == {
        "a": "Arr, matey!",
        "b": "Arr, matey!",
    }
    assert last.proof is not None
    # This client knows of no records.
    assert "Two different models, of which there is no record" in chat.proof_mark(last.proof).word
    assert all(reply.is_done and reply.num_tokens == 4 for reply in last.replies.values())


def test_a_second_tab_is_told_to_wait() -> None:
    room = room_with(FakeClient())
    first = room.ask(("a", "b"), QUESTION, Settings())
    next(first)
    second = room.ask(("a", "b"), QUESTION, Settings())
    assert "Another tab" in next(second).waiting
    assert not room.unload()
    first.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert list(second)[-1].replies["b"].is_done
    assert room.unload()


def test_a_run_is_let_go_before_it_is_deleted(tmp_path: Path) -> None:
    client = FakeClient()
    room = room_with(client)
    list(room.ask(("starter", str(tmp_path / "a" / "export")), QUESTION, Settings()))
    room.let_go(tmp_path / "b")
    assert room.is_loaded
    room.let_go(tmp_path / "a")
    assert not room.is_loaded


def test_a_run_that_answers_is_not_let_go(tmp_path: Path) -> None:
    room = room_with(FakeClient())
    answers = room.ask(("starter", str(tmp_path / "export")), QUESTION, Settings())
    while not next(answers).replies:
        pass
    with pytest.raises(RequestError, match="Stop the answer"):
        room.let_go(tmp_path)


def test_a_closed_tab_stops_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_room, "SHOW_EVERY_S", 0.0)
    client = FakeClient()
    asking = room_with(client).ask(("a", "b"), QUESTION, Settings())
    while not any(reply.text for reply in next(asking).replies.values()):
        pass
    asking.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert client.closed_early


def test_a_worker_that_fails_is_one_sentence_and_the_room_is_free_again() -> None:
    client = FakeClient()
    client.problem = "The models are too large."
    room = room_with(client)
    *_, last = room.ask(("a", "b"), QUESTION, Settings())
    assert last.problem == "The models are too large. Load them again."
    client.problem = ""
    *_, last = room.ask(("a", "b"), QUESTION, Settings())
    assert last.replies["b"].is_done
