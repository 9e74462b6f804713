"""Fit it for me: what is changed, what is only offered, the way back, and what else would do."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from engine.contract.bundled import catalogue
from engine.memory.changes import Change, Setting
from engine.memory.devices import Device
from engine.memory.fit import Fitting, fit
from engine.memory.gpus import would_fit
from engine.memory.holders import Holder
from engine.memory.machine_rates import MachineRates, device_key, save_rates
from qft_gui import forecasts as forecasts_module
from qft_gui.applied import Applied, applied
from qft_gui.checks import Checks
from qft_gui.forecasts import METHOD_CHOICES, Forecasts, Report
from qft_gui.form import OTHER, Form, input_names
from qft_gui.own_datasets import OwnDatasets
from qft_gui.pages.data_desk import DataDesk
from qft_gui.pages.picked import Picked
from qft_gui.pages.setup_desk import Desk
from qft_gui.prospects import change_key
from qft_gui.service import Service
from qft_gui.setup_frames import Frames, setup_frames
from qft_gui.surroundings import Situation
from qft_gui.view import terms
from qft_gui.view.fit_card import fit_card
from qft_gui.view.fitting import room, settings_words
from qft_gui.view.method_table import method_table
from qft_gui.view.times import time_card

GIB = 1 << 30
GPU = Device("cuda:0", "cuda", "GeForce RTX 4070", 12 * GIB, 11 * GIB)


@pytest.fixture
def forecasts(monkeypatch: pytest.MonkeyPatch) -> Forecasts:
    """Forecasts for a GPU with 12 GiB, 11 of them free."""
    monkeypatch.setattr(forecasts_module, "choose_device", lambda wish: GPU)
    return Forecasts()


def too_large() -> Form:
    """What fits once its batch is taken in several."""
    form = Form(model="qwen2.5-0.5b", batch_size=256, sequence_length=512)
    return form.with_method("lora", None)


def fitting_of(forecasts: Forecasts, form: Form) -> Fitting:
    found = forecasts.report(form.document()).fitting
    assert found is not None
    return found


def done(forecasts: Forecasts, form: Form, **options: Any) -> Applied:
    found = applied(form, fitting_of(forecasts, form), options.get("key"), options.get("earlier"))
    assert found is not None
    return found


def test_one_click_makes_it_fit_and_keeps_the_effective_batch(forecasts: Forecasts) -> None:
    form = too_large()
    after = done(forecasts, form).after
    report = forecasts.report(after.document())
    assert report.chosen is not None
    assert report.chosen.verdict == "fits"
    assert report.fitting is None
    assert after.batch_size is not None
    assert after.grad_accumulation is not None
    assert after.batch_size * after.grad_accumulation == 256
    assert after.sequence_length == 512


def test_undo_is_the_way_back_and_keeps_what_was_changed_meanwhile(forecasts: Forecasts) -> None:
    form = too_large()
    change = done(forecasts, form)
    assert change.undone(change.after) == form
    meanwhile = replace(change.after, seed=7)
    assert change.stands_in(meanwhile)
    assert change.undone(meanwhile) == replace(form, seed=7)
    assert not change.stands_in(replace(change.after, batch_size=3))


def test_what_needs_consent_is_offered_and_never_done_by_the_first_click(
    forecasts: Forecasts,
) -> None:
    form = replace(too_large(), model="llama-3.2-1b").with_method("qft", "balanced")
    fitting = fitting_of(forecasts, form)
    assert any(change.fits for change in fitting.further)
    assert all(change.needs_consent for change in fitting.further)
    first = applied(form, fitting, None, None)
    assert first is None or not any(change.needs_consent for change in first.changes)
    page = setup_frames(form, forecasts).fit
    assert page.count('data-do="apply"') == len(fitting.further)
    assert ('data-do="fit"' in page) is bool(fitting.changes)


@pytest.mark.parametrize("choice", METHOD_CHOICES, ids=lambda choice: choice.key)
def test_every_way_that_says_that_it_fits_does_once_it_is_applied(
    forecasts: Forecasts, choice: Any
) -> None:
    form = Form(model="llama-3.2-1b", batch_size=64, sequence_length=512).with_method(*choice)
    found = forecasts.report(form.document()).fitting
    for change in found.further if found else ():
        after = done(forecasts, form, key=change_key(change)).after
        report = forecasts.report(after.document())
        assert report.chosen is not None
        assert (report.chosen.verdict == "fits") is change.fits
        # More only where activations are kept again, because there is room for them now.
        assert change.fits or report.chosen.total_bytes == change.total_bytes


def test_another_preset_is_taken_beside_what_only_this_one_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = replace(GPU, total_bytes=24 * GIB, free_bytes=round(20.7 * GIB))
    monkeypatch.setattr(forecasts_module, "choose_device", lambda wish: device)
    forecasts = Forecasts()
    form = Form(model="llama-2-7b").with_method("qft", "paper")
    fitting = fitting_of(forecasts, form)
    set_to = {one.field: one.after for change in fitting.changes for one in change.settings}
    assert set_to["train.grad_accumulation"] > 1
    lighter = [change for change in fitting.further if change.field == "method.preset"]
    assert lighter
    for change in lighter:
        after = done(forecasts, form, key=change_key(change)).after
        report = forecasts.report(after.document())
        assert not report.errors
        assert report.chosen is not None
        assert report.chosen.total_bytes == change.total_bytes


def test_where_nothing_helps_the_least_need_and_a_gpu_are_said(forecasts: Forecasts) -> None:
    form = Form(model="llama-2-13b").with_method("full", None)
    fitting = fitting_of(forecasts, form)
    assert not any(change.fits for change in fitting.further)
    page = setup_frames(form, forecasts).fit
    assert "No setting of Full makes it fit here" in page
    assert "As it stands, it needs" in page
    report = forecasts.report(form.document())
    assert {key.partition("-")[0] for key in fitting_keys(report)} == {"qlora"}
    assert "QLoRA fits: " in page
    assert fitting.gpu is None or fitting.gpu.gpu.name in page
    assert 'data-do="apply"' not in page
    assert 'data-do="fit"' not in page


def fitting_keys(report: Report) -> list[str]:
    rows = [row for row in report.methods if row.forecast and row.forecast.verdict == "fits"]
    return [row.choice.key for row in rows]


def test_where_nothing_helps_another_method_that_trains_every_weight_is_named(
    forecasts: Forecasts,
) -> None:
    form = Form(model="llama-3.2-3b").with_method("full", None)
    report = forecasts.report(form.document())
    assert {"qft-balanced", "qft-lean", "qlora-balanced"} < set(fitting_keys(report))
    sentence = fit_card(report)["offer"]["sentence"]
    assert "No setting of Full makes it fit here" in sentence
    assert "QFT balanced fits: " in sentence


def test_another_method_starts_from_what_the_person_set(forecasts: Forecasts) -> None:
    form = too_large()
    picked = Picked()
    picked.choice = form.choice
    picked.applied = done(forecasts, form)
    after = picked.applied.after
    data = DataDesk(OwnDatasets(Path("/nowhere/runs")), Checks())
    desk = Desk(Service(Path("/nowhere")), forecasts, data)
    values = [after.value(name) for name in input_names()]
    event = gr.EventData(None, {"choice": "qft-balanced"})
    updates = desk.pick(event, {}, picked, *values)
    inputs = dict(zip(input_names(), updates[-len(values) :], strict=True))
    assert (inputs["batch_size"]["value"], inputs["grad_accumulation"]["value"]) == (256, 1)
    assert picked.applied is None
    assert any("What made LoRA fit was taken back." in str(one) for one in updates)


def test_what_a_person_set_after_a_change_is_theirs(forecasts: Forecasts) -> None:
    form = too_large()
    change = done(forecasts, form)
    own = replace(change.after, batch_size=3)
    assert change.undone(own) == replace(form, batch_size=3)


def test_a_preset_stands_for_what_it_brings_and_for_nothing_else() -> None:
    settings = (
        Setting("train.batch_size", 8, 1),
        Setting("method.preset", "quality", "lean"),
        Setting("method.moment_bits", 8, 4),
        Setting("train.sequence_length", 512, 256),
    )
    change = Change(settings, 1, 1, True, 1.0, True, "")
    said = settings_words([change], "qft").replace("\N{NO-BREAK SPACE}", " ")
    assert said == "batch size 8 → 1, preset quality → lean, sequence length 512 → 256"


def test_start_says_that_it_would_not_fit(forecasts: Forecasts) -> None:
    assert setup_frames(Form(), forecasts).start_label == "Start training"
    large = Form(model="llama-2-13b").with_method("full", None)
    assert setup_frames(large, forecasts).start_label == "Start anyway"


def test_two_changes_are_taken_back_together(forecasts: Forecasts) -> None:
    form = Form(model="llama-2-13b", batch_size=64).with_method("lora", None)
    first = done(forecasts, form)
    way = fitting_of(forecasts, first.after).further[0]
    second = done(forecasts, first.after, key=change_key(way), earlier=first)
    assert second.changes == (*first.changes, way)
    assert second.undone(second.after) == form


def test_a_way_that_is_not_offered_changes_nothing(forecasts: Forecasts) -> None:
    form = too_large()
    assert applied(form, fitting_of(forecasts, form), "data.source=/etc/passwd", None) is None


@pytest.mark.parametrize("model", ["starter", "llama-3.2-1b", "qwen2.5-7b", "llama-2-13b"])
def test_the_row_of_a_method_offers_what_fit_finds(forecasts: Forecasts, model: str) -> None:
    report = forecasts.report(Form(model=model, batch_size=32).document())
    assert report.shape is not None
    for row in report.methods:
        assert row.prospect is not None
        if row.prospect.forecast.verdict == "fits":
            assert row.prospect.changes is None
            continue
        whole = fit(row.prospect.spec, report.shape, GPU)
        can_fit = whole.fits or any(change.fits for change in whole.further)
        assert (row.prospect.changes is not None) is can_fit
        if whole.fits:
            assert row.prospect.changes == whole.changes


def test_what_fits_has_no_button_and_no_hint(forecasts: Forecasts) -> None:
    now = setup_frames(Form(), forecasts)
    assert 'data-do="fit"' not in now.fit
    assert 'data-do="apply"' not in now.fit
    assert "it with" not in now.methods.replace("fits with", "")


def test_the_list_of_gpus_says_what_the_engine_says(forecasts: Forecasts) -> None:
    report = forecasts.report(Form(model="llama-2-7b").document())
    assert report.spec is not None
    assert report.shape is not None
    found = {size.memory_gib: size.verdict for size in report.cards}
    largest = max(found)
    assert found[largest] == "fits"
    holding = {one.gpu.memory_gib for one in would_fit(report.spec, report.shape)}
    assert {size for size, verdict in found.items() if verdict == "fits"} <= holding
    assert "too_large" in found.values()
    frame = fit_card(report)
    assert len(frame["cards"]) == len(report.cards)
    smallest = min(size for size, verdict in found.items() if verdict == "fits")
    assert f"with {smallest} GiB" in frame["needed"]


def test_every_term_of_every_method_is_explained_with_its_source(forecasts: Forecasts) -> None:
    for choice in METHOD_CHOICES:
        form = Form(model="llama-3.2-1b").with_method(*choice)
        for term in fit_card(forecasts.report(form.document()))["terms"]:
            assert term["meaning"].endswith(".")
            assert term["source"].endswith(".")
            assert ("exact" in term["source"]) is (
                not term["is_modelled"] and term["key"] != "runtime"
            )


def test_a_modelled_term_says_how_many_runs_it_was_compared_with() -> None:
    report = Forecasts().report(Form(device="cpu").document())
    (source,) = [t["source"] for t in fit_card(report)["terms"] if t["key"] == "activations"]
    cases = json.loads(terms.COMPARED.read_text())["cases"]
    number = sum(case["architecture"] == "llama" for case in cases)
    assert f"compared with {number} measured runs" in source
    assert "± 10 %" in source


def test_a_corrected_forecast_names_itself() -> None:
    report = Forecasts().report(Form(device="cpu").document())
    row = report.chosen_row
    assert row is not None
    assert row.prospect is not None
    corrected = replace(row, prospect=replace(row.prospect, is_corrected=True))
    rows = tuple(corrected if one.is_chosen else one for one in report.methods)
    for term in fit_card(replace(report, methods=rows))["terms"]:
        assert ("Corrected by what runs" in term["source"]) is term["is_modelled"]


def test_who_holds_the_rest_is_named_and_unknown_is_not_nothing() -> None:
    held = (
        Holder("firefox", 1, round(1.2 * GIB), "other"),
        Holder("the chat", 2, None, "chat"),
        Holder("small", 3, 1 << 20, "other"),
    )
    said = room(GPU, held)
    assert said.startswith("11.0 of 12.0 GiB are free on the GeForce RTX 4070.")
    assert "firefox 1.2" in said
    assert "the chat (the driver does not say how much)" in said
    assert "small" not in said
    assert "Held now" not in room(GPU, None)


def measured(device: Device) -> None:
    save_rates(MachineRates(device_key(device), {"float32": 1e11}, 1e10, 1e-5))


def test_time_is_not_known_before_the_device_was_measured(
    forecasts: Forecasts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = forecasts.report(Form().document())
    assert "not known yet" in time_card(before, Situation())["sentence"]
    assert "being measured" in time_card(before, Situation(is_measuring=True))["sentence"]
    assert not method_table(before)["has_time"]
    measured(GPU)
    after = forecasts.report(Form().document())
    card = time_card(after, Situation())
    assert card["sentence"].startswith("About ")
    assert " in all (" in card["sentence"]
    assert card["source"]
    assert method_table(after)["has_time"]
    rows = [row for family in method_table(after)["families"] for row in family["rows"]]
    assert all(row["time"]["total"].endswith("in all") for row in rows)


def test_nothing_is_tried_while_a_run_holds_the_computer(forecasts: Forecasts) -> None:
    report = forecasts.report(Form().document())
    card = time_card(report, Situation(run="otto"))
    assert "once otto has ended" in card["busy"]


def test_the_gain_of_a_method_is_said_where_it_was_measured(forecasts: Forecasts) -> None:
    def rows_of(form: Form) -> dict[str, str]:
        families = method_table(forecasts.report(form.document()))["families"]
        return {row["key"]: row["learns"] for family in families for row in family["rows"]}

    rows = rows_of(Form())
    assert rows["qft-balanced"].endswith("of full tuning's gain")
    assert rows["qft-paper"].endswith("% at low rates")
    assert rows["qlora-paper"] == rows["full"] == ""
    assert rows_of(Form().with_values({"qft.moment_bits": 4}))["qft-balanced"] == ""


def absurd_model(folder: Path, **sizes: int) -> Path:
    folder.mkdir()
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 1000,
        **sizes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def page_of(forecasts: Forecasts, folder: Path) -> Frames:
    return setup_frames(Form(model=OTHER, model_path=str(folder)), forecasts)


def test_a_config_that_cannot_be_read_is_a_sentence_at_once(
    forecasts: Forecasts, tmp_path: Path
) -> None:
    folder = absurd_model(tmp_path / "model")
    (folder / "config.json").write_text("{")
    now = page_of(forecasts, folder)
    assert list(now.wrong) == ["model_path"]
    assert not now.is_reading


@pytest.mark.parametrize("sizes", [{"vocab_size": 10**12}, {"num_hidden_layers": 10**6}])
def test_an_absurd_size_is_a_sentence_at_once(
    forecasts: Forecasts, tmp_path: Path, sizes: dict[str, int]
) -> None:
    began = time.process_time()  # other processes may have the processor
    now = page_of(forecasts, absurd_model(tmp_path / "model", **sizes))
    assert time.process_time() - began < 0.2
    assert list(now.wrong) == ["model_path"]
    assert f"{next(iter(sizes.values())):,}" in now.waits[0]
    assert not now.is_reading


def test_a_method_that_does_not_apply_is_a_sentence_in_its_row(forecasts: Forecasts) -> None:
    now = setup_frames(Form(model="gpt2").with_method("qlora", "balanced"), forecasts)
    assert "Cannot" in now.methods
    assert now.waits


def test_every_catalogue_model_has_an_answer_for_every_method(forecasts: Forecasts) -> None:
    for model in catalogue():
        report: Report = forecasts.report(Form(model=model).document())
        assert not report.errors
        assert all(row.prospect or row.refusal for row in report.methods), model


def test_every_input_may_be_touched_and_undone() -> None:
    form = Form()
    change = Applied(form, replace(form, batch_size=1), (), 0)
    assert change.touched == ("batch_size",)
    assert set(change.touched) <= set(input_names())
