"""A request made to fit: what is changed, in what order, and what never is without consent."""

from __future__ import annotations

from typing import Any

import pytest

from engine.contract.model_source import resolve_model
from engine.contract.presets import resolve_presets
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.calibration import case_of, pass_bytes
from engine.memory.cases import remember
from engine.memory.catalogue import bundled_shape
from engine.memory.changes import Change, with_changes
from engine.memory.devices import Device
from engine.memory.estimate import estimate
from engine.memory.fit import Fitting, fit
from engine.memory.gpus import known_gpus
from engine.memory.model_shape import ModelShape
from engine.memory.resolve import resolve_for_device
from engine.memory.units import GIB
from engine.memory.ways import SHORTEST_TOKENS, Ways

MODEL = "llama-3.2-1b"
LENGTH = 4096
ACCUMULATES = (
    {"kind": "full"},
    {"kind": "lora"},
    {"kind": "qlora", "preset": "paper"},
    {"kind": "qft", "gradients": "stack"},
)
FUSED = ({"kind": "qft"}, {"kind": "lomo"}, {"kind": "adalomo"})


def gpu(free_bytes: int) -> Device:
    return Device("cuda", "cuda", "a test's GPU", free_bytes, free_bytes)


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    found = bundled_shape(MODEL)
    assert found is not None
    return found


def complete(shape: ModelShape, method: dict[str, Any], **train: Any) -> RunSpec:
    asked = {
        "model": {"source": MODEL},
        "data": {"source": "pirate"},
        "method": method,
        "train": {"sequence_length": LENGTH, "activation_checkpointing": False, **train},
    }
    resolved = resolve_presets(validate_spec(asked), resolve_model(MODEL))
    return resolve_for_device(resolved, shape, gpu(GIB))


def between(spec: RunSpec, shape: ModelShape, share: float) -> Device:
    """Free memory that lies so far between what the leanest run needs and what this one does."""
    ways = Ways(shape, gpu(1), None)
    most = ways.forecast(spec).high_bytes
    least = fit(spec, shape, gpu(1)).after.high_bytes
    assert least < most
    return gpu(round(least + share * (most - least)))


def needed(fitting: Fitting, shape: ModelShape, device: Device) -> int:
    return Ways(shape, device, None).forecast(fitting.spec).high_bytes


@pytest.mark.parametrize("method", [*ACCUMULATES, *FUSED])
def test_what_fits_is_left_alone(shape: ModelShape, method: dict[str, Any]) -> None:
    spec = complete(shape, method)
    fitting = fit(spec, shape, gpu(1000 * GIB), may_shorten=True)
    assert fitting == Fitting(spec, (), fitting.before, fitting.before, fits=True)
    assert fitting.slower == 1


@pytest.mark.parametrize("method", [*ACCUMULATES, *FUSED])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.9])
@pytest.mark.parametrize(("batch", "times"), [(8, 1), (12, 2), (7, 1), (1, 3)])
def test_changes_of_its_own_keep_the_training(
    shape: ModelShape, method: dict[str, Any], share: float, batch: int, times: int
) -> None:
    if method in FUSED:
        times = 1
    spec = complete(shape, method, batch_size=batch, grad_accumulation=times)
    device = between(spec, shape, share)
    fitting = fit(spec, shape, device)
    assert fitting.fits
    assert needed(fitting, shape, device) == fitting.after.high_bytes <= device.free_bytes
    train = fitting.spec.train
    assert train.batch_size * train.grad_accumulation == batch * times
    kept = {"batch_size": 1, "grad_accumulation": 1, "activation_checkpointing": False}
    assert spec.train.model_copy(update=kept) == train.model_copy(update=kept)
    assert (fitting.spec.method, fitting.spec.data) == (spec.method, spec.data)
    if method in FUSED:
        assert train.batch_size == batch
    assert not any(change.needs_consent for change in fitting.changes)
    assert validate_spec(fitting.spec.as_json()) == fitting.spec


def test_recomputing_comes_first_and_alone_where_it_is_enough(shape: ModelShape) -> None:
    spec = complete(shape, {"kind": "full"})
    fitting = fit(spec, shape, between(spec, shape, 0.9))
    (change,) = fitting.changes
    assert (change.field, change.before, change.after) == (
        "train.activation_checkpointing",
        False,
        True,
    )
    assert fitting.slower == change.slower == pytest.approx(4 / 3)
    frozen = complete(shape, {"kind": "lora"})
    assert fit(frozen, shape, between(frozen, shape, 0.9)).slower == pytest.approx(3 / 2)


