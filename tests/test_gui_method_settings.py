"""Every setting of every method on the Setup page: offered, changed, asked for, taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.contract.errors import RequestError, RequestErrors
from engine.contract.method_settings import METHOD_KINDS, MethodKind
from engine.contract.model_source import resolve_model
from engine.contract.presets import METHOD_CHOICES, MethodChoice, resolve_presets
from engine.contract.spec import RunSpec, TrainSpec
from engine.contract.spec_file import validate_spec
from qft_gui.forecasts import Forecasts
from qft_gui.form import CLIP_OF, LABELS, Form, field_names, place_of
from qft_gui.pages.setup_fields import CHOICES, HELP, own_text
from qft_gui.setup_frames import setup_frames
from qft_gui.spec_fields import SETTING_FIELDS, SettingField, own_settings, settings_of

SMALL = "smollm2-135m"


@pytest.fixture(scope="module")
def forecasts() -> Forecasts:
    return Forecasts()


def form_with(values: dict[str, Any]) -> Form:
    """The default form on a CPU with other values, by the names of its fields."""
    return Form(model=SMALL, device="cpu").with_values(values)


# A value of each setting that is not its method's own.
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "qft": {
        "update": "adamw",
        "rounding": "nearest",
        "residual_bits": 8,
        "outlier_percent": 0.5,
        "gradients": "stack",
        "scale_group": 64,
        "moment_bits": 4,
        "matmul": "int8",
        "quantize": "all",
    },
    "qlora": {"quant_type": "fp4", "double_quant": False},
    "lora": {"rank": 8, "alpha": 64, "dropout": 0.05, "targets": "q_proj", "optimizer": "adamw"},
    "lomo": {
        "precision": "fp32",
        "rounding": "nearest",
        "clip": "value",
        "clip_value": 0.5,
        "embedding_rate": 0,
    },
    "full": {"optimizer": "lion", "precision": "bf16"},
}
OTHER_VALUES["qlora"] |= OTHER_VALUES["lora"]
OTHER_VALUES["adalomo"] = OTHER_VALUES["lomo"]


def asked_for(key: str) -> dict[str, Any]:
    """What has to be set before a setting has a say."""
    return {CLIP_OF[key]: "value"} if key in CLIP_OF else {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("qft.update", "sgd"),
        ("qft.rounding", "up"),
        ("qft.residual_bits", 2),
        ("qft.outlier_percent", 3),
        ("qft.gradients", "none"),
        ("qft.scale_group", 31),
        ("qft.moment_bits", 2),
        ("qft.matmul", "int7"),
        ("qft.quantize", "some"),
        ("qlora.rank", 0),
        ("qlora.rank", 1.5),
        ("qlora.quant_type", "nf5"),
        ("qlora.double_quant", "yes"),
        ("lora.alpha", 0),
        ("lora.dropout", 1),
        ("lora.optimizer", "sgd"),
        ("lomo.precision", "fp16"),
        ("lomo.rounding", "up"),
        ("lomo.clip", "norm"),
        ("adalomo.clip_value", 0),
        ("adalomo.embedding_rate", -1),
        ("full.optimizer", "adam"),
        ("full.precision", "fp16"),
    ],
)
def test_a_mistake_in_a_setting_stands_at_its_method(
    forecasts: Forecasts, key: str, value: object
) -> None:
    kind = SETTING_FIELDS[key].kind
    form = form_with({**asked_for(key), key: value})
    now = setup_frames(replace(form, kind=kind), forecasts)
    assert list(now.wrong) == [key]
    assert now.waits[0].startswith(LABELS[key])
    assert "Cannot" not in now.methods
    # A method that is not chosen asks for nothing.
    other: MethodKind = "lora" if kind != "lora" else "full"
    assert not setup_frames(replace(form, kind=other), forecasts).waits


@pytest.mark.parametrize("choice", METHOD_CHOICES, ids=lambda choice: choice.key)
def test_a_choice_sets_its_fields_and_asks_for_nothing_else(choice: MethodChoice) -> None:
    other = {f"{choice.kind}.{name}": value for name, value in OTHER_VALUES[choice.kind].items()}
    form = form_with(other).with_method(*choice)
    assert form.choice == choice
    assert form.changed == ()
    asked = {"kind": choice.kind, "preset": choice.preset}
    document = form.document()
    assert document["method"] == {key: value for key, value in asked.items() if value is not None}
    method = validate_spec(document).method
    assert {one.key: getattr(method, one.name) for one in settings_of(choice.kind)} == {
        key: form.value(key) for key in own_settings(*choice)
    }


@pytest.mark.parametrize(
    ("choice", "setting"),
    [(choice, setting) for choice in METHOD_CHOICES for setting in settings_of(choice.kind)],
    ids=lambda one: one.key,
)
def test_every_setting_of_every_method_reaches_the_run(
    choice: MethodChoice, setting: SettingField
) -> None:
    value = OTHER_VALUES[choice.kind][setting.name]
    if value == own_settings(*choice)[setting.key]:  # as the published algorithm has it
        value = setting.choices[0][1]
    first = asked_for(setting.key)
    form = form_with({}).with_method(*choice).with_values({**first, setting.key: value})
    assert set(form.changed) == {*first, setting.key}
    asked = form.document()["method"]
    assert {f"{choice.kind}.{name}" for name in asked} >= {*first, setting.key}
    assert len(set(asked) - {"kind", "preset"}) == len(first) + 1
    if (choice.preset, setting.key) == ("paper", "qft.matmul"):
        with pytest.raises(RequestErrors, match="int8 products need"):
            validate_spec(form.document())
    else:
        assert getattr(validate_spec(form.document()).method, setting.name) == value
    assert form.with_method(*form.choice).changed == ()


def test_a_changed_field_is_asked_for_by_name_and_wins() -> None:
    paper = form_with({}).with_method("qft", "paper")
    form = paper.with_values({"qft.rounding": "stochastic", "qft.outlier_percent": 0.5})
    changed = {"rounding": "stochastic", "outlier_percent": 0.5}
    assert form.document()["method"] == {"kind": "qft", "preset": "paper", **changed}
    assert form.changed == ("qft.rounding", "qft.outlier_percent")
    assert form.with_method("full", None).document()["method"] == {"kind": "full"}
    # An emptied number or text is the method's own.
    assert form.with_values({"qft.outlier_percent": None}).changed == ("qft.rounding",)
    lora = form_with({"lora.targets": "", "lora.rank": 8.0}).with_values({"kind": "lora"})
    assert lora.document()["method"] == {"kind": "lora", "rank": 8}


def choices_in(listed: dict[str, Any]) -> list[object]:
    """What JSON Schema lists, in order; a switch is both of its values."""
    found: list[object] = []
    for part in listed.get("anyOf", [listed]):
        switch = [True, False] if part.get("type") == "boolean" else []
        found += [*part.get("enum", []), *([part["const"]] if "const" in part else []), *switch]
    return found


def test_the_form_offers_every_setting_and_every_choice() -> None:
    schema = RunSpec.model_json_schema()["$defs"]
    groups = [group for name, group in schema.items() if name.endswith("Settings")]
    by_kind = {group["properties"]["kind"]["const"]: group["properties"] for group in groups}
    assert set(by_kind) == set(METHOD_KINDS)
    for kind, listed in by_kind.items():
        names = set(listed) - {"kind", "preset"}
        assert {one.name for one in settings_of(kind)} == names == set(OTHER_VALUES[kind])
    of_train = schema["TrainSpec"]["properties"]
    allowed = {key: by_kind[one.kind][one.name] for key, one in SETTING_FIELDS.items()}
    allowed |= {name: of_train[name] for name in set(CHOICES) & set(of_train) - {"device"}}
    for key, listed in allowed.items():
        offered = [value for _, value in CHOICES.get(key, ()) if value != ""]
        assert list(map(repr, offered)) == list(map(repr, choices_in(listed)))
    assert set(SETTING_FIELDS) <= {*field_names()} & {*LABELS} & {*HELP}
    assert all(HELP[key] and "_" not in LABELS[key] for key in SETTING_FIELDS)


def test_switches_are_on_or_off() -> None:
    assert CHOICES["qlora.double_quant"] == (("On", True), ("Off", False))
    assert CHOICES["activation_checkpointing"][0] == ("Auto", "auto")
    assert CHOICES["schedule"][0] == ("Method's own", "")


@pytest.mark.parametrize("choice", METHOD_CHOICES, ids=lambda choice: choice.key)
def test_what_is_left_empty_is_the_methods_own(choice: MethodChoice) -> None:
    form = form_with({}).with_method(*choice)
    spec = validate_spec(form.document())
    assert not spec.train.model_fields_set & {"schedule", "learning_rate", "max_grad_norm"}
    reference = resolve_model(SMALL)
    train = resolve_presets(spec, reference).train
    bare = validate_spec({**form.document(), "train": {"device": "cpu"}})
    own = resolve_presets(bare, reference).train
    assert (train.schedule, train.max_grad_norm) == (own.schedule, own.max_grad_norm)


def test_a_schedule_and_a_clip_of_ones_own_win() -> None:
    def train(**values: Any) -> TrainSpec:
        form = form_with({}).with_method("qlora", "paper").with_values(values)
        return resolve_presets(validate_spec(form.document()), resolve_model(SMALL)).train

    assert (train().schedule, train().max_grad_norm) == ("constant", 0.3)
    assert train(schedule="cosine").schedule == "cosine"
    assert train(max_grad_norm="0.7").max_grad_norm == 0.7
    assert train(max_grad_norm=" None ").max_grad_norm is None


def test_the_page_says_what_the_methods_own_is(forecasts: Forecasts) -> None:
    paper = setup_frames(form_with({}).with_method("qlora", "paper"), forecasts)
    assert paper.looks["max_grad_norm"]["placeholder"] == "0.3"
    assert paper.looks["learning_rate"]["placeholder"] == "2e-4"
    assert "2e-4, constant" in paper.fit
    assert setup_frames(form_with({}), forecasts).looks["max_grad_norm"]["placeholder"] == "none"


def test_lomo_refuses_what_its_clip_cannot(forecasts: Forecasts) -> None:
    norm = form_with({}).with_method("lomo", None).with_values({"max_grad_norm": "1"})
    assert not setup_frames(norm, forecasts).waits
    by_value = setup_frames(norm.with_values({"lomo.clip": "value"}), forecasts)
    assert list(by_value.wrong) == ["max_grad_norm"]
    assert "two_pass_norm" in by_value.wrong["max_grad_norm"]


TYPED = {"learning_rate": "0.5", "schedule": "constant", "max_grad_norm": "1"}


def test_another_method_or_preset_takes_its_own_rate_schedule_and_clip() -> None:
    form = form_with({"seed": 7}).with_method("qft", "paper").with_values(TYPED)
    for other in (form.with_method("qft", "quality"), form.with_method("full", None)):
        assert [other.value(name) for name in TYPED] == ["", "", ""]
        assert other.seed == 7
    # To undo the changes is no change of the method.
    undone = form.with_method(*form.choice)
    assert [undone.value(name) for name in TYPED] == list(TYPED.values())


@pytest.mark.parametrize("kind", ["lomo", "adalomo"])
def test_the_largest_entry_is_asked_for_only_where_it_clips(
    forecasts: Forecasts, kind: MethodKind
) -> None:
    key = f"{kind}.clip_value"
    norm = form_with({}).with_method(kind, None)
    norm = norm.with_values({f"{kind}.clip": "two_pass_norm", key: 0})
    hidden = setup_frames(norm, forecasts)
    assert hidden.looks[key] == {"visible": False}
    assert not hidden.waits
    assert "clip_value" not in norm.document()["method"]
    shown = setup_frames(norm.with_values({f"{kind}.clip": "value"}), forecasts)
    assert shown.looks[key] == {"visible": True}
    assert list(shown.wrong) == [key]


def test_an_emptied_field_stands_for_what_it_shows() -> None:
    form = form_with({})
    numbers = [name for name in field_names() if isinstance(form.value(name), int | float)]
    numbers = [name for name in numbers if name not in CHOICES]
    assert {"steps", "batch_size", "weight_decay", "seed", "qlora.alpha"} <= set(numbers)
    reference = resolve_model(SMALL)
    for choice in METHOD_CHOICES:
        chosen = form.with_method(*choice)
        emptied = chosen.with_values(dict.fromkeys(numbers))
        shown = {name: float(own_text(chosen, name)) for name in numbers}
        typed = chosen.with_values(
            {name: value for name, value in shown.items() if name in own_settings(*choice)}
        ).with_values({name: value for name, value in shown.items() if "." not in name})
        specs = [validate_spec(one.document()) for one in (emptied, typed)]
        assert resolve_presets(specs[0], reference) == resolve_presets(specs[1], reference)


def test_changes_are_told_by_name(forecasts: Forecasts) -> None:
    own = setup_frames(form_with({}), forecasts)
    assert (own.kind, own.is_changed) == ("qft", False)
    assert "As <b>QFT balanced</b> sets them" in own.preset_note
    changes = form_with({"qft.update": "adamw", "qft.moment_bits": 4})
    changed = setup_frames(changes, forecasts)
    assert changed.is_changed
    assert "QFT balanced, changed</b>: Update, Moments." in changed.preset_note
    assert not setup_frames(replace(changes, kind="full"), forecasts).is_changed
    lora = form_with({}).with_method("lora", None).with_values({"lora.rank": 64})
    now = setup_frames(lora, forecasts)
    assert "LoRA, changed</b>: Rank." in now.preset_note
    assert "<b>LoRA, changed</b>" in now.methods


@pytest.mark.parametrize("key", SETTING_FIELDS)
def test_every_mistake_in_a_setting_has_its_place(key: str) -> None:
    setting = SETTING_FIELDS[key]
    error = RequestError(f"method.{setting.name}", "x")
    assert place_of(error, Form(kind=setting.kind)) == key
