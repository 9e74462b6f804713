"""The Setup page's fields: to a spec, and mistakes back to the field that made them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from engine.contract.errors import RequestError
from engine.contract.spec_file import validate_spec
from engine.memory.devices import Device
from qft_gui import engine_commands, readers
from qft_gui import forecasts as forecasts_module
from qft_gui.forecasts import Forecasts
from qft_gui.form import LABELS, OTHER, Form, field_names, place_of
from qft_gui.pages.setup_fields import CHOICES, fine_inputs, method_inputs
from qft_gui.setup_frames import Frames, setup_frames

SMALL = "smollm2-135m"
GIB = 1 << 30


@pytest.fixture
def forecasts(monkeypatch: pytest.MonkeyPatch) -> Forecasts:
    """Forecasts for a GPU with 12 GiB, 11 of them free."""
    gpu = Device("cuda:0", "cuda", "GeForce RTX 4070", 12 * GIB, 11 * GIB)
    monkeypatch.setattr(forecasts_module, "choose_device", lambda wish: gpu)
    return Forecasts()


def form_with(values: dict[str, Any]) -> Form:
    """The default form with other values, by the names of its fields."""
    return Form(model=SMALL).with_values(values)


def frames(forecasts: Forecasts, **values: Any) -> Frames:
    """The page; a setting of QFT may be given without its method."""
    full_names = {
        f"qft.{name}" if f"qft.{name}" in LABELS else name: values[name] for name in values
    }
    return setup_frames(form_with(full_names), forecasts)


def test_the_default_form_is_a_valid_spec() -> None:
    spec = validate_spec(Form().document())
    assert (spec.model.source, spec.data.source, spec.method.kind) == ("starter", "pirate", "qft")
    assert spec.train.learning_rate is None


def test_the_browser_sends_floats_and_nothing_for_empty() -> None:
    values = {name: Form().value(name) for name in field_names()}
    assert Form.of(*values.values()) == Form()
    values |= {"steps": 80.0, "learning_rate": None, "name": None, "batch_size": None}
    document = Form.of(*values.values()).document()
    assert document["train"]["steps"] == 80
    assert "learning_rate" not in document["train"]
    assert "batch_size" not in document["train"]


@pytest.mark.parametrize("typed", ["2e-4", "0.0002", "0,0002", " 2E-4 "])
def test_a_learning_rate_may_be_typed_as_people_do(typed: str) -> None:
    assert Form(learning_rate=typed).document()["train"]["learning_rate"] == 2e-4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 1.5),
        ("batch_size", 0),
        ("sequence_length", -3),
        ("learning_rate", "fast"),
        ("learning_rate", "nan"),
        ("eval_percent", 80),
        ("seed", -1),
        ("grad_accumulation", 0),
        ("grad_accumulation", 2),
        ("max_grad_norm", "long"),
        ("max_grad_norm", "1"),
        ("weight_decay", 2),
        ("schedule", "never"),
        ("batching", "some"),
        ("activation_checkpointing", "perhaps"),
        ("device", "tpu"),
        ("model_path", ""),
        ("model_path", "/nowhere/at/all"),
        ("data_path", ""),
        ("data_path", "/nowhere/at/all.jsonl"),
    ],
)
def test_a_mistake_stands_at_its_field_and_start_waits(
    forecasts: Forecasts, field: str, value: object
) -> None:
    origin = {"model_path": {"model": OTHER}, "data_path": {"data": OTHER}}.get(field, {})
    now = setup_frames(form_with({**origin, field: value}), forecasts)
    assert list(now.wrong) == [field]
    (waits,) = now.waits
    assert waits.startswith(LABELS[field])
    assert "Start waits" in now.refusal
    assert "Start waits" not in now.fit


@pytest.mark.parametrize("batching", [value for _, value in CHOICES["batching"]])
def test_how_batches_are_made_reaches_the_run(batching: str) -> None:
    assert validate_spec(form_with({"batching": batching}).document()).train.batching == batching


@pytest.mark.parametrize("recompute", ["auto", True, False])
def test_recomputing_reaches_the_run(recompute: str | bool) -> None:
    form = form_with({"activation_checkpointing": recompute})
    assert validate_spec(form.document()).train.activation_checkpointing is recompute


def test_int8_products_with_outliers_are_refused_at_their_field(forecasts: Forecasts) -> None:
    now = frames(forecasts, matmul="int8", outlier_percent=1)
    assert list(now.wrong) == ["qft.matmul"]
    assert now.waits[0].startswith("Matmul: int8 products need one scale per row")


def test_fused_updates_are_refused_where_stacked_gradients_are_not(forecasts: Forecasts) -> None:
    wish: dict[str, Any] = {"grad_accumulation": 4, "max_grad_norm": "0.5"}
    fused = frames(forecasts, **wish)
    assert set(fused.wrong) == set(wish)
    assert fused.wrong["grad_accumulation"].endswith(
        "Set Accumulation to 1, or Gradients to stack."
    )
    assert "set Gradients to stack" in fused.wrong["max_grad_norm"]
    stacked = frames(forecasts, **wish, gradients="stack")
    assert not stacked.waits
    assert "QFT balanced, changed" in stacked.methods


def test_the_forecast_follows_the_settings_of_qft(forecasts: Forecasts) -> None:
    def total(**values: Any) -> int:
        settings = {f"qft.{name}": value for name, value in values.items()}
        form = form_with({"model": "llama-2-7b", **settings})
        report = forecasts.report(form.document())
        assert report.chosen is not None
        return report.chosen.total_bytes

    assert total(moment_bits=4) < total() < total(residual_bits=4) < total(residual_bits=8)
    assert total() < total(outlier_percent=0.5) < total(outlier_percent=1)
    assert total() < total(update="adamw")
    assert total() < total(gradients="stack")


def test_no_command_is_offered_for_what_cannot_run(forecasts: Forecasts) -> None:
    assert "python -m engine run" in frames(forecasts).command
    refused = (RequestError("name", "a run called x exists already."),)
    for now in (
        frames(forecasts, batch_size=0),
        frames(forecasts, model=OTHER, model_path=""),
        setup_frames(form_with({"name": "x"}), forecasts, refused),
    ):
        assert "python -m engine run" not in now.command
        assert "once the mistakes above are mended" in now.command


def test_several_mistakes_are_told_at_once(forecasts: Forecasts) -> None:
    now = frames(forecasts, batch_size=0, learning_rate="fast", data=OTHER, data_path="/no.jsonl")
    assert set(now.wrong) == {"batch_size", "learning_rate", "data_path"}
    assert [line.partition(":")[0] for line in now.waits] == ["File", "Batch size", "Learning rate"]
    assert now.refusal.count("<li>Batch size: ") == 1
    assert now.refusal.count("<li>Learning rate: ") == 1


def test_no_input_rounds_what_is_typed() -> None:
    with gr.Blocks():
        steps = fine_inputs()["steps"]
        outliers = method_inputs("qft", is_shown=True)[1]["qft.outlier_percent"]
    assert steps.preprocess(1.5) == 1.5
    assert outliers.preprocess(0.25) == 0.25
    assert Form(steps=steps.preprocess(60.0)).document()["train"]["steps"] == 60


def test_a_refusal_of_the_engine_stands_at_its_field_and_start_does_not_wait(
    forecasts: Forecasts,
) -> None:
    refused = (RequestError("name", "a run called x exists already.", "Choose another name."),)
    now = setup_frames(Form(model=SMALL, name="x"), forecasts, refused)
    assert now.wrong == {"name": "A run called x exists already. Choose another name."}
    assert not now.waits
    assert "exists already" in now.refusal


@pytest.mark.parametrize(
    "field",
    [
        *("model.source", "model.revision", "data.source"),
        *(f"train.{name}" for name in ("seed", "schedule", "weight_decay", "max_grad_norm")),
        *(f"train.{name}" for name in ("batching", "activation_checkpointing", "epochs")),
    ],
)
def test_every_mistake_has_a_place(field: str) -> None:
    assert place_of(RequestError(field, "x"), Form()) in field_names()


def test_a_forecast_takes_less_than_200_ms_of_work(forecasts: Forecasts) -> None:
    frames(forecasts)
    began = time.process_time()  # of this program alone, whatever else the computer does
    for batch_size in range(1, 11):
        frames(forecasts, model="llama-2-7b", batch_size=batch_size)
    assert (time.process_time() - began) / 10 < 0.2


def test_a_small_model_fits_and_start_does_not_wait(forecasts: Forecasts) -> None:
    now = frames(forecasts)
    assert not now.waits
    assert "Fits" in now.fit
    assert "134 million" in now.model or "135 million" in now.model


def test_a_large_model_does_not_fit_and_keeps_its_number(forecasts: Forecasts) -> None:
    now = frames(forecasts, model="llama-2-13b", kind="full")
    assert "Does not fit" in now.fit
    assert "over" in now.methods
    assert not now.waits  # a forecast advises; it does not forbid


def test_a_hub_model_has_no_forecast_and_may_start(forecasts: Forecasts) -> None:
    now = frames(forecasts, model=OTHER, model_path="owner/some-model")
    assert not now.waits
    assert "once it is downloaded" in now.fit


def test_a_local_folder_is_read_in_the_background(
    forecasts: Forecasts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shape = forecasts_module.bundled_shape(SMALL)
    assert shape is not None
    monkeypatch.setattr(forecasts_module, "check_model_folder", lambda folder: {"hidden": 7})
    monkeypatch.setattr(readers, "shape_cache_path", lambda config: tmp_path / "none")
    monkeypatch.setattr(engine_commands, "inspect", lambda folder: shape.model_dump(mode="json"))
    (tmp_path / "model").mkdir()
    form = {"model": OTHER, "model_path": str(tmp_path / "model")}
    deadline = time.monotonic() + 60
    first = now = frames(forecasts, **form)
    while now.is_reading and time.monotonic() < deadline:
        time.sleep(0.02)
        now = frames(forecasts, **form)
    assert not now.is_reading
    assert "Fits" in now.fit
    assert not first.is_reading or "Reading the model" in first.model


def test_what_a_person_types_is_only_text(forecasts: Forecasts) -> None:
    attack = '<img src=x onerror=alert(1)>${alert(1)}"'
    now = frames(
        forecasts, model=OTHER, model_path=attack, data=OTHER, data_path=attack, name=attack
    )
    for html in (now.model, now.data, now.methods, now.fit, now.command):
        assert "<img" not in html