@pytest.mark.parametrize(("batch", "parts"), [(12, (6, 4, 3, 2, 1)), (7, (1,))])
def test_micro_batches_are_as_large_as_fit(
    shape: ModelShape, batch: int, parts: tuple[int, ...]
) -> None:
    spec = complete(shape, {"kind": "lora"}, batch_size=batch, activation_checkpointing=True)
    sizes = {
        part: Ways(shape, gpu(1), None).forecast(
            complete(
                shape,
                {"kind": "lora"},
                batch_size=part,
                grad_accumulation=batch // part,
                activation_checkpointing=True,
            )
        )
        for part in parts
    }
    for part, forecast in sizes.items():
        fitting = fit(spec, shape, gpu(forecast.high_bytes))
        (change,) = fitting.changes
        assert [(one.field, one.before, one.after) for one in change.settings] == [
            ("train.batch_size", batch, part),
            ("train.grad_accumulation", 1, batch // part),
        ]
        assert (change.total_bytes, change.fits) == (forecast.total_bytes, True)
        assert change.slower > 1


def test_micro_batches_alone_where_they_cost_less_than_recomputing(shape: ModelShape) -> None:
    spec = complete(shape, {"kind": "full"}, batch_size=32)
    alone = complete(shape, {"kind": "full"}, batch_size=1, grad_accumulation=32)
    device = gpu(Ways(shape, gpu(1), None).forecast(alone).high_bytes)
    fitting = fit(spec, shape, device)
    assert [change.field for change in fitting.changes] == ["train.batch_size"]
    assert 1 < fitting.slower < 4 / 3


@pytest.mark.parametrize("method", [*ACCUMULATES, *FUSED])
@pytest.mark.parametrize("short", [0.98, 0.9, 0.3])
def test_what_needs_consent_is_offered_and_not_done(
    shape: ModelShape, method: dict[str, Any], short: float
) -> None:
    spec = complete(shape, method)
    least = fit(spec, shape, gpu(1)).after.high_bytes
    device = gpu(round(short * least))
    fitting = fit(spec, shape, device)
    assert not fitting.fits
    assert fitting.spec.train.sequence_length == LENGTH
    assert not any(change.needs_consent for change in fitting.changes)
    for change in fitting.further:
        assert change.needs_consent
        changed = with_changes(fitting.spec, [change])
        forecast = Ways(shape, device, None).forecast(changed)
        assert (forecast.total_bytes, forecast.high_bytes) == (
            change.total_bytes,
            change.high_bytes,
        )
        assert change.fits == (forecast.high_bytes <= device.free_bytes)
        assert forecast.high_bytes < fitting.after.high_bytes
    assert fitting.further
    *alone, last = fitting.further
    if alone and len(last.settings) > 1 and last.high_bytes < min(one.high_bytes for one in alone):
        assert not any(one.fits for one in alone)


def test_all_ways_together_are_offered_where_none_is_enough(shape: ModelShape) -> None:
    spec = complete(shape, {"kind": "qft"})
    further = fit(spec, shape, gpu(1)).further
    *alone, last = further
    fields = {one.settings[0].field for one in alone}
    assert fields == {"train.batch_size", "method.preset", "train.sequence_length"}
    assert fields < {setting.field for setting in last.settings}
    enough = fit(spec, shape, gpu(last.high_bytes)).further
    assert [one.fits for one in enough] == [False, False, False, True]
    single = fit(spec, shape, gpu(max(one.high_bytes for one in alone))).further
    assert len(single) == len(alone)


def test_the_batch_of_a_fused_method_shrinks_only_with_consent(shape: ModelShape) -> None:
    spec = complete(shape, {"kind": "lomo"})
    fitting = fit(spec, shape, gpu(1))
    smaller = next(one for one in fitting.further if one.field == "train.batch_size")
    assert (smaller.before, smaller.after, smaller.needs_consent) == (8, 1, True)
    assert "Each update learns from 1 instead of 8" in smaller.why


def test_qft_is_offered_its_lean_preset_once(shape: ModelShape) -> None:
    balanced = fit(complete(shape, {"kind": "qft"}), shape, gpu(1))
    lean = fit(complete(shape, {"kind": "qft", "preset": "lean"}), shape, gpu(1))
    assert "method.preset" in [change.field for change in balanced.further]
    assert "method.preset" not in [change.field for change in lean.further]
    offered = next(one for one in balanced.further if one.field == "method.preset")
    method = with_changes(balanced.spec, [offered]).method
    assert (
        method
        == validate_spec(
            {**lean.spec.as_json(), "method": {"kind": "qft", "preset": "lean"}}
        ).method
    )


def test_conversations_are_cut_shorter_last_and_no_more_than_needed(shape: ModelShape) -> None:
    spec = complete(shape, {"kind": "lora"})
    least = fit(spec, shape, gpu(1)).after.high_bytes
    device = gpu(round(0.97 * least))
    fitting = fit(spec, shape, device, may_shorten=True)
    assert fitting.fits
    assert [change.needs_consent for change in fitting.changes] == [False] * (
        len(fitting.changes) - 1
    ) + [True]
    last = fitting.changes[-1]
    assert (last.field, last.before) == ("train.sequence_length", LENGTH)
    assert last.after == LENGTH * 3 // 4
    assert last.slower < 1


def test_no_conversation_is_cut_below_the_shortest(shape: ModelShape) -> None:
    spec = complete(shape, {"kind": "lora"})
    least = _cut(fit(spec, shape, gpu(1), may_shorten=True))
    assert least.after == SHORTEST_TOKENS
    fitting = fit(spec, shape, gpu(least.high_bytes), may_shorten=True)
    assert fitting.fits
    assert fitting.spec.train.sequence_length == SHORTEST_TOKENS


def _cut(fitting: Fitting) -> Change:
    return next(one for one in fitting.further if one.field == "train.sequence_length")


@pytest.mark.parametrize("method", [*ACCUMULATES, *FUSED])
def test_nothing_is_cut_where_it_would_not_fit_even_so(
    shape: ModelShape, method: dict[str, Any]
) -> None:
    spec = complete(shape, method)
    asked, allowed = (fit(spec, shape, gpu(1), may_shorten=may) for may in (False, True))
    assert not allowed.fits
    assert allowed == asked
    assert not any(change.needs_consent for change in allowed.changes)
    assert not _cut(allowed).fits
    device = gpu(_cut(allowed).high_bytes - 1)
    assert fit(spec, shape, device, may_shorten=True).spec.train.sequence_length == LENGTH


def test_the_cases_that_are_given_correct_the_answer(shape: ModelShape) -> None:
    spec, device = complete(shape, {"kind": "lora"}), gpu(1000 * GIB)
    estimated = estimate(spec, shape, device)
    more = 2 * pass_bytes(estimated)
    case = case_of(estimated, spec, shape, device, measured_bytes=more)
    remember(case)
    plain, corrected = (fit(spec, shape, device, cases=cases) for cases in ((), (case,)))
    assert plain.before == estimated
    assert pass_bytes(corrected.before) == more
    assert fit(spec, shape, device) == corrected


def test_shortening_starts_from_the_longest_that_there_is(shape: ModelShape) -> None:
    spec = complete(shape, {"kind": "lora"}, sequence_length=8192)
    least = fit(spec, shape, gpu(1), 200).after.high_bytes
    fitting = fit(spec, shape, gpu(least - 1), 200, may_shorten=True)
    assert fitting.spec.train.sequence_length < 200


def test_what_cannot_fit_names_the_gpu_that_would_hold_it(shape: ModelShape) -> None:
    fitting = fit(complete(shape, {"kind": "full"}), shape, gpu(GIB))
    assert fitting.gpu is not None
    assert fitting.gpu.forecast.high_bytes <= fitting.gpu.gpu.empty().free_bytes
    smaller = [card for card in known_gpus() if card.memory_gib < fitting.gpu.gpu.memory_gib]
    assert all(card.empty().free_bytes < fitting.after.high_bytes for card in smaller)
    huge = shape.model_copy(
        update={
            "num_layers": 10**6,
            "tensors": tuple(
                tensor.model_copy(update={"repeat": tensor.repeat * 10**5})
                for tensor in shape.tensors
            ),
        }
    )
    none = fit(complete(shape, {"kind": "full"}), huge, gpu(GIB))
    assert (none.fits, none.gpu) == (False, None)
