"""The forecast behind the Setup page: every method for this model, these settings, this device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.method_settings import MethodSettings
from engine.contract.model_source import ModelReference, check_model_folder, resolve_model
from engine.contract.presets import METHOD_CHOICES, MethodChoice, resolve_presets
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device, choose_device
from engine.memory.estimate import Forecast
from engine.memory.fit import Fitting, fit
from engine.memory.lost_updates import lost_updates
from engine.memory.machine_rates import rates_of
from engine.memory.model_shape import ModelShape
from engine.memory.resolve import resolve_for_device
from qft_gui.checks import NOT_LOOKED, Look
from qft_gui.data_wish import data_kind
from qft_gui.prospects import (
    CardSize,
    Prospect,
    card_sizes,
    enough_of,
    fewest_changes,
    lasting_advice,
    num_rows,
    prospect,
)
from qft_gui.readers import ShapeReader

T = TypeVar("T")


@dataclass(frozen=True)
class MethodRow:
    """One method for the request of the page.

    Attributes:
        is_changed: The chosen method, with settings that are not its preset's own.
        prospect: None while the model's shape is unknown, and where the method cannot do it.
        refusal: Why this method cannot do what others can.
    """

    choice: MethodChoice
    is_chosen: bool
    is_changed: bool = False
    prospect: Prospect | None = None
    refusal: RequestError | None = None

    @property
    def forecast(self) -> Forecast | None:
        """The memory it needs, if that can be told."""
        return self.prospect.forecast if self.prospect else None

    @property
    def method(self) -> MethodSettings | None:
        """Its settings, complete for the device; None where there is no forecast."""
        return self.prospect.spec.method if self.prospect else None


@dataclass(frozen=True)
class Report:
    """What can be said before a run; a forecast by method once the model's shape is known.

    Attributes:
        spec: Complete; None if anything is wrong with it.
        fitting: What would make the request fit; None where it fits.
        cards: What it would be on other GPUs, the smallest first.
        advice: Sentences about the forecast.
        warning: Why the run would train next to nothing.
    """

    methods: tuple[MethodRow, ...]
    spec: RunSpec | None = None
    model: ModelReference | None = None
    shape: ModelShape | None = None
    device: Device | None = None
    errors: tuple[RequestError, ...] = ()
    is_reading: bool = False
    data: Look = NOT_LOOKED
    fitting: Fitting | None = None
    cards: tuple[CardSize, ...] = ()
    advice: tuple[str, ...] = ()
    warning: str = ""

    @property
    def chosen_row(self) -> MethodRow | None:
        """The chosen method."""
        return next((row for row in self.methods if row.is_chosen), None)

    @property
    def chosen(self) -> Forecast | None:
        """The forecast of the chosen method, if there is one."""
        return self.chosen_row.forecast if self.chosen_row else None


class Forecasts:
    """Turns the settings of the Setup page into a report. Never raises for what a person types."""

    def __init__(self) -> None:
        self._shapes = ShapeReader()
        # The sizes of cards do not change with what is free, and most questions are the last one's.
        self._cards: tuple[RunSpec, ModelShape, tuple[CardSize, ...]] | None = None

    def report(self, document: dict[str, Any], data: Look = NOT_LOOKED) -> Report:
        """What this request needs, by method, or what is wrong with it.

        Args:
            document: A spec as the form holds it.
            data: What is known of its dataset.
        """
        found: list[RequestError] = []
        model = _collect(found, lambda: resolve_model(document["model"]["source"]))
        device = _collect(found, lambda: choose_device(document["train"].get("device", "auto")))
        _collect(found, lambda: _check_source(document["data"]["source"]))
        shape = _collect(found, lambda: self._shape(model)) if model else None
        # A forecast can be made whatever the rows are.
        wrong = list(data.errors)
        spec = _collect(wrong, lambda: validate_spec(document))
        known = Report(
            _rows(document),
            model=model,
            shape=shape,
            device=device,
            errors=(*wrong, *found),
            data=data,
        )
        if found or model is None or device is None:
            return known
        asked = resolve_presets(spec, model) if spec else None
        if asked is not None:
            complete = _collect(wrong, lambda: resolve_for_device(asked, shape, device))
            known = replace(known, spec=complete, errors=tuple(wrong))
        if shape is None:
            return replace(known, is_reading=spec is not None and model.kind == "folder")
        rows_of_file = (data.check.usable or None) if data.check else None
        rows = _prospect_rows(document, model, shape, device, rows_of_file)
        known = replace(known, methods=rows)
        if asked is None or known.spec is None or known.chosen is None:
            return known
        ways = _with_ways(known, known.spec, shape, device)
        return replace(ways, cards=self._card_sizes(asked, shape))

    def _card_sizes(self, asked: RunSpec, shape: ModelShape) -> tuple[CardSize, ...]:
        if self._cards is None or self._cards[:2] != (asked, shape):
            self._cards = (asked, shape, card_sizes(asked, shape))
        return self._cards[2]

    def _shape(self, model: ModelReference) -> ModelShape | None:
        if model.kind in ("starter", "catalogue"):
            return bundled_shape(model.name)
        if model.folder is None:
            return None
        return self._shapes.shape(model.folder, check_model_folder(model.folder))


def _check_source(source: str) -> None:
    if data_kind(source) == "missing":
        raise RequestError(
            "data.source", "there is no such file.", "Type its whole path, or upload it."
        )


def _collect(found: list[RequestError], check: Callable[[], T]) -> T | None:
    """One check; what is wrong joins `found`."""
    try:
        return check()
    except (RequestError, RequestErrors) as error:
        found.extend(mistakes(error))
        return None


def _rows(document: dict[str, Any]) -> tuple[MethodRow, ...]:
    """Every method, with no forecast yet."""
    method: dict[str, Any] = document["method"]
    chosen = MethodChoice(method["kind"], method.get("preset"))
    is_changed = not method.keys() <= {"kind", "preset"}
    return tuple(
        MethodRow(choice, choice == chosen, choice == chosen and is_changed)
        for choice in METHOD_CHOICES
    )


def _prospect_rows(
    document: dict[str, Any],
    model: ModelReference,
    shape: ModelShape,
    device: Device,
    rows_of_file: int | None,
) -> tuple[MethodRow, ...]:
    """The same request with each method; the chosen one with the settings that it has."""
    rows: list[MethodRow] = []
    rates = rates_of(device)
    for row in _rows(document):
        method = {"kind": row.choice.kind, "preset": row.choice.preset}
        own = {key: value for key, value in method.items() if value is not None}
        try:
            spec = validate_spec(document if row.is_chosen else {**document, "method": own})
            complete = resolve_for_device(resolve_presets(spec, model), shape, device)
        except (RequestError, RequestErrors) as error:
            refusal = mistakes(error)[0]
            # What is wrong with a setting stands at its field; the method could do better.
            is_setting = row.is_chosen and refusal.field.startswith("method.")
            is_setting = is_setting and refusal.field != "method.kind"
            rows.append(row if is_setting else replace(row, refusal=refusal))
        else:
            count = num_rows(spec.data.source, rows_of_file)
            found = prospect(complete, shape, device, rates, count)
            if found.forecast.verdict != "fits" and not row.is_chosen:
                found = replace(found, changes=fewest_changes(found, shape, device))
            rows.append(replace(row, prospect=found))
    if any(row.prospect for row in rows):
        return tuple(rows)
    # What no method can do is a mistake of its own field, and none of the methods'.
    return tuple(replace(row, refusal=None) for row in rows)


def _with_ways(known: Report, spec: RunSpec, shape: ModelShape, device: Device) -> Report:
    """What is said of the chosen method alone."""
    known = replace(
        known,
        advice=lasting_advice(spec, shape, device),
        warning=lost_updates(spec, shape) or "",
    )
    if known.chosen is None or known.chosen.verdict == "fits":
        return known
    fitting = fit(spec, shape, device)
    rows = tuple(
        replace(row, prospect=replace(row.prospect, changes=enough_of(fitting)))
        if row.is_chosen and row.prospect
        else row
        for row in known.methods
    )
    return replace(known, methods=rows, fitting=fitting)
